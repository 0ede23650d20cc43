//! The promise: long-lived HTTP/2 connections are spread over the workers, also when others came and went, and after a while anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use switchback_tests::{Backend, Router, Setup, eventually};

const SOON: Duration = Duration::from_secs(20);

type Client = SendRequest<Full<Bytes>>;

async fn connect(router: &Router) -> Client {
    let stream = tokio::net::TcpStream::connect(router.traffic).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(ask(&mut sender).await, 200);
    sender
}

async fn ask(sender: &mut Client) -> u16 {
    let request = Request::get("http://search.test/rank").body(Full::default()).unwrap();
    sender.send_request(request).await.unwrap().status().as_u16()
}

fn open(router: &Router, protocol: &str) -> [f64; 2] {
    let protocol = format!("protocol=\"{protocol}\"");
    ["worker=\"0\"", "worker=\"1\""].map(|worker| router.metric("switchback_worker_connections", &[worker, &protocol]))
}

#[test]
fn eight_http2_connections_over_two_workers_are_four_each() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).workers(2).start();
    // Ordinary clients, of which those of one worker go: by number alone that one would get the next three.
    let mut others: Vec<TcpStream> = (0..6)
        .map(|number| {
            let mut stream = TcpStream::connect(router.traffic).unwrap();
            stream.write_all(b"GET /rank HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 1_024]).unwrap() > 0);
            eventually("it is counted", SOON, || (open(&router, "http1").iter().sum::<f64>() == f64::from(number + 1)).then_some(()));
            stream
        })
        .collect();
    assert_eq!(open(&router, "http1"), [3.0, 3.0]);
    let mut place = 0;
    others.retain(|_| {
        place += 1;
        place % 2 == 0
    });
    eventually("they are gone", SOON, || (open(&router, "http1").iter().sum::<f64>() == 3.0).then_some(()));
    assert!(open(&router, "http1").contains(&0.0), "all of one worker: {:?}", open(&router, "http1"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(connect(&router).await);
        }
        assert_eq!(open(&router, "http2"), [4.0, 4.0]);
    });
}

#[test]
fn a_connection_of_age_is_ended_in_order() {
    let blue = Backend::start("blue");
    let router = Setup::default().pool("blue", &[&blue]).workers(2).top("[limits]\nconnection_max_age = \"1s\"").start();
    let mut keep_alive = TcpStream::connect(router.traffic).unwrap();
    keep_alive.set_read_timeout(Some(SOON)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = connect(&router).await;
        let mut answered = 0;
        while client.ready().await.is_ok() && !client.is_closed() {
            let request = Request::get("http://search.test/rank").body(Full::default()).unwrap();
            match client.send_request(request).await {
                Ok(response) => assert_eq!(response.status(), 200),
                // The GOAWAY came first: the query was not sent, and may be sent on another connection.
                Err(error) => assert!(error.is_canceled(), "{error:?}"),
            }
            answered += 1;
        }
        assert!(answered > 10, "it was told within a second or so, not at once: {answered}");
    });
    let answer = eventually("HTTP/1.1 is told with a response", SOON, || {
        keep_alive.write_all(b"GET /rank HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut bytes = [0; 1_024];
        let count = keep_alive.read(&mut bytes).unwrap();
        let answer = String::from_utf8_lossy(&bytes[..count]).into_owned();
        answer.contains("connection: close").then_some(answer)
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
