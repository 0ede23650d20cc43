//! A client's connection, over a pipe: what is answered, in which order, and when it ends.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;

use super::super::body::ResponseBody;
use super::super::watched::Signals;
use super::linger::MOST;
use super::{Asked, Connection, Stream};
use crate::quality::Refusal;

fn own(status: u16, text: &str) -> Response<ResponseBody> {
    let body = ResponseBody::own((!text.is_empty()).then(|| Bytes::from(text.to_owned())));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("date", "now".parse().unwrap());
    response
}

fn refused(refusal: Refusal) -> Response<ResponseBody> {
    own(if refusal == Refusal::HeadSize { 431 } else { 400 }, refusal.label())
}

/// Says what it was asked, body included.
async fn echo(asked: Asked) -> Response<ResponseBody> {
    let path = asked.head.uri.path().to_owned();
    match path.as_str() {
        "/ignores" => return own(200, "ignored"),
        "/none" => return own(204, ""),
        "/unchanged" => {
            let mut response = own(304, "");
            response.headers_mut().insert("content-length", "7".parse().unwrap());
            return response;
        }
        "/long" => return own(200, &"x".repeat(100_000)),
        _ => {}
    }
    match asked.body.collect().await {
        Ok(body) => {
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            own(200, &format!("{} {path} {text:?} {trailers}", asked.head.method))
        }
        Err(error) => own(400, &error.to_string()),
    }
}

/// Runs what has the two ends of a pipe, on a thread of its own tasks.
fn over_a_pipe<C: Future>(test: impl FnOnce(DuplexStream, DuplexStream) -> C) -> C::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 12);
    tokio::task::LocalSet::new().block_on(&runtime, test(ours, theirs))
}

/// Runs a connection to its end with `answer`, and beside it a client.
fn serve<F, C>(answer: impl Fn(Asked) -> F + 'static, client: impl FnOnce(DuplexStream, Arc<Signals>) -> C) -> C::Output
where
    F: Future<Output = Response<ResponseBody>> + 'static,
    C: Future,
{
    over_a_pipe(|ours, theirs| async move {
        let signals = Arc::<Signals>::default();
        let told = signals.clone();
        tokio::task::spawn_local(async move {
            let mut connection = Connection::new(Stream::Piped(ours), 1_000, 10, signals, answer, refused);
            std::future::poll_fn(|cx| connection.poll(cx)).await;
        });
        client(theirs, told).await
    })
}

/// All that comes back for these bytes, sent in pieces, before the client closes its side or the connection ends.
fn answers(bytes: &[u8], piece: usize) -> String {
    let bytes = bytes.to_vec();
    serve(echo, move |stream, _| async move {
        let (mut reads, mut writes) = tokio::io::split(stream);
        let read = tokio::task::spawn_local(async move {
            let mut all = Vec::new();
            let _ = reads.read_to_end(&mut all).await;
            String::from_utf8(all).unwrap()
        });
        for piece in bytes.chunks(piece) {
            if writes.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        read.await.unwrap()
    })
}

/// The bodies of 200s, and other statuses.
fn shown(answers: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let mut rest = answers;
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let status = head.split(' ').nth(1).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
        let length = if matches!(status, "304" | "204" | "100") { 0 } else { length };
        shown.push(if status == "200" { after[..length].to_owned() } else { status.to_owned() });
        rest = &after[length..];
    }
    assert!(rest.is_empty(), "{rest:?} is left of {answers:?}");
    shown
}

const CLOSE: &str = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const LAST: &str = "GET /last \"\" 0";

#[test]
fn requests_are_answered_in_their_order_however_they_come() {
    let text = [
        "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\nPOST /3 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        "POST /4 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 1\r\n\r\n",
        "GET /none HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /unchanged HTTP/1.1\r\nhost: a\r\n\r\n",
        CLOSE,
        "GET /never HTTP/1.1\r\nhost: a\r\n\r\n",
    ]
    .concat();
    let expected = ["GET /1 \"\" 0", "GET /2 \"\" 0", "POST /3 \"hello\" 0", "POST /4 \"hello!\" 1", "204", "304", LAST];
    for piece in 1..=text.len() {
        assert_eq!(shown(&answers(text.as_bytes(), piece)), expected, "in pieces of {piece}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_or_not_at_all_is_refused_and_ends_the_connection() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(11));
    let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "a".repeat(1_000));
    for (text, status) in [
        ("GET / HTTP/1.1\nhost: a\r\n\r\n", "400"),
        ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\nContent-Length: 1\r\n\r\nx", "400"),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\nx", "400"),
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", "400"),
        ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\x00\x01", "400"),
        ("GET / HTTP/1.1\r\nho st: a\r\n\r\n", "400"),
        (&many, "431"),
        (&long, "431"),
    ] {
        for piece in [1, 7, text.len()] {
            let all = answers([text, CLOSE].concat().as_bytes(), piece);
            assert_eq!(shown(&all), [status], "{text:?} in pieces of {piece}");
            assert!(all.contains("\r\nconnection: close\r\n"), "{all}");
        }
    }
}

#[test]
fn a_body_that_makes_no_sense_breaks_off() {
    for body in ["5\n", "x\r\n", "5\r\nhelloX", "0\r\nx: 1\n\r\n", "-1\r\n", "00000000000000001\r\n"] {
        let text = format!("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}{CLOSE}");
        assert_eq!(shown(&answers(text.as_bytes(), text.len())), ["400"], "{body:?}");
    }
}

#[test]
fn a_body_that_nobody_wants_is_passed_over_where_it_is_here() {
    let small = format!("POST /ignores HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello{CLOSE}");
    let both = answers(small.as_bytes(), small.len());
    assert_eq!(shown(&both), ["ignored", LAST]);
    assert_eq!(both.matches("connection: close").count(), 1, "only the last one ends it: {both}");
    let waits = format!("POST /ignores HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n{CLOSE}");
    assert_eq!(shown(&answers(waits.as_bytes(), waits.len())), ["ignored"], "the next request could be its body");
    let large = "POST /ignores HTTP/1.1\r\nhost: a\r\ncontent-length: 999999\r\n\r\nhello";
    assert_eq!(shown(&answers(large.as_bytes(), large.len())), ["ignored"]);
}

#[test]
fn a_client_that_waits_hears_100_when_its_body_is_asked_for() {
    let head = "POST /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let got = serve(echo, move |mut stream, _| async move {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut hundred = [0; 25];
        stream.read_exact(&mut hundred).await.unwrap();
        stream.write_all(format!("hi{CLOSE}").as_bytes()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        (String::from_utf8(hundred.to_vec()).unwrap(), rest)
    });
    assert_eq!(got.0, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(shown(&got.1), ["POST /a \"hi\" 0", LAST]);
    let at_once = format!("{head}hi{CLOSE}");
    assert_eq!(shown(&answers(at_once.as_bytes(), at_once.len())), ["POST /a \"hi\" 0", LAST], "it did not wait");
}

#[test]
fn heads_say_how_long_bodies_are_and_whether_the_connection_goes_on() {
    let answer = |request: &str| answers(request.as_bytes(), request.len());
    let head = answer("HEAD /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(head, "HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\ncontent-length: 12\r\n\r\n");
    let old = answer("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(old, "HTTP/1.0 200 OK\r\ndate: now\r\nconnection: close\r\ncontent-length: 11\r\n\r\nGET /a \"\" 0");
    let keeps = answer(&format!("GET /a HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n{CLOSE}"));
    assert!(keeps.starts_with("HTTP/1.0 200 OK\r\ndate: now\r\nconnection: keep-alive\r\n") && shown(&keeps).len() == 2, "{keeps}");
    let unchanged = answer("GET /unchanged HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(unchanged, "HTTP/1.1 304 Not Modified\r\ndate: now\r\ncontent-length: 7\r\nconnection: close\r\n\r\n");
    let none = answer("GET /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(none, "HTTP/1.1 204 No Content\r\ndate: now\r\nconnection: close\r\n\r\n");
    let long = answer(&format!("GET /long HTTP/1.1\r\nhost: a\r\n\r\n{CLOSE}"));
    assert_eq!(shown(&long), ["x".repeat(100_000), LAST.to_owned()]);
}

#[test]
fn interim_responses_go_before_the_head() {
    let (wait, go) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
    let (waits, went) = (wait.clone(), go.clone());
    let answer = move |asked: Asked| {
        let (waits, went) = (waits.clone(), went.clone());
        async move {
            if !went.get() {
                waits.notified().await;
            }
            echo(asked).await
        }
    };
    let got = serve(answer, move |mut stream, signals| async move {
        // The connection's task is woken by whoever drives it; here it is polled because the client writes.
        signals.interim(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
        stream.write_all(CLOSE.as_bytes()).await.unwrap();
        let mut hints = [0; 37];
        stream.read_exact(&mut hints).await.unwrap();
        go.set(true);
        wait.notify_one();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        (String::from_utf8(hints.to_vec()).unwrap(), rest)
    });
    assert_eq!(got.0, "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
    assert_eq!(shown(&got.1), [LAST]);
}

#[test]
fn a_client_that_goes_away_takes_its_query_with_it() {
    struct Gone(Rc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    // Also one that sent more: a stray line end, as old clients do, or the beginning of another request.
    for more in ["", "\r\n", "GET /next"] {
        let gone = Rc::new(Notify::new());
        let told = gone.clone();
        let answer = move |asked: Asked| {
            let told = Gone(told.clone());
            async move {
                let _held = (asked, told);
                std::future::pending::<Response<ResponseBody>>().await
            }
        };
        serve(answer, move |mut stream, _| async move {
            stream.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n\r\n{more}").as_bytes()).await.unwrap();
            drop(stream);
            gone.notified().await;
        });
    }
}

#[test]
fn nobody_upgrades_from_http_1_0() {
    let answer = |asked: Asked| async move { own(200, if asked.upgrade.is_some() { "upgrades" } else { "stays" }) };
    for (version, says) in [("1.0", "stays"), ("1.1", "upgrades")] {
        let request = format!("GET / HTTP/{version}\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: echo\r\n\r\n");
        let got = serve(answer, move |mut stream, _| async move {
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            all
        });
        assert!(got.ends_with(says), "{version}: {got}");
    }
}

#[test]
fn an_upgraded_connection_is_handed_over_with_what_came_behind_the_request() {
    let answer = |asked: Asked| async move {
        let upgrade = asked.upgrade.unwrap();
        tokio::task::spawn_local(async move {
            let mut upgraded = upgrade.await.unwrap();
            let mut early = [0; 5];
            upgraded.read_exact(&mut early).await.unwrap();
            upgraded.write_all(&early).await.unwrap();
            let mut late = [0; 4];
            upgraded.read_exact(&mut late).await.unwrap();
            upgraded.write_all(&late).await.unwrap();
        });
        let mut response = own(101, "");
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response
    };
    let got = serve(answer, |mut stream, _| async move {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly").await.unwrap();
        stream.write_all(b"late").await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        all
    });
    assert_eq!(got, "HTTP/1.1 101 Switching Protocols\r\ndate: now\r\nconnection: upgrade\r\n\r\nearlylate");
}

#[test]
fn a_connection_that_waits_holds_no_memory_for_what_came() {
    over_a_pipe(|ours, mut theirs| async move {
        let connection = Connection::new(Stream::Piped(ours), 1_000, 10, Arc::default(), echo, refused);
        let connection = Rc::new(RefCell::new(connection));
        let polled = connection.clone();
        tokio::task::spawn_local(async move { std::future::poll_fn(|cx| polled.borrow_mut().poll(cx)).await });
        theirs.write_all(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut some = [0; 200];
        assert!(theirs.read(&mut some).await.unwrap() > 50);
        tokio::task::yield_now().await;
        assert_eq!(connection.borrow().room(), 0);
    });
}

#[test]
fn tls_on_a_port_for_plain_http_is_called_that() {
    // A handshake's first record, with a bare LF among its random bytes.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\x90";
    for piece in [1, 2, hello.len()] {
        let all = answers(hello, piece);
        assert!(all.starts_with("HTTP/1.1 400 ") && all.ends_with("\r\n\r\ntls"), "in pieces of {piece}: {all}");
    }
    for other in [&b"\x15\x03\x01"[..], b"\x16\x02\x00"] {
        assert!(answers(other, other.len()).ends_with("\r\n\r\nhead"), "{other:?}");
    }
}

/// Runs a connection that waits so long for a client that still sends, and beside it the client; ready when both have ended.
fn ended_beside<C: Future>(time: Duration, client: impl FnOnce(DuplexStream) -> C) -> C::Output {
    over_a_pipe(|ours, theirs| async move {
        let connection = tokio::task::spawn_local(async move {
            let mut connection = Connection::new(Stream::Piped(ours), 1_000, 10, Arc::default(), echo, refused).lingering_for(time);
            std::future::poll_fn(|cx| connection.poll(cx)).await;
            assert!(connection.room() < 100, "nothing is kept of what was dropped");
        });
        let output = client(theirs).await;
        connection.await.unwrap();
        output
    })
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_client_that_sends_on_and_reads_afterwards_gets_the_whole_answer() {
    let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "a".repeat(1_000));
    for (head, answer) in [
        ("POST /ignores HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n", "ignored"),
        ("POST /ignores HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n", "ignored"),
        ("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n", "400"),
        ("NO HTTP\r\n\r\n", "400"),
        (&long, "431"),
    ] {
        let got = ended_beside(HOUR, |mut stream| async move {
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            all
        });
        assert_eq!(shown(&got), [answer], "{head:?}");
        assert!(got.contains("\r\nconnection: close\r\n"), "it says that nothing follows: {got}");
    }
}

#[test]
fn a_client_that_never_closes_is_let_go() {
    let head = b"POST /ignores HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n";
    let open = ended_beside(Duration::from_millis(50), |mut stream| async move {
        stream.write_all(head).await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(shown(&all), ["ignored"]);
        stream
    });
    drop(open);
    // One that never stops is cut off by how much it sends.
    let sent = ended_beside(HOUR, |mut stream| async move {
        stream.write_all(head).await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b'x'; 1 << 12]).await.is_ok() {
            sent += 1 << 12;
        }
        sent
    });
    assert!((MOST..MOST + (1 << 20)).contains(&sent), "{sent}");
}

#[test]
fn a_head_that_took_too_long_is_told_so_while_more_of_it_comes() {
    over_a_pipe(|ours, mut theirs| async move {
        let signals = Arc::<Signals>::default();
        let told = signals.clone();
        theirs.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        let connection = tokio::task::spawn_local(async move {
            let mut connection = Connection::new(Stream::Piped(ours), 1_000, 10, signals, echo, refused).lingering_for(HOUR);
            std::future::poll_fn(|cx| {
                assert!(connection.poll(cx).is_pending());
                connection.time_out(cx);
                std::task::Poll::Ready(())
            })
            .await;
            std::future::poll_fn(|cx| connection.poll(cx)).await;
        });
        let mut status = [0; 12];
        theirs.read_exact(&mut status).await.unwrap();
        assert!(told.is_lingering(), "the clock is told");
        theirs.write_all(&[b'x'; 10_000]).await.unwrap();
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&status, rest.as_str()), (b"HTTP/1.1 408", " Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
        drop(theirs);
        connection.await.unwrap();
    });
}
