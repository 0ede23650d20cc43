//! Servers that are told which versions to serve.

use std::time::Duration;

use model_servers::{FaultKind, Stage, WarmUp, bring_up, retire};
use serde_json::json;

use super::fakes::Triton;
use super::http::{Reply, Running, Wrong, always, no};
use super::{Told, client, golden, settings, silent, wanted};

/// Two servers with versions on disk and served.
pub(crate) async fn pair(on_disk: &[u64], served: &[u64]) -> (Running<Triton>, Running<Triton>, Vec<String>) {
    let one = Running::start(Triton::new(on_disk, served)).await;
    let two = Running::start(Triton::new(on_disk, served)).await;
    let urls = vec![one.url.clone(), two.url.clone()];
    (one, two, urls)
}

#[tokio::test]
async fn a_version_is_brought_up_everywhere() {
    let (one, two, urls) = pair(&[1, 2, 3], &[1, 2]).await;
    let (golden, told) = (golden(), Told::default());
    let report = bring_up(&client(), &settings(), &urls, &wanted(Some(&golden)), None, &told.hear()).await.unwrap();
    assert_eq!((one.fake.served(), two.fake.served()), ([3].into(), [3].into()));
    for found in &report.endpoints {
        assert_eq!(
            (found.server.as_str(), found.was_ready, found.beside.as_slice(), found.worst_difference),
            ("triton", false, [].as_slice(), 0.0)
        );
        // Two rounds of two queries with three documents, and a round after the commit.
        assert_eq!((found.queries, found.compared), (6, 9));
        assert!(found.median_us.is_some());
    }
    // First beside the old ones, with the configuration that was served; then alone.
    let specific =
        |versions: &[u64]| json!({ "name": "m", "backend": "onnxruntime", "version_policy": { "specific": { "versions": versions } } });
    assert_eq!(one.fake.configs(), [specific(&[1, 2, 3]), specific(&[3])]);
    let stages: Vec<Stage> = told.0.lock().unwrap().iter().map(|progress| progress.stage).collect();
    assert_eq!(stages, [[Stage::Loading; 3], [Stage::Warming; 3], [Stage::Committing; 3]].concat());
    // Again, and nothing is to be done.
    let again = bring_up(&client(), &settings(), &urls, &wanted(Some(&golden)), None, &silent).await.unwrap();
    assert!(again.endpoints.iter().all(|found| found.was_ready));
    assert_eq!(one.fake.configs().len(), 2);
}

#[tokio::test]
async fn an_older_version_is_brought_up_as_well() {
    let (one, _two, urls) = pair(&[3, 7], &[7]).await;
    bring_up(&client(), &settings(), &urls, &wanted(None), None, &silent).await.unwrap();
    assert_eq!(one.fake.served(), [3].into());
}

#[tokio::test]
async fn the_callers_configuration_goes_before_the_servers() {
    let (one, _two, urls) = pair(&[1, 3], &[1]).await;
    let mut settings = settings();
    settings.config.insert("max_batch_size".to_owned(), json!(0));
    bring_up(&client(), &settings, &urls, &wanted(None), None, &silent).await.unwrap();
    assert_eq!(one.fake.configs()[1], json!({ "max_batch_size": 0, "name": "m", "version_policy": { "specific": { "versions": [3] } } }));
}

#[tokio::test]
async fn wrong_scores_are_refused_and_undone() {
    let (one, two, urls) = pair(&[1, 3], &[1]).await;
    let scores = r#"{"outputs": [{"name": "s", "datatype": "FP32", "shape": [2], "data": [5, 14]}]}"#;
    two.goes_wrong(always("infer", Reply::Status(200, scores.to_owned())));
    let golden = golden();
    let fault = bring_up(&client(), &settings(), &urls, &wanted(Some(&golden)), None, &silent).await.unwrap_err();
    assert_eq!((fault.kind, &fault.undone, &fault.endpoint), (FaultKind::Refused, &Some(Ok(())), &two.url));
    assert_eq!(fault.why, "version 3: query `a`, document `y`: expected the score 13, found 14 (allowed: 8.00e-3 more or less)");
    assert_eq!((one.fake.served(), two.fake.served()), ([1].into(), [1].into()));
}

/// The pool had the version, and one of its endpoints lost it.
#[tokio::test]
async fn who_has_the_version_keeps_it_when_another_cannot_get_it_again() {
    let one = Running::start(Triton::new(&[1, 3], &[3])).await;
    let two = Running::start(Triton::new(&[1], &[1])).await;
    let urls = vec![one.url.clone(), two.url.clone()];
    let golden = golden();
    let wanted = model_servers::Wanted { previous: Some(3), ..wanted(Some(&golden)) };
    bring_up(&client(), &settings(), &urls, &wanted, None, &silent).await.unwrap_err();
    assert_eq!((one.fake.served(), two.fake.served()), ([3].into(), [1].into()));
}

#[tokio::test]
async fn the_latency_must_hold() {
    let (one, two, urls) = pair(&[1, 3], &[1]).await;
    let warm_up = WarmUp { timeout: Duration::from_millis(400), latency: Some(Duration::from_nanos(1)), rounds: 1, tolerance: 0.0 };
    let slow = model_servers::Settings { warm_up, ..settings() };
    let golden = golden();
    let fault = bring_up(&client(), &slow, &urls, &wanted(Some(&golden)), None, &silent).await.unwrap_err();
    assert_eq!((fault.kind, &fault.undone), (FaultKind::Refused, &Some(Ok(()))));
    assert!(fault.why.contains("not warm after 400 ms: in round ") && fault.why.ends_with("allowed: 0.00 ms"), "{}", fault.why);
    assert_eq!((one.fake.served(), two.fake.served()), ([1].into(), [1].into()));
}

#[tokio::test]
async fn a_slow_start_is_waited_for() {
    let (one, _two, urls) = pair(&[1, 3], &[1]).await;
    // The first answers come too late, then some not at all.
    one.goes_wrong(Wrong { line: "infer", after: 0, times: 2, reply: Reply::Never });
    one.goes_wrong(Wrong { line: "infer", after: 0, times: 2, reply: Reply::HangUp });
    one.goes_wrong(Wrong { line: "infer", after: 0, times: 1, reply: no(503, "busy") });
    one.goes_wrong(Wrong { line: "/ready", after: 0, times: 2, reply: Reply::HangUp });
    let settings = model_servers::Settings { request_timeout: Duration::from_millis(300), ..settings() };
    let golden = golden();
    bring_up(&client(), &settings, &urls, &wanted(Some(&golden)), None, &silent).await.unwrap();
    assert_eq!(one.fake.served(), [3].into());
}

#[tokio::test]
async fn a_load_that_does_not_answer_may_have_worked() {
    let (one, _two, urls) = pair(&[1, 3], &[1]).await;
    let settings = model_servers::Settings { load_timeout: Duration::from_millis(500), ..settings() };
    one.goes_wrong(Wrong { line: "/load", after: 0, times: 1, reply: Reply::Never });
    let fault = bring_up(&client(), &settings, &urls, &wanted(None), None, &silent).await.unwrap_err();
    // The fake did not load it, and the index says so.
    assert_eq!((fault.kind, &fault.undone), (FaultKind::Refused, &Some(Ok(()))));
    assert_eq!(fault.why, "version 3 is not ready after 500 ms: the index says UNAVAILABLE: unloaded");
    assert_eq!(one.fake.served(), [1].into());
    // A gateway gave up, the server did not.
    one.goes_wrong(Wrong { line: "/load", after: 0, times: 1, reply: Reply::Status(504, "gateway".to_owned()) });
    let fault = bring_up(&client(), &settings, &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert!(fault.why.contains("is not ready after"), "{fault}");
}

#[tokio::test]
async fn what_the_server_refuses_is_said_in_its_words() {
    let (one, two, urls) = pair(&[1], &[1]).await;
    let fault = bring_up(&client(), &settings(), &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(fault.to_string().contains(
        ": POST /v2/repository/models/m/load: 400 Bad Request: failed to load 'm', failed to poll from model repository (undone: the pool is as it was)"
    ), "{fault}");
    assert_eq!((one.fake.served(), two.fake.served()), ([1].into(), [1].into()));
}

/// One request of the second server goes wrong, whichever it is: the pool is as it was, or the version is up everywhere.
#[tokio::test]
async fn whatever_goes_wrong_leaves_all_as_it_was() {
    let html = Reply::Status(500, "<html>".to_owned());
    for (reply, served) in [(Reply::HangUp, [1, 2].as_slice()), (no(400, "no"), &[1, 2]), (no(500, "no"), &[]), (html, &[2, 3])] {
        let mut faults = 0;
        for request in 0.. {
            let (one, two, urls) = pair(&[1, 2, 3], served).await;
            two.goes_wrong(Wrong { line: "", after: request, times: 1, reply: reply.clone() });
            let golden = golden();
            let wanted = model_servers::Wanted { previous: served.first().copied(), ..wanted(Some(&golden)) };
            let ended = bring_up(&client(), &settings(), &urls, &wanted, None, &silent).await;
            let before = served.iter().copied().filter(|version| *version != 3).collect();
            let (after, case) = ((one.fake.served(), two.fake.served()), format!("request {request}, {reply:?}: {ended:?}"));
            match ended {
                Ok(_) => assert_eq!(after, ([3].into(), [3].into()), "{case}"),
                Err(fault) => {
                    faults += 1;
                    assert!(matches!(fault.undone, None | Some(Ok(()))), "{case}");
                    let is_untouched = fault.undone.is_none() && after.0.iter().eq(served) && after.1.iter().eq(served);
                    assert!(is_untouched || after == (Clone::clone(&before), before), "{case}: {after:?}");
                }
            }
            if two.lines().len() <= request {
                break;
            }
        }
        assert!(faults >= 5, "{reply:?}: {faults}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_said_to_be() {
    let (one, two, urls) = pair(&[1, 3], &[1]).await;
    drop(two);
    let fault = bring_up(&client(), &settings(), &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert_eq!((fault.kind, &fault.undone), (FaultKind::Away, &None));
    assert!(fault.to_string().contains("GET /v2: ") && one.fake.configs().is_empty(), "{fault}");
}

#[tokio::test]
async fn one_that_goes_away_in_the_middle_cannot_be_undone() {
    let (one, two, urls) = pair(&[1, 3], &[1]).await;
    two.goes_wrong(Wrong { line: "", after: 4, times: usize::MAX, reply: Reply::HangUp });
    let settings = model_servers::Settings { load_timeout: Duration::from_millis(300), ..settings() };
    let fault = bring_up(&client(), &settings, &urls, &wanted(None), None, &silent).await.unwrap_err();
    assert_eq!((fault.kind, &fault.endpoint), (FaultKind::Away, &two.url));
    assert!(fault.undone.clone().unwrap().unwrap_err().contains(&two.url), "{fault}");
    assert_eq!(one.fake.served(), [1].into());
}

#[tokio::test]
async fn a_version_is_retired() {
    let (one, two, urls) = pair(&[1, 3], &[1, 3]).await;
    let (client, settings) = (client(), settings());
    retire(&client, &settings, &urls, &wanted(None), None).await.unwrap();
    assert_eq!((one.fake.served(), two.fake.served()), ([1].into(), [1].into()));
    retire(&client, &settings, &urls, &model_servers::Wanted { version: 1, ..wanted(None) }, None).await.unwrap();
    retire(&client, &settings, &urls, &wanted(None), None).await.unwrap();
    assert_eq!((one.fake.served(), two.fake.served()), ([].into(), [].into()));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything() {
    let client = client();
    let refused = async |settings: model_servers::Settings, endpoint: &str, version| {
        let wanted = model_servers::Wanted { version, ..wanted(None) };
        bring_up(&client, &settings, &[endpoint.to_owned()], &wanted, None, &silent).await.unwrap_err().to_string()
    };
    let named = |model: &str| model_servers::Settings { model: model.to_owned(), ..settings() };
    assert!(refused(named("a/b"), "http://127.0.0.1:1", 1).await.contains("must be 1 to 128 of letters"));
    assert!(refused(named("m"), "http://127.0.0.1:1", 0).await.contains("version 0"));
    for endpoint in ["127.0.0.1:1", "http://a:b@c", "http://a/b", "ftp://a", "http://a?b", ""] {
        assert!(refused(named("m"), endpoint, 1).await.contains("must be like http://host:port"), "{endpoint}");
    }
    let none = bring_up(&client, &settings(), &[], &wanted(None), None, &silent).await.unwrap_err();
    assert_eq!((none.kind, none.to_string().as_str()), (FaultKind::Away, "the pool has no endpoint"));
}
