//! Answers that no good server gives: each is refused or waited out, in time and in one line.

use std::time::Duration;

use model_servers::{FaultKind, Settings, bring_up};

use super::fakes::Triton;
use super::http::{Reply, Running, always, no};
use super::{client, golden, settings, silent, wanted};

/// The fault when every request with `line` is answered so.
async fn fault(line: &'static str, reply: Reply) -> model_servers::Fault {
    let one = Running::start(Triton::new(&[1, 3], &[1])).await;
    one.goes_wrong(always(line, reply));
    let short = Duration::from_millis(300);
    let limits = settings();
    let warm_up = model_servers::WarmUp { timeout: short, ..limits.warm_up.clone() };
    let settings = Settings { request_timeout: short, load_timeout: short, warm_up, ..limits };
    let golden = golden();
    let fault = bring_up(&client(), &settings, std::slice::from_ref(&one.url), &wanted(Some(&golden)), None, &silent).await.unwrap_err();
    let text = fault.to_string();
    assert!(!text.chars().any(char::is_control) && text.len() < 1_200, "{text}");
    one.is_well();
    fault
}

fn scores(data: &str) -> Reply {
    Reply::Status(200, format!(r#"{{"outputs": [{{"name": "s", "datatype": "FP32", "shape": [2], "data": {data}}}]}}"#))
}

fn endless() -> Reply {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[".to_vec();
    bytes.resize(6 << 20, b' ');
    Reply::Raw(bytes)
}

#[tokio::test]
async fn answers_that_are_wrong_are_refused() {
    let garbage = Reply::Status(200, "{\"outputs\": \u{1}\u{202e}".to_owned());
    let cases = [
        ("infer", scores("[5, null]"), "query `a`, document `y`: its score is no finite number"),
        ("infer", scores("[5, NaN]"), "an answer that cannot be read: expected value"),
        ("infer", scores("[5, 13, 13]"), "no output of FP32 or FP64 with 2 scores; outputs: `s` FP32 [2]"),
        ("infer", scores("[\"5\", \"13\"]"), "no output of FP32 or FP64 with 2 scores"),
        ("infer", scores("[5, 1e999]"), "cannot be read: number out of range"),
        ("infer", garbage, "cannot be read"),
        ("infer", endless(), "POST /v2/models/m/versions/3/infer: an answer of more than 4 MiB"),
        ("infer", no(500, "out of\tmemory"), "500 Internal Server Error: out of memory"),
        ("index", Reply::Status(200, "[[[[".repeat(10_000)), "POST /v2/repository/index: an answer that cannot be read: "),
        (
            "index",
            Reply::Status(200, r#"[{"name": "m", "state": "READY"}]"#.to_owned()),
            "with the version ``, which is no number of 1 or more",
        ),
        ("index", no(404, "nothing"), "(a server without the model repository extension: use hooks)"),
        ("index", endless(), "an answer of more than 4 MiB"),
        ("GET /v2", Reply::Status(200, "\u{7}".to_owned()), "GET /v2: an answer that cannot be read"),
        ("GET /v2", Reply::Status(307, String::new()), "redirects are not followed"),
        ("versions/3/ready", Reply::Status(200, r#"{"ready": false}"#.to_owned()), "version 3 is not ready after 300 ms"),
    ];
    for (line, reply, said) in cases {
        let fault = fault(line, reply).await;
        assert!(fault.why.contains(said), "{line}: {fault}");
        assert_eq!(fault.kind == FaultKind::Away, said.ends_with("after 300 ms") && fault.why.contains("READY"), "{fault}");
    }
}

#[tokio::test]
async fn servers_that_are_broken_are_away() {
    let cases = [
        ("GET /v2", Reply::HangUp),
        ("GET /v2", Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec())),
        ("GET /v2", Reply::Never),
        ("infer", Reply::Never),
        ("infer", Reply::HangUp),
        ("infer", Reply::Status(502, "<html>".to_owned())),
        ("infer", no(429, "slow down")),
        ("infer", Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec())),
        ("index", no(503, "starting")),
        ("/load", Reply::Status(500, String::new())),
        ("versions/3/ready", Reply::HangUp),
    ];
    for (line, reply) in cases {
        let fault = fault(line, reply).await;
        assert_eq!(fault.kind, FaultKind::Away, "{line}: {fault}");
    }
}

#[tokio::test]
async fn an_answer_in_pieces_has_the_time_of_one_request() {
    let slow = Reply::Late(Duration::from_secs(60), Box::new(Reply::HangUp));
    let fault = fault("infer", slow).await;
    assert!(fault.why.contains("no answer within") || fault.why.contains("not warm after"), "{fault}");
}
