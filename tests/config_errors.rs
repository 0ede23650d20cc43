//! A config that is wrong is refused whole, before a port is bound, with the file, the line, the key, the value and what is
//! allowed; exit 64.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use switchback_tests::binary;

/// A config that is good, line by line; cases replace or add lines.
const GOOD: &str = r#"[listen]
traffic = "127.0.0.1:0"
admin = "127.0.0.1:0"

[limits]
connections = 1000

[state]
data_dir = "DATA_DIR"

[[route]]
name = "search"
unit = ["header:x-user-id"]

[route.pools.blue]
endpoints = ["http://127.0.0.1:9001"]
"#;

/// What is replaced, with what, and what the error must say: line and key, value, and what is allowed.
struct Case {
    from: &'static str,
    to: &'static str,
    key: &'static str,
    value: &'static str,
    allowed: &'static str,
}

const fn case(from: &'static str, to: &'static str, key: &'static str, value: &'static str, allowed: &'static str) -> Case {
    Case { from, to, key, value, allowed }
}

const CASES: &[Case] = &[
    case("traffic = \"127.0.0.1:0\"", "traffic = \"localhost\"", ":2: listen.traffic", "localhost", "an IP address and a port"),
    case("admin = \"127.0.0.1:0\"", "", ":1: listen.admin", "is missing", "an IP address and a port"),
    case("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:9090\"", ":3: listen.admin", "0.0.0.0:9090", "[[admin.token]]"),
    case("admin = \"127.0.0.1:0\"", "admin = 9090", ":3: listen.admin", "9090", "must be an IP address and a port"),
    case("connections = 1000", "connections = 0", ":6: limits.connections", "0", "from 1 to 1000000"),
    case(
        "connections = 1000",
        "connections = \"many\"",
        ":6: limits.connections",
        "\"many\"",
        "must be a whole number from 1 to 1000000, without quotes",
    ),
    case(
        "connections = 1000",
        "conections = 1000",
        ":6: limits.conections",
        "1000",
        "unknown key, did you mean connections? allowed here: connections, ",
    ),
    case("connections = 1000", "connections = -1", ":6: limits.connections", "-1", "must be a whole number from 1 to 1000000"),
    case("connections = 1000", "header_timeout = 5", ":6: limits.header_timeout", "5", "must be a duration from 100ms to 5m"),
    case("connections = 1000", "header_timeout = \"5 s\"", ":6: limits.header_timeout", "5 s", "must be a duration from 100ms to 5m"),
    case("connections = 1000", "header_bytes = \"64 KiB\"", ":6: limits.header_bytes", "64 KiB", "must be a size from 8KiB to 1MiB"),
    case("connections = 1000", "header_timeout = \"5\"", ":6: limits.header_timeout", "5", "100ms to 5m"),
    case("connections = 1000", "header_timeout = \"2h\"", ":6: limits.header_timeout", "2h", "100ms to 5m"),
    case("connections = 1000", "header_bytes = \"1TB\"", ":6: limits.header_bytes", "1TB", "8KiB to 1MiB"),
    case("data_dir =", "url = \"http://127.0.0.1:6379\"\ndata_dir =", ":9: state.url", "http://127.0.0.1:6379", "redis://"),
    case("data_dir =", "url = \"redis+sentinel://h\"\ndata_dir =", ":9: state.url", "redis+sentinel://h", "the name of the primary"),
    case("data_dir =", "url = \"redis+cluster://h/2\"\ndata_dir =", ":9: state.url", "redis+cluster://h/2", "database 0 alone"),
    case("data_dir =", "password_file = \"x\"\ndata_dir =", ":9: state.password_file", "x", "there is no state.url"),
    case("data_dir =", "url = \"redis://h\"\nca = \"x\"\ndata_dir =", ":10: state.ca", "x", "must begin with rediss://"),
    case("data_dir =", "url = \"redis://h\"\nusername = \"x\"\ndata_dir =", ":10: state.username", "x", "needs a password"),
    case(
        "data_dir =",
        "url = \"redis://a:s3cret@h\"\nusername = \"x\"\ndata_dir =",
        ":9: state.url",
        "redis://***@h",
        "must not name a user or password",
    ),
    case("data_dir =", "url = \"rediss://h\"\ncert = \"x\"\ndata_dir =", "state.key", "is missing", "private key"),
    case("data_dir =", "url = \"redis://h\"\nsentinel_password_env = \"x\"\ndata_dir =", ":9: state.url", "redis://h", "has no sentinels"),
    case("data_dir =", "url = \"redis://h\"\npassword_env = \"a b\"\ndata_dir =", ":10: state.password_env", "a b", "environment variable"),
    case("data_dir =", "heartbeat_interval = \"5s\"\ndata_dir =", ":9: state.heartbeat_interval", "5s", "state.router_timeout (3s)"),
    case("data_dir =", "router_id = \"a b\"\ndata_dir =", ":9: state.router_id", "a b", "1 to 64 printable"),
    case("name = \"search\"", "name = \"Search!\"", ":12: route[0].name", "Search!", "1 to 64 of a-z"),
    case("name = \"search\"", "", ":11: route[0].name", "is missing", "1 to 64 of a-z"),
    case("unit = [\"header:x-user-id\"]", "unit = [\"query:q\"]", ":13: route.search.unit", "query:q", "client-address"),
    case("unit = [\"header:x-user-id\"]", "unit = \"client-address\"", ":13: route.search.unit", "client", "a list: [\"client-address\"]"),
    case("unit = [\"header:x-user-id\"]", "unit = [\"client-address\", 5]", ":13: route.search.unit[1]", "5", "\"header:NAME\""),
    case("unit =", "initial = { canary_percent = 5 }\nunit =", ":13: route.search.initial.canary_percent", "5", "in quotes: \"5\""),
    case("[limits]", "[admin.token]\nname = \"ann\"\n[limits]", ":5: admin.token", "", "write [[admin.token]]"),
    case("unit = [\"header:x-user-id\"]", "unit = []", ":13: route.search.unit", "[]", "at least one source"),
    case("unit =", "match = { path_prefix = \"x\" }\nunit =", ":13: route.search.match.path_prefix", "x", "starts with /"),
    case("unit =", "expose = [\"all\"]\nunit =", ":13: route.search.expose", "all", "must be \"pool\""),
    case("unit =", "max_request_body = \"0B\"\nunit =", ":13: route.search.max_request_body", "0B", "1B to 1024GiB"),
    case("admin =", "trusted_proxies = [\"10.0.0.0/33\"]\nadmin =", ":3: listen.trusted_proxies", "10.0.0.0/33", "10.0.0.0/8"),
    case("[limits]", "[override]\n\n[limits]", ":5: override.key_files", "is missing", "1 to 16 paths"),
    case("[limits]", "[override]\nkey_files = [\"k\"]\nmax_lifetime = \"1s\"\n\n[limits]", ":7: override.max_lifetime", "1s", "1m to 720h"),
    case("[limits]", "[[notify]]\nname = \"ops\"\n\n[limits]", ":5: notify.ops.url", "is missing", "https://hooks.example.com"),
    case(
        "[limits]",
        "[[notify]]\nname = \"ops\"\nurl = \"http://h\"\nevents = [\"flip\"]\n\n[limits]",
        ":8: notify.ops.events",
        "flip",
        "rollout-started, step-began",
    ),
    case(
        "[limits]",
        "[[notify]]\nname = \"ops\"\nurl = \"ftp://ann:s3cret@h/\"\n\n[limits]",
        ":7: notify.ops.url",
        "ftp://***@h/",
        "http or https",
    ),
    case("unit =", "initial = { live = \"green\" }\nunit =", ":13: route.search.initial.live", "green", "a pool of this route"),
    case("unit =", "initial = { canary_percent = \"101\" }\nunit =", ":13: route.search.initial.canary_percent", "101", "0\" to \"100"),
    case("unit =", "initial = { pin = \"red\" }\nunit =", ":13: route.search.initial.pin", "red", "a pool of this route: blue"),
    case("unit =", "initial = { freeze = \"yes\" }\nunit =", ":13: route.search.initial.freeze", "yes", "\"true\" or \"false\""),
    case("unit =", "initial = { salt = \"short\" }\nunit =", ":13: route.search.initial.salt", "short", "8 to 128"),
    case("unit =", "initial = { experiments = \"[]\" }\nunit =", ":13: route.search.initial.experiments", "(2 bytes)", "a JSON object"),
    case("unit =", "initial = { split_policy = \"A B\" }\nunit =", ":13: route.search.initial.split_policy", "A B", "a policy's name"),
    case("unit =", "initial = { canary_percent = \"5\" }\nunit =", ":13: route.search.initial.canary_percent", "5", "has no pool canary"),
    case(
        "endpoints =",
        "endpoints = [\"http://127.0.0.1:9002\"]\n[route.initial]\ncanary_percent = \"70\"\nholdback_pool = \"green\"\n\
         holdback_percent = \"30.5\"\n[route.pools.canary]\nendpoints = [\"http://127.0.0.1:9003\"]\n\
         [route.pools.green]\nendpoints =",
        ":20: route.search.initial.holdback_percent",
        "30.5",
        "at most 30: candidate and holdback are at most 100 together",
    ),
    case("unit =", "signals = { results = \"/a/*/b\" }\nunit =", ":13: route.search.signals.results", "/a/*/b", "without *"),
    case("unit =", "breaker = { alpha = 0.5 }\nunit =", ":13: route.search.breaker.alpha", "0.5", "from 1e-9 to 0.05"),
    case("unit =", "initial = { lives = \"blue\" }\nunit =", ":13: route.search.initial.lives", "blue", "one of live"),
    case("unit =", "timeouts = { attempt = \"20s\" }\nunit =", ":13: route.search.timeouts.attempt", "20s", "timeouts.total (15s)"),
    case("[route.pools.blue]", "[route.pools.teal]", ":15: route.search.pools.blue", "is missing", "`blue` or `green`"),
    case(
        "127.0.0.1:0\"\nadmin",
        "0.0.0.0:9001\"\nadmin",
        ":16: route.search.pools.blue.endpoints",
        "127.0.0.1:9001",
        "the router itself listens",
    ),
    case("endpoints = [\"http://127.0.0.1:9001\"]", "", ":15: route.search.pools.blue.endpoints", "is missing", "http://127.0.0.1:9001"),
    case("[\"http://127.0.0.1:9001\"]", "[]", ":16: route.search.pools.blue.endpoints", "0", "1 to 1024 endpoints"),
    case(
        "[\"http://127.0.0.1:9001\"]",
        "[\"http://127.0.0.1:1\", \"http://127.0.0.1:1\"]",
        ":16: route.search.pools.blue.endpoints",
        "http://127.0.0.1:1",
        "each endpoint once",
    ),
    case("http://127.0.0.1:9001", "h2://127.0.0.1:9001", ":16: route.search.pools.blue.endpoints", "h2://", "scheme http or https"),
    case("endpoints =", "protocol = \"http2\"\nendpoints =", ":16: route.search.pools.blue.protocol", "http2", "\"http1\" or \"h2\""),
    case("endpoints =", "tls = { ca = \"x\" }\nendpoints =", ":16: route.search.pools.blue.tls", "{ ... }", "this pool has none"),
    case(
        "http://127.0.0.1:9001\"]",
        "https://a:1\"]\ntls = { cert = \"x\" }",
        ":17: route.search.pools.blue.tls.key",
        "is missing",
        "private key",
    ),
    case("unit =", "upgrades = [\"h2c\"]\nunit =", ":13: route.search.upgrades", "h2c", "and not h2c"),
    case("admin =", "traffic_tls = \"127.0.0.1:0\"\nadmin =", "tls.certificate", "is missing", "[[tls.certificate]]"),
    case("[limits]", "[tls]\n[limits]", "listen.traffic_tls", "is missing", "an address like"),
    case("[limits]", "[tls]\nclient_auth = \"optional\"\n[limits]", ":6: tls.client_auth", "optional", "needs tls.client_ca"),
    case("http://127.0.0.1:9001", "http://127.0.0.1", ":16: route.search.pools.blue.endpoints", "http://127.0.0.1", "port"),
    case("unit =", "loading = { model = \"search\" }\nunit =", ":13: route.search.loading", "{ ... }", "needs a [registry] section"),
    case(
        "[limits]",
        "[registry]\n[[route]]\nname = \"ads\"\nloading = { protocol = \"v2\" }\n[limits]",
        ":8: route.ads.loading.model",
        "is missing",
        "the model's name in the registry",
    ),
    case(
        "unit =",
        "loading = { model = \"a\", protocol = \"hooks\", load_url = \"{endpoint}/{modle}\" }\nunit =",
        ":13: route.search.loading.load_url",
        "{endpoint}/{modle}",
        "`{modle}`: not known; allowed in braces: {endpoint}",
    ),
    case(
        "unit =",
        "loading = { model = \"a\", protocol = \"hooks\" }\nunit =",
        ":13: route.search.loading.load_url",
        "is missing",
        "{endpoint}/models/{model}/{version}",
    ),
    case("unit =", "loading = { unload_url = \"http://h/\" }\nunit =", ":13: route.search.loading.unload_url", "http://h/", "\"hooks\""),
    case("endpoints =", "health = { interval = \"1d\" }\nendpoints =", ":16: route.search.pools.blue.health.interval", "1d", "0us to 5m"),
    case(
        "[limits]",
        "[[admin.token]]\nname = \"ann\"\nrole = \"root\"\nfile = \"t\"\n[limits]",
        ":7: admin.token[0].role",
        "root",
        "viewer",
    ),
    case(
        "[limits]",
        "[[admin.token]]\nname = \"ann\"\nrole = \"viewer\"\n[limits]",
        ":5: admin.token[0].file",
        "is missing",
        "path of a file",
    ),
    case("[limits]", "[policies]\nquarantine = \"10m\"\n[limits]", ":6: policies.quarantine", "10m", "policies.quarantine_max (5m)"),
    case("[limits]", "[polices]\n[limits]", ":5: polices", "", "unknown key, did you mean policies? allowed here: listen, "),
    case(
        "connections = 1000",
        "connections = 99999999999999999999",
        ":6: `connections =",
        "99999999999999999999",
        "at most 9223372036854775807",
    ),
    case("connections = 1000", "connections = ", ":6: `connections =`", "", "string"),
];

struct Written {
    _folder: tempfile::TempDir,
    file: PathBuf,
    data_dir: PathBuf,
}

fn write(text: &str) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let (file, data_dir) = (folder.path().join("switchback.toml"), folder.path().join("data"));
    std::fs::write(&file, text.replace("DATA_DIR", &data_dir.display().to_string())).unwrap();
    Written { _folder: folder, file, data_dir }
}

fn switchback(arguments: &[&str], file: &Path) -> (Output, String) {
    let output = Command::new(binary()).args(arguments).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

#[test]
fn the_config_that_the_cases_change_is_good() {
    let written = write(GOOD);
    let (output, said) = switchback(&["config", "check"], &written.file);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 route(s), 1 pool(s), 1 endpoint(s)"));
}

#[test]
fn every_wrong_config_names_file_line_key_value_and_what_is_allowed() {
    for Case { from, to, key, value, allowed } in CASES {
        assert!(GOOD.contains(from), "the case does not change anything: {from}");
        let written = write(&GOOD.replacen(from, to, 1));
        for arguments in [&["config", "check"][..], &["serve", "--config"][..]] {
            let (output, said) = switchback(arguments, &written.file);
            let line = said.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("no line with {key} in:\n{said}"));
            assert!(line.starts_with(&written.file.display().to_string()), "no file in: {line}");
            // What follows the key, where a value does.
            let shown = line.split_once(&format!("{key} = ")).map_or(line, |(_, shown)| shown);
            let is_shown = shown != line && shown.trim_start_matches('"').starts_with(value.trim_matches('"'));
            assert!(is_shown || (shown == line && line.contains(value)), "no {value} in: {line}");
            assert!(line.contains(allowed), "no {allowed} in: {line}");
            assert_eq!(output.status.code(), Some(64), "{said}");
        }
        assert!(!written.data_dir.exists(), "a refused config leaves no trace");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let wrong = GOOD.replace("connections = 1000", "connections = 0").replace("header:x-user-id", "x").replace("9001", "");
    let (_, said) = switchback(&["config", "check"], &write(&wrong).file);
    for key in [":6: limits.connections", ":13: route.search.unit", ":16: route.search.pools.blue.endpoints"] {
        assert!(said.contains(key), "no {key} in:\n{said}");
    }
}

#[test]
fn what_does_not_fit_hides_no_other_problem() {
    let wrong = GOOD
        .replace("admin = \"127.0.0.1:0\"", "admin = 9090\nadmn = \"127.0.0.1:0\"")
        .replace("connections = 1000", "connections = \"many\"\nheader_timeout = \"2h\"")
        .replace("endpoints = [", "endpoint = [");
    let (output, said) = switchback(&["config", "check"], &write(&wrong).file);
    assert_eq!(output.status.code(), Some(64));
    let lines: Vec<&str> = said.lines().filter_map(|line| line.split_once("switchback.toml:")).map(|(_, line)| line).collect();
    let expected = [
        "3: listen.admin = 9090: must be an IP address",
        "4: listen.admn = \"127.0.0.1:0\": unknown key, did you mean admin?",
        "7: limits.connections = \"many\": must be a whole number",
        "8: limits.header_timeout = \"2h\": must be a duration",
        "17: route.search.pools.blue.endpoints is missing",
        "18: route.search.pools.blue.endpoint = [",
    ];
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}, not {expected}");
    }
}

#[test]
fn every_line_that_is_no_toml_is_told() {
    let wrong = GOOD.replace("connections = 1000", "connections = ").replace("name = \"search\"", "name = search");
    let (_, said) = switchback(&["config", "check"], &write(&wrong).file);
    assert!(said.contains(":6: `connections =`: ") && said.contains(":12: `name = search`: "), "{said}");
}

#[test]
fn a_password_where_none_belongs_is_not_repeated() {
    for wrong in ["password = \"s3cret\"", "password = s3cret", "url = \"redis://ann:s3cret@h", "password_file = [\"s3cret\"]"] {
        let (output, said) = switchback(&["config", "check"], &write(&GOOD.replace("data_dir =", &format!("{wrong}\ndata_dir ="))).file);
        assert_eq!(output.status.code(), Some(64));
        assert!(said.contains(":9: ") && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn two_tokens_must_differ_in_name_and_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, secret: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, secret).unwrap();
        path.display().to_string()
    };
    let (one, same, other) =
        (file("one", "s3cret-s3cret-s3cret"), file("same", "s3cret-s3cret-s3cret\n"), file("other", "another-s3cret-word"));
    let token = |name: &str, file: &str| format!("[[admin.token]]\nname = \"{name}\"\nrole = \"viewer\"\nfile = \"{file}\"\n");
    for (tokens, wanted) in [
        ([token("ann", &one), token("ann", &other)], Some(":10: admin.token[1].name = \"ann\": must be given to one token only")),
        ([token("ann", &one), token("local-operator", &other)], Some(":10: admin.token[1].name = \"local-operator\": must be given")),
        ([token("ann", &one), token("bob", &same)], Some("must hold another token than admin.token[0], \"ann\"")),
        ([token("ann", &one), token("bob", &other)], None),
    ] {
        let written = write(&GOOD.replace("[limits]", &format!("{}[limits]", tokens.concat())));
        let (output, said) = switchback(&["config", "check"], &written.file);
        assert_eq!(output.status.code(), Some(if wanted.is_some() { 64 } else { 0 }), "{said}");
        assert!(said.contains(wanted.unwrap_or_default()) && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn two_routes_must_differ_in_name_and_match() {
    let second = "\n[[route]]\nname = \"search\"\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:9001\"]\n";
    let (output, said) = switchback(&["config", "check"], &write(&format!("{GOOD}{second}")).file);
    assert_eq!(output.status.code(), Some(64));
    assert!(said.contains(":19: route[1].name = \"search\": must be given to one route only"), "{said}");
    assert!(said.contains("route[1].match = \"*/\": must differ from the routes before it"), "{said}");
}

#[test]
fn the_ports_of_a_refused_config_are_never_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("traffic = \"{}\"", taken.local_addr().unwrap());
    let wrong = GOOD.replace("traffic = \"127.0.0.1:0\"", &listen).replace("connections = 1000", "connections = 0");
    let (output, said) = switchback(&["serve", "--config"], &write(&wrong).file);
    assert_eq!(output.status.code(), Some(64), "the config is judged before the port is tried: {said}");
    let only_taken = GOOD.replace("traffic = \"127.0.0.1:0\"", &listen);
    let (output, said) = switchback(&["serve", "--config"], &write(&only_taken).file);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("listen.traffic: cannot listen on"), "{said}");
}

#[test]
fn a_config_or_token_that_cannot_be_read_is_named() {
    let (output, said) = switchback(&["serve", "--config"], Path::new("no/such/switchback.toml"));
    assert_eq!((output.status.code(), said.contains("no/such/switchback.toml: cannot be read")), (Some(64), true), "{said}");
    let token = "[[admin.token]]\nname = \"ann\"\nrole = \"viewer\"\nfile = \"no/such/token\"\n\n[limits]";
    let (output, said) = switchback(&["config", "check"], &write(&GOOD.replace("[limits]", token)).file);
    assert_eq!(output.status.code(), Some(64));
    assert!(said.contains("admin.token[0].file = \"no/such/token\": cannot be read"), "{said}");
}

#[test]
fn a_password_in_a_refused_url_is_not_repeated() {
    let wrong = GOOD.replace("data_dir =", "url = \"rediss://ann:s3cret@host:port\"\ndata_dir =");
    let (output, said) = switchback(&["config", "check"], &write(&wrong).file);
    assert_eq!(output.status.code(), Some(64));
    assert!(said.contains("state.url") && said.contains("***@host:port") && !said.contains("s3cret"), "{said}");
}

#[test]
fn passwords_and_certificates_of_redis_are_read_before_a_port_is_bound() {
    for (keys, said_so) in [
        ("url = \"redis://h\"\npassword_file = \"no/such/file\"", ":10: state.password_file = \"no/such/file\": cannot be read"),
        ("url = \"redis://h\"\npassword_env = \"NO_SUCH_NAME\"", ":10: state.password_env = \"NO_SUCH_NAME\": is not set"),
        ("url = \"rediss+cluster://h\"\nca = \"Cargo.toml\"", ":10: state.ca = \"Cargo.toml\""),
        (
            "url = \"redis+sentinel://h/m\"\nsentinel_password_file = \"/dev/null\"",
            ":10: state.sentinel_password_file = \"/dev/null\": must",
        ),
    ] {
        let written = write(&GOOD.replace("data_dir =", &format!("{keys}\ndata_dir =")));
        for arguments in [&["config", "check"][..], &["serve", "--config"][..]] {
            let (output, said) = switchback(arguments, &written.file);
            assert_eq!(output.status.code(), Some(64), "{said}");
            assert!(said.contains(said_so), "no {said_so} in:\n{said}");
        }
    }
}

#[test]
fn problems_come_as_json_too() {
    let (output, _) = switchback(&["config", "check", "--json"], &write(&GOOD.replace("1000", "0")).file);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["problems"][0].as_str().unwrap().contains("limits.connections"));
}

#[test]
fn policies_that_are_not_there_are_warned_of() {
    let with = |keys: &str| write(&GOOD.replacen("name = \"search\"", &format!("name = \"search\"\n{keys}"), 1));
    for (keys, warning) in [
        (
            "rollback_policy = \"nosuch\"",
            ":13: warning: route.search.rollback_policy = \"nosuch\": no such plugin is shipped, and there is no ",
        ),
        ("rollback_policy = \"split-rules\"", "route.search.rollback_policy = \"split-rules\": it is a policy of the other kind"),
        ("split_policy = \"rollback-threshold\"", "route.search.split_policy = \"rollback-threshold\": it is a policy of the other kind"),
        ("initial = { rollback_policy = \"nosuch\" }", "warning: route.search.initial.rollback_policy = \"nosuch\""),
    ] {
        let written = with(keys);
        let (output, said) = switchback(&["config", "check"], &written.file);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(0) && stdout.contains(warning) && stdout.contains(": good: "), "{stdout}{said}");
        let (output, _) = switchback(&["config", "check", "--json"], &written.file);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json["ok"] == true && json["warnings"][0].as_str().unwrap().contains(warning), "{json}");
    }
    let good = with("rollback_policy = \"rollback-threshold\"\nsplit_policy = \"split-weighted\"");
    let (output, _) = switchback(&["config", "check", "--json"], &good.file);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["warnings"], serde_json::json!([]));
}

#[test]
fn fields_of_initial_may_be_empty_as_in_a_change_of_flags() {
    let initial = r#"initial = { pin = "none", canary_percent = "", candidate_pool = "", freeze = "" }"#;
    let good = write(&GOOD.replacen("name = \"search\"", &format!("name = \"search\"\n{initial}"), 1));
    let (output, said) = switchback(&["config", "check"], &good.file);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let bad = write(&GOOD.replacen("name = \"search\"", "name = \"search\"\ninitial = { live = \"\" }", 1));
    let (output, said) = switchback(&["config", "check"], &bad.file);
    assert!(output.status.code() == Some(64) && said.contains("initial.live"), "{said}");
}

#[test]
fn bad_usage_exits_64_and_help_exits_0() {
    for (arguments, code) in [(&["serve"][..], 64), (&["flag", "set", "search"], 64), (&["nonsense"], 64), (&["flag", "set", "--help"], 0)]
    {
        assert_eq!(Command::new(binary()).args(arguments).output().unwrap().status.code(), Some(code), "{arguments:?}");
    }
}
