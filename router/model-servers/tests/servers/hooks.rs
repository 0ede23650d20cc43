//! Servers with URLs to load, to ask and to unload.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use model_servers::{FaultKind, Hooks, Protocol, Settings, Wanted, bring_up, retire};

use super::http::{Answers, Reply, Request, Running, Wrong, always, no, ok};
use super::{client, settings, silent, wanted};

/// Loads take a few questions.
#[derive(Default)]
struct Hooked {
    loaded: Mutex<BTreeSet<String>>,
    asked: Mutex<u32>,
}

impl Answers for Hooked {
    fn answer(&self, request: &Request) -> Reply {
        let version = request.line.rsplit('=').next().unwrap().to_owned();
        let mut loaded = self.loaded.lock().unwrap();
        match request.line.split('?').next().unwrap() {
            "POST /load" => {
                loaded.insert(version);
                ok("done")
            }
            "POST /unload" => {
                loaded.remove(&version);
                ok("done")
            }
            "GET /ready" if loaded.contains(&version) => {
                let mut asked = self.asked.lock().unwrap();
                *asked += 1;
                if *asked < 3 { Reply::Status(503, "loading".to_owned()) } else { ok("") }
            }
            _ => no(404, "not loaded"),
        }
    }
}

fn hooked() -> Settings {
    let template = |path: &str| format!("{{endpoint}}/{path}?pool={{pool}}&v={{version}}").parse().unwrap();
    let hooks = Hooks { load: template("load"), ready: Some(template("ready")), unload: Some(template("unload")) };
    Settings { protocol: Protocol::Hooks(hooks), load_timeout: Duration::from_millis(400), ..settings() }
}

async fn pair() -> (Running<Hooked>, Running<Hooked>, Vec<String>) {
    let (one, two) = (Running::start(Hooked::default()).await, Running::start(Hooked::default()).await);
    let urls = vec![one.url.clone(), two.url.clone()];
    (one, two, urls)
}

#[tokio::test]
async fn hooks_load_and_unload() {
    let (one, two, urls) = pair().await;
    let report = bring_up(&client(), &hooked(), &urls, &wanted(None), None, &silent).await.unwrap();
    assert_eq!((report.endpoints[0].server.as_str(), report.endpoints[0].was_ready), ("hooks", false));
    assert_eq!(one.lines()[..2], ["GET /ready?pool=blue&v=3", "POST /load?pool=blue&v=3"]);
    assert!(two.fake.loaded.lock().unwrap().contains("3"));
    // What is ready is not loaded again.
    let again = bring_up(&client(), &hooked(), &urls, &wanted(None), None, &silent).await.unwrap();
    assert!(again.endpoints.iter().all(|found| found.was_ready));
    retire(&client(), &hooked(), &urls, &wanted(None), None).await.unwrap();
    assert!(one.fake.loaded.lock().unwrap().is_empty() && two.fake.loaded.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_hook_is_undone_where_it_was_called() {
    let (one, two, urls) = pair().await;
    two.goes_wrong(always("/load", Reply::Status(422, "no such\nmodel".to_owned())));
    let fault = bring_up(&client(), &hooked(), &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert_eq!((fault.kind, &fault.undone, &fault.endpoint), (FaultKind::Refused, &Some(Ok(())), &two.url));
    assert_eq!(fault.why, format!("POST {}/load?pool=blue&v=3: 422 Unprocessable Entity: no such model", two.url));
    assert!(one.fake.loaded.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_never_gets_ready_is_away_or_refused_as_it_says() {
    for (reply, kind) in [
        (Reply::Status(503, "loading".to_owned()), FaultKind::Away),
        (no(404, "what?"), FaultKind::Refused),
        (Reply::HangUp, FaultKind::Away),
    ] {
        let (one, _two, urls) = pair().await;
        one.goes_wrong(always("/ready", reply));
        let fault = bring_up(&client(), &hooked(), &urls, &wanted(None), None, &silent).await.unwrap_err();
        assert_eq!((fault.kind, &fault.undone), (kind, &Some(Ok(()))), "{fault}");
        assert!(fault.why.starts_with("version 3 is not ready after 400 ms: GET http://"), "{fault}");
    }
}

#[tokio::test]
async fn a_late_load_hook_is_asked_for() {
    let (one, _two, urls) = pair().await;
    one.fake.loaded.lock().unwrap().insert("3".to_owned());
    one.goes_wrong(Wrong { line: "/load", after: 0, times: 1, reply: Reply::Status(504, String::new()) });
    bring_up(&client(), &hooked(), &urls, &wanted(None), None, &silent).await.unwrap();
}

#[tokio::test]
async fn without_an_unload_hook_nothing_is_undone() {
    let (one, _two, urls) = pair().await;
    let mut settings = hooked();
    let Protocol::Hooks(hooks) = &mut settings.protocol else { unreachable!() };
    (hooks.ready, hooks.unload) = (None, None);
    one.goes_wrong(always("/load", Reply::Status(302, String::new())));
    let fault = bring_up(&client(), &settings, &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert!(fault.why.contains("redirects are not followed") && fault.kind == FaultKind::Refused, "{fault}");
    assert!(fault.undone.unwrap().unwrap_err().contains("there is no hook that unloads"));
}

/// Version 3, where the pool ran version 2.
fn after_two() -> Wanted<'static> {
    Wanted { previous: Some(2), ..wanted(None) }
}

/// It has these versions, and is ready at once.
fn holds(server: &Running<Hooked>, versions: &[&str]) {
    *server.fake.loaded.lock().unwrap() = versions.iter().map(|version| (*version).to_owned()).collect();
    *server.fake.asked.lock().unwrap() = 9;
}

fn without_unload() -> Settings {
    let mut settings = hooked();
    let Protocol::Hooks(hooks) = &mut settings.protocol else { unreachable!() };
    hooks.unload = None;
    settings
}

#[tokio::test]
async fn the_version_before_is_unloaded_once_the_new_one_is_ready() {
    let (one, two, urls) = pair().await;
    holds(&one, &["2", "3"]);
    holds(&two, &["2"]);
    let report = bring_up(&client(), &hooked(), &urls, &after_two(), None, &silent).await.unwrap();
    assert_eq!(report.endpoints.iter().map(|found| found.was_ready).collect::<Vec<_>>(), [true, false]);
    assert_eq!(one.lines(), ["GET /ready?pool=blue&v=3", "POST /unload?pool=blue&v=2", "GET /ready?pool=blue&v=3"]);
    for server in [&one, &two] {
        assert_eq!(*server.fake.loaded.lock().unwrap(), BTreeSet::from(["3".to_owned()]));
    }
    // One that had let go of it by itself is as good.
    two.goes_wrong(always("/unload", no(404, "there is no such version")));
    let report = bring_up(&client(), &hooked(), &urls, &after_two(), None, &silent).await.unwrap();
    assert!(report.endpoints.iter().all(|found| found.beside.is_empty() && found.why_beside.is_none()), "{report:?}");
}

#[tokio::test]
async fn an_unload_that_fails_is_told() {
    let (one, two, urls) = pair().await;
    holds(&one, &["2"]);
    holds(&two, &["2"]);
    two.goes_wrong(always("/unload", no(500, "busy")));
    let report = bring_up(&client(), &hooked(), &urls, &after_two(), None, &silent).await.unwrap();
    assert!(report.endpoints[0].beside.is_empty(), "{report:?}");
    let told = format!("POST {}/unload?pool=blue&v=2: 500 Internal Server Error: busy", two.url);
    assert_eq!((&report.endpoints[1].beside, &report.endpoints[1].why_beside), (&vec![2], &Some(told)));
}

#[tokio::test]
async fn a_server_that_unloads_more_than_it_was_asked_to_gets_back_what_it_had() {
    let (one, _two, urls) = pair().await;
    holds(&one, &["2", "3"]);
    one.goes_wrong(Wrong { line: "/ready?pool=blue&v=3", after: 1, times: usize::MAX, reply: no(404, "not loaded") });
    let fault = bring_up(&client(), &hooked(), &urls[..1], &after_two(), None, &silent).await.unwrap_err();
    assert!(fault.why.starts_with("version 3 is not ready after 400 ms: "), "{fault}");
    assert_eq!((fault.kind, &fault.undone), (FaultKind::Refused, &Some(Ok(()))), "{fault}");
    assert!(one.fake.loaded.lock().unwrap().contains("2"), "{:?}", one.lines());
}

#[tokio::test]
async fn without_an_unload_hook_a_load_says_what_is_served() {
    let (one, two, urls) = pair().await;
    holds(&one, &["2", "3"]);
    holds(&two, &["2", "3"]);
    let report = bring_up(&client(), &without_unload(), &urls, &after_two(), None, &silent).await.unwrap();
    assert!(report.endpoints.iter().all(|found| !found.was_ready), "{report:?}");
    assert_eq!(one.lines(), ["POST /load?pool=blue&v=3", "GET /ready?pool=blue&v=3"]);
    // And what was served before comes back by a load as well.
    two.goes_wrong(always("/load?pool=blue&v=3", Reply::Status(422, "no such model".to_owned())));
    let fault = bring_up(&client(), &without_unload(), &urls, &after_two(), None, &silent).await.unwrap_err();
    assert_eq!((&fault.endpoint, &fault.undone), (&two.url, &Some(Ok(()))), "{fault}");
    assert!(two.lines().contains(&"POST /load?pool=blue&v=2".to_owned()), "{:?}", two.lines());
}
