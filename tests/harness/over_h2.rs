//! A client of HTTP/2 with prior knowledge, as tests want it.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use crate::Router;

/// Far longer than anything takes.
const SOON: Duration = Duration::from_secs(10);

/// Runs it on a runtime of its own, in time.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("in time") })
}

/// A connection to a router.
pub async fn connect(router: &Router) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(TcpStream::connect(router.traffic).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// A request for a path.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://search.test{path}")).body(()).unwrap()
}
