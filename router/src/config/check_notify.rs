//! `[[notify]]`: who is told what happens to rollouts, and how.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::check_route::{NAME_RULE, check_name};
use super::checked::Route;
use super::notice_event::NoticeEvent;
use super::notify_url::{self, NotifyUrl};
use super::written;

/// Each has a task and a queue of its own.
const TARGETS: usize = 16;
/// The new one, and those that are on their way out.
const SECRETS: std::ops::RangeInclusive<usize> = 1..=4;
const URL_RULE: &str = "must be a URL like \"https://hooks.example.com/switchback\": http or https, a host, and no #";
const FORMAT_RULE: &str = "must be \"cloudevents\", \"cloudevents-binary\", \"cdevents\" or \"slack\"";
const SECRET_RULE: &str = "must be the path of a file that holds whsec_ and 24 to 64 bytes in base64, on one line";
const SECRETS_RULE: &str = "must be 1 to 4 paths of files that hold whsec_ and 24 to 64 bytes in base64 each";
const CA_RULE: &str = "is for TLS: url must begin with https://";

/// A target of notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Names it in logs and metrics.
    pub name: String,
    /// Where notices go.
    pub url: NotifyUrl,
    /// What they look like there.
    pub format: NotifyFormat,
    /// Files with the secrets that sign them; none signs nothing.
    pub secret_files: Vec<PathBuf>,
    /// What it is told of. At least one, in the order of [`NoticeEvent::ALL`].
    pub events: Vec<NoticeEvent>,
    /// Whose rollouts it is told of; `None` is every route.
    pub routes: Option<Vec<String>>,
    /// What this fleet is called in what is sent.
    pub environment: String,
    /// Authorities to trust instead of the system's. Only with https.
    pub ca_file: Option<PathBuf>,
    /// For one try: from the connection to the end of the answer.
    pub timeout: Duration,
    /// The longest wait before the second try; it doubles from try to try.
    pub retry_base: Duration,
    /// The longest wait before any try.
    pub retry_cap: Duration,
    /// A notice that is older than this is not tried again.
    pub retry_for: Duration,
    /// So many tries in all.
    pub max_tries: u32,
}

/// What a notice looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyFormat {
    /// CloudEvents, all of it in the body.
    CloudEvents,
    /// CloudEvents, attributes in headers.
    CloudEventsBinary,
    /// CDEvents, carried as CloudEvents.
    CdEvents,
    /// A message for people, as Slack's incoming webhooks take it.
    Slack,
}

impl NotifyFormat {
    const ALL: [NotifyFormat; 4] =
        [NotifyFormat::CloudEvents, NotifyFormat::CloudEventsBinary, NotifyFormat::CdEvents, NotifyFormat::Slack];

    /// In the config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NotifyFormat::CloudEvents => "cloudevents",
            NotifyFormat::CloudEventsBinary => "cloudevents-binary",
            NotifyFormat::CdEvents => "cdevents",
            NotifyFormat::Slack => "slack",
        }
    }
}

pub(super) fn check_notify(checker: &mut Checker, written: Vec<written::Notify>, routes: &[Route]) -> Vec<Notify> {
    if written.len() > TARGETS {
        checker.refuse("notify", written.len(), format!("at most {TARGETS} targets"));
    }
    let mut names = HashSet::new();
    let mut targets = Vec::new();
    for (index, written) in written.into_iter().enumerate() {
        let name_key = format!("notify[{index}].name");
        let name = checker.required(&name_key, written.name.clone(), NAME_RULE);
        if written.name.is_some() {
            check_name(checker, &name_key, &name);
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            checker.refuse(&name_key, &name, "must be given to one target only");
        }
        let key = if name.is_empty() { format!("notify[{index}]") } else { format!("notify.{name}") };
        targets.extend(check_target(checker, &key, name, written, routes));
    }
    targets
}

/// `None` without a URL: nothing else can stand for one.
fn check_target(checker: &mut Checker, key: &str, name: String, written: written::Notify, routes: &[Route]) -> Option<Notify> {
    let (ms, seconds, hours) = (Duration::from_millis, Duration::from_secs, |hours: u64| Duration::from_secs(hours * 3_600));
    let at = |name: &str| format!("{key}.{name}");
    let format = check_format(checker, &at("format"), written.format.as_deref());
    let url = check_url(checker, &at("url"), written.url, format);
    let environment = written.environment.unwrap_or_else(|| "switchback".to_owned());
    check_name(checker, &at("environment"), &environment);
    if let Some(path) = written.ca_file.as_ref().filter(|_| url.as_ref().is_some_and(|url| !url.is_tls())) {
        checker.refuse(&at("ca_file"), path, CA_RULE);
    }
    let retry_base = checker.duration(&at("retry_base"), written.retry_base.as_deref(), seconds(1), ms(10), hours(1));
    let retry_cap = checker.duration(&at("retry_cap"), written.retry_cap.as_deref(), seconds(600), ms(10), hours(24));
    checker.ordered((&at("retry_base"), retry_base), (&at("retry_cap"), retry_cap));
    let target = Notify {
        name,
        url: url?,
        format,
        secret_files: check_secrets(checker, key, written.secret_file, written.secret_files),
        events: check_events(checker, &at("events"), written.events),
        routes: check_routes(checker, &at("routes"), written.routes, routes),
        environment,
        ca_file: written.ca_file.map(PathBuf::from),
        timeout: checker.duration(&at("timeout"), written.timeout.as_deref(), seconds(10), ms(10), seconds(60)),
        retry_base,
        retry_cap,
        retry_for: checker.duration(&at("retry_for"), written.retry_for.as_deref(), hours(24), seconds(1), hours(168)),
        max_tries: checker.count(&at("max_tries"), written.max_tries, 500, 1, 100_000),
    };
    Some(target)
}

fn check_format(checker: &mut Checker, key: &str, written: Option<&str>) -> NotifyFormat {
    let Some(name) = written else { return NotifyFormat::CloudEvents };
    NotifyFormat::ALL.into_iter().find(|format| format.name() == name).unwrap_or_else(|| {
        checker.refuse(key, name, FORMAT_RULE);
        NotifyFormat::CloudEvents
    })
}

fn check_url(checker: &mut Checker, key: &str, written: Option<String>, format: NotifyFormat) -> Option<NotifyUrl> {
    let Some(text) = written else {
        checker.missing(key, URL_RULE);
        return None;
    };
    // Whoever knows the path of a Slack webhook can write to its channel.
    let hides_path = format == NotifyFormat::Slack || text.contains("slack.com");
    let url = NotifyUrl::read(&text, hides_path);
    if url.is_none() {
        checker.refuse(key, notify_url::presentable(&text, hides_path), URL_RULE);
    }
    url
}

fn check_secrets(checker: &mut Checker, key: &str, one: Option<String>, several: Option<Vec<String>>) -> Vec<PathBuf> {
    if let (Some(one), Some(_)) = (&one, &several) {
        checker.refuse(&format!("{key}.secret_file"), one, format!("must not stand beside {key}.secret_files: put it there"));
    }
    if let Some(path) = one.as_ref().filter(|path| path.is_empty()) {
        checker.refuse(&format!("{key}.secret_file"), path, SECRET_RULE);
    }
    if let Some(paths) = several.as_ref().filter(|paths| !SECRETS.contains(&paths.len()) || paths.iter().any(String::is_empty)) {
        checker.refuse(&format!("{key}.secret_files"), paths, SECRETS_RULE);
    }
    one.into_iter().chain(several.unwrap_or_default()).map(PathBuf::from).collect()
}

/// All but those that a person who changes flags by hand would cause all day.
fn check_events(checker: &mut Checker, key: &str, written: Option<Vec<String>>) -> Vec<NoticeEvent> {
    let Some(written) = written else {
        return NoticeEvent::ALL.into_iter().filter(|event| *event != NoticeEvent::FlagsChanged).collect();
    };
    let names = NoticeEvent::ALL.map(NoticeEvent::name).join(", ");
    if written.is_empty() {
        checker.refuse(key, &written, format!("must have at least one of {names}"));
    }
    for name in written.iter().filter(|name| NoticeEvent::of_name(name).is_none()) {
        checker.refuse(key, name, format!("must be of {names}"));
    }
    NoticeEvent::ALL.into_iter().filter(|event| written.iter().any(|name| name == event.name())).collect()
}

fn check_routes(checker: &mut Checker, key: &str, written: Option<Vec<String>>, routes: &[Route]) -> Option<Vec<String>> {
    let written = written?;
    if written.is_empty() {
        checker.refuse(key, &written, "must have at least one route; leave it out for all of them");
    }
    for name in written.iter().filter(|name| !routes.iter().any(|route| route.name == **name)) {
        checker.refuse(key, name, "must be names of routes in this file");
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse, show};

    fn read(notify: &str) -> Result<Config, String> {
        let text = format!(
            r#"
            listen = {{ traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }}
            route = [{{ name = "search", pools = {{ blue = {{ endpoints = ["http://127.0.0.1:9001"] }} }} }}]
            {notify}
            "#
        );
        parse("test", &text).map_err(|error| error.to_string())
    }

    fn refused(notify: &str) -> String {
        read(notify).unwrap_err()
    }

    #[test]
    fn a_target_needs_a_name_and_a_url_and_the_rest_has_defaults() {
        let config = read("[[notify]]\nname = \"ops\"\nurl = \"https://hooks.example.com/switchback\"").unwrap();
        let target = &config.notify[0];
        assert_eq!((target.format, target.timeout, target.max_tries), (NotifyFormat::CloudEvents, Duration::from_secs(10), 500));
        assert_eq!((target.retry_for, target.routes.clone(), target.secret_files.len()), (Duration::from_secs(86_400), None, 0));
        assert_eq!(target.events.len(), NoticeEvent::ALL.len() - 1);
        assert!(!target.events.contains(&NoticeEvent::FlagsChanged));
        let shown = show(&config);
        let value = |key: &str| shown.iter().find(|(shown, _)| shown == key).map(|(_, value)| value.as_str());
        assert_eq!(value("notify.ops.url"), Some("\"https://hooks.example.com/switchback\""));
        assert_eq!(value("notify.ops.retry_cap"), Some("\"10m\""));
        assert_eq!(value("notify.ops.secret_files"), None);
        let said = refused("[[notify]]");
        assert!(said.contains("notify[0].name is missing") && said.contains("notify[0].url is missing"), "{said}");
    }

    #[test]
    fn each_key_is_refused_with_its_value_and_what_is_allowed() {
        let good = "name = \"ops\"\nurl = \"http://h/p\"\n";
        for (line, key, allowed) in [
            ("format = \"xml\"", "notify.ops.format = \"xml\"", "\"cloudevents-binary\""),
            ("events = [\"flip\"]", "notify.ops.events = \"flip\"", "must be of rollout-started, step-began,"),
            ("events = []", "notify.ops.events = []", "at least one of rollout-started"),
            ("routes = [\"ads\"]", "notify.ops.routes = \"ads\"", "names of routes in this file"),
            ("timeout = \"2m\"", "notify.ops.timeout = \"2m\"", "10ms to 1m"),
            ("retry_for = \"0s\"", "notify.ops.retry_for = \"0s\"", "1s to 168h"),
            ("retry_base = \"11m\"", "notify.ops.retry_base = \"11m\"", "notify.ops.retry_cap (10m)"),
            ("max_tries = 0", "notify.ops.max_tries = 0", "1 to 100000"),
            ("max_tries = \"many\"", "notify.ops.max_tries = \"many\"", "1 to 100000, without quotes"),
            ("ca_file = \"ca.pem\"", "notify.ops.ca_file = \"ca.pem\"", "must begin with https://"),
            ("secret_files = []", "notify.ops.secret_files = []", "1 to 4 paths"),
            ("secret_file = \"a\"\nsecret_files = [\"b\"]", "notify.ops.secret_file = \"a\"", "beside notify.ops.secret_files"),
            ("environment = \"A b\"", "notify.ops.environment = \"A b\"", "a-z"),
            ("evnts = [\"flip\"]", "notify.ops.evnts", "did you mean events?"),
        ] {
            let said = refused(&format!("[[notify]]\n{good}{line}"));
            assert!(said.contains(key) && said.contains(allowed) && said.lines().count() == 1, "{line}: {said}");
        }
        let said = refused(&format!("[[notify]]\n{good}\n[[notify]]\n{good}"));
        assert!(said.contains("notify[1].name = \"ops\": must be given to one target only"), "{said}");
        let many: String = (0..17).map(|index| format!("[[notify]]\nname = \"t{index}\"\nurl = \"http://h\"\n")).collect();
        assert!(refused(&many).contains("at most 16 targets"));
    }

    #[test]
    fn no_error_and_no_listing_repeats_a_secret_of_a_url() {
        for bad in ["ftp://ann:s3cret@h/p", "https://ann:s3c/ret@h/p", "h/p?key=s3cret", "https://h/p?key=s3cret#x"] {
            let said = refused(&format!("[[notify]]\nname = \"ops\"\nurl = \"{bad}\""));
            assert!(said.contains("notify.ops.url") && !said.contains("s3c"), "{said}");
        }
        let slack = "[[notify]]\nname = \"ops\"\nformat = \"slack\"\nurl = \"https://hooks.slack.com/services/T0/B0/s3cret\"";
        let shown = format!("{:?}", show(&read(slack).unwrap()));
        assert!(shown.contains("https://hooks.slack.com/***") && !shown.contains("s3cret"), "{shown}");
    }
}
