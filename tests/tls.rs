//! TLS on both sides: the certificate that a client asked for, new ones without a restart, and backends that must prove who they are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use switchback_tests::tls::{Authority, Issued, Open, connect, exchange};
use switchback_tests::{Backend, Behaviour, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(5);
const GET: &str = "GET /rank HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";

fn certificate(issued: &Issued, folder: &Path, name: &str) -> String {
    let (cert, key) = issued.write(folder, name);
    format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n")
}

/// A router with a TLS listener; `tls` is the rest of that section, before its certificates.
fn over_tls(blue: &Backend, tls: &str, certificates: &str) -> Setup {
    let top = format!("[tls]\nreload_interval = \"20ms\"\n{tls}\n{certificates}");
    Setup::default().pool("blue", &[blue]).listen("traffic_tls = \"127.0.0.1:0\"").top(&top)
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    blue.behave(Behaviour::ShowHead);
    let (first, second, wild) = (authority.issue(&["a.test"]), authority.issue(&["b.test", "c.test"]), authority.issue(&["*.wild.test"]));
    let certificates: String =
        [(&first, "first"), (&second, "second"), (&wild, "wild")].map(|(issued, name)| certificate(issued, folder.path(), name)).concat();
    let router = over_tls(&blue, "", &certificates).start();
    let address = router.traffic_tls.unwrap();
    let client = authority.client(None, &["http/1.1"]);
    for (name, expected) in [("a.test", &first), ("b.test", &second), ("C.test", &second), ("x.wild.test", &wild)] {
        let got = exchange(address, &client, name, GET).unwrap();
        assert!(expected.is(&got.shown), "{name}");
        assert_eq!(got.alpn.as_deref(), Some(&b"http/1.1"[..]));
        assert!(got.response.contains("x-forwarded-proto: https"), "{}", got.response);
    }
    // A name that nobody has gets the first, which does not prove it: the client refuses.
    assert!(exchange(address, &client, "other.test", GET).is_err());
    assert!(exchange(address, &client, "x.y.wild.test", GET).is_err());
    // In the clear it goes on.
    assert!(http::raw(router.traffic, GET).unwrap().contains("x-forwarded-proto: http\n"));
    let names: Vec<f64> = ["a.test", "b.test", "*.wild.test"]
        .map(|name| router.metric("switchback_certificate_expiry_timestamp_seconds", &[&format!("name=\"{name}\"")]))
        .to_vec();
    assert!(names.iter().all(|expiry| *expiry > 1.7e9), "{names:?}");
}

#[test]
fn a_client_at_the_wrong_port_is_told_apart() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let router = over_tls(&blue, "", &certificate(&authority.issue(&["a.test"]), folder.path(), "a")).env("RUST_LOG", "debug").start();
    let refusals = |reason: &str| router.metric("switchback_refusals_total", &[&format!("reason=\"{reason}\"")]);
    assert!(exchange(router.traffic, &authority.client(None, &["http/1.1"]), "a.test", GET).is_err());
    assert_eq!((refusals("tls"), refusals("head"), refusals("framing")), (1.0, 0.0, 0.0));
    let mut raw = TcpStream::connect(router.traffic).unwrap();
    raw.write_all(b"\x16\x03\x01\x00\xff\x01\x00").unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("TLS was spoken to a port for plain HTTP"), "{answer}");
    // The other way round nobody could read an answer.
    assert!(!http::raw(router.traffic_tls.unwrap(), GET).unwrap_or_default().contains("HTTP/1.1"));
    eventually("counted", SOON, || (refusals("no_tls") == 1.0).then_some(()));
    assert_eq!(refusals("handshake"), 0.0);
    let words = "the listener for TLS got something else: plain HTTP, most likely";
    eventually("it is told", SOON, || router.log().contains(words).then_some(()));
}

#[test]
fn an_answer_over_tls_is_not_lost_because_its_client_still_sends() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let pair = certificate(&authority.issue(&["a.test"]), folder.path(), "a");
    let router = over_tls(&blue, "", &pair).route("max_request_body = \"1KiB\"").start();
    let client = authority.client(None, &["http/1.1"]);
    for round in 0..10 {
        let mut stream = connect(router.traffic_tls.unwrap(), &client, "a.test").unwrap();
        stream.write_all(b"POST /rank HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1048576\r\n\r\n").unwrap();
        stream.write_all(&vec![b'a'; 1 << 20]).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with('\n'), "{answer}");
    }
}

#[test]
fn http2_is_agreed_upon() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let router = over_tls(&blue, "", &certificate(&authority.issue(&["a.test"]), folder.path(), "a")).start();
    let client = authority.client(None, &["h2", "http/1.1"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(router.traffic_tls.unwrap()).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(client).connect("a.test".try_into().unwrap(), socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("https://a.test/rank").body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, hyper::Version::HTTP_2));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "blue");
    });
}

#[test]
fn a_changed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let (old, new) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let router = over_tls(&blue, "", &certificate(&old, folder.path(), "a")).start();
    let client = authority.client(None, &["http/1.1"]);
    let shown = || exchange(router.traffic_tls.unwrap(), &client, "a.test", GET).unwrap().shown;
    assert!(old.is(&shown()));

    // The certificate alone does not fit the old key; the old pair stays until both are there.
    std::fs::write(folder.path().join("a.cert.pem"), &new.cert).unwrap();
    eventually("it is told", SOON, || router.log().contains("must be the key of").then_some(()));
    assert!(old.is(&shown()));
    new.write(folder.path(), "a");
    eventually("the new one is shown", SOON, || new.is(&shown()).then_some(()));

    std::fs::write(folder.path().join("a.cert.pem"), "no certificate").unwrap();
    eventually("it is told", SOON, || router.log().contains("must hold a certificate in PEM form").then_some(()));
    assert!(new.is(&shown()), "what was in use stays");
}

/// The files are not looked at by the clock here: the signal is what does it.
#[test]
fn a_signal_puts_new_certificates_in_use_and_open_connections_go_on() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let (old, new) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let top = format!("[tls]\nreload_interval = \"1h\"\n{}", certificate(&old, folder.path(), "a"));
    let router = Setup::default().pool("blue", &[&blue]).listen("traffic_tls = \"127.0.0.1:0\"").top(&top).start();
    let (address, client) = (router.traffic_tls.unwrap(), authority.client(None, &["http/1.1"]));
    let shown = || exchange(address, &client, "a.test", GET).unwrap().shown;
    let mut open = connect(address, &client, "a.test").unwrap();
    let ask = |open: &mut Open| {
        open.write_all(GET.replace("connection: close\r\n", "").as_bytes()).unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 1 << 10]);
        while !answer.ends_with(b"\r\n\r\nblue") {
            let read = open.read(&mut part).unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..read]);
        }
    };
    ask(&mut open);
    new.write(folder.path(), "a");
    assert!(old.is(&shown()), "nobody has looked at the files yet");
    router.signal("HUP");
    eventually("the new one is shown", SOON, || new.is(&shown()).then_some(()));
    ask(&mut open);
    assert!(old.is(&open.conn.peer_certificates().unwrap()[0]));

    std::fs::write(folder.path().join("a.cert.pem"), "no certificate").unwrap();
    router.signal("HUP");
    eventually("it is refused", SOON, || router.log().contains("must hold a certificate in PEM form").then_some(()));
    assert!(new.is(&shown()), "what was in use stays");
    ask(&mut open);
}

#[test]
fn clients_must_show_a_certificate_where_they_are_asked_to() {
    let (authority, stranger, folder) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let blue = Backend::start("blue");
    let pair = certificate(&authority.issue(&["a.test"]), folder.path(), "a");
    let ca = format!("client_ca = {:?}", authority.write(folder.path()));
    let required = over_tls(&blue, &ca, &pair).start();
    let answers = |router: &Router, shown: Option<&Issued>| {
        let got = exchange(router.traffic_tls.unwrap(), &authority.client(shown, &["http/1.1"]), "a.test", GET);
        got.is_ok_and(|got| got.response.starts_with("HTTP/1.1 200"))
    };
    let (known, unknown) = (authority.issue(&["client"]), stranger.issue(&["client"]));
    assert!(answers(&required, Some(&known)));
    assert!(!answers(&required, None) && !answers(&required, Some(&unknown)));
    eventually("counted", SOON, || (required.metric("switchback_refusals_total", &["reason=\"handshake\""]) == 2.0).then_some(()));
    let optional = over_tls(&blue, &format!("{ca}\nclient_auth = \"optional\""), &pair).start();
    assert!(answers(&optional, None) && answers(&optional, Some(&known)) && !answers(&optional, Some(&unknown)));
}

#[test]
fn a_client_that_never_shakes_hands_is_hung_up_on() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let setup = over_tls(&blue, "", &certificate(&authority.issue(&["a.test"]), folder.path(), "a"));
    let router = setup.top("[limits]\nhandshake_timeout = \"200ms\"").start();
    let mut stream = TcpStream::connect(router.traffic_tls.unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let started = Instant::now();
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn files_that_make_no_sense_are_named_before_a_port_is_bound() {
    let (authority, folder, blue) = (Authority::new(), tempfile::tempdir().unwrap(), Backend::start("blue"));
    let (good, other) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let (cert, key) = good.write(folder.path(), "good");
    let (_, wrong_key) = other.write(folder.path(), "other");
    let missing = folder.path().join("missing.pem");
    let cases = [
        (&missing, &key, "tls.certificate[0].cert", "cannot be read"),
        (&cert, &missing, "tls.certificate[0].key", "cannot be read"),
        (&key, &key, "tls.certificate[0].cert", "must hold a certificate in PEM form"),
        (&cert, &cert, "tls.certificate[0].key", "must hold a private key in PEM form"),
        (&cert, &wrong_key, "tls.certificate[0].key", "must be the key of"),
    ];
    for (cert, key, at, why) in cases {
        let (code, said) = over_tls(&blue, "", &format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n")).fails();
        assert_eq!(code, 64, "{said}");
        assert!(said.contains("switchback.toml:") && said.contains(at) && said.contains(why), "{said}");
    }
}

#[test]
fn a_backend_must_prove_who_it_is() {
    let (authority, stranger, folder) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let ca = authority.write(folder.path());
    let ask = |backend: &Backend, keys: &str| {
        let router = Setup::default().pool("blue", &[backend]).pool_keys(keys).start_unready();
        let response = http::raw(router.traffic, GET).unwrap();
        response.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let trusted = format!("tls = {{ ca = {ca:?} }}");
    let proven = Backend::start_tls("blue", authority.server(&authority.issue(&["127.0.0.1"]), false));
    assert_eq!(ask(&proven, &trusted), 200);
    assert_eq!(ask(&proven, ""), 502, "the system does not know this authority");
    let named = Backend::start_tls("blue", authority.server(&authority.issue(&["ranker.internal"]), false));
    assert_eq!(ask(&named, &trusted), 502, "another name");
    assert_eq!(ask(&named, &format!("tls = {{ ca = {ca:?}, server_name = \"ranker.internal\" }}")), 200);
    let forged = Backend::start_tls("blue", stranger.server(&stranger.issue(&["127.0.0.1"]), false));
    assert_eq!(ask(&forged, &trusted), 502, "another authority");
    let asking = Backend::start_tls("blue", authority.server(&authority.issue(&["127.0.0.1"]), true));
    assert_eq!(ask(&asking, &trusted), 502, "it wants a client certificate");
    let (cert, key) = authority.issue(&["router"]).write(folder.path(), "client");
    assert_eq!(ask(&asking, &format!("tls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}")), 200);
}

#[test]
fn health_checks_go_over_tls_too() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let blue = Backend::start_tls("blue", authority.server(&authority.issue(&["127.0.0.1"]), false));
    for protocol in ["http1", "h2"] {
        let keys = format!("protocol = \"{protocol}\"\ntls = {{ ca = {:?} }}", authority.write(folder.path()));
        let router = Setup::default().pool("blue", &[&blue]).pool_keys(&keys).start();
        assert_eq!(http::get(router.traffic, "/").unwrap(), (200, "blue".to_owned()), "{protocol}");
        assert_eq!(router.route()["pools"]["blue"]["healthy"], 1, "{protocol}");
    }
}
