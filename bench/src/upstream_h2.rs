//! The same backend over HTTP/2 (prior knowledge), on a thread of its own: each answer is 1 KB and says in `x-upstream` by which name it was asked.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::Response;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

const BODY: &[u8] = &[b'x'; 1024];
const STREAMS: u32 = 1_000;

/// Listens under each name, and serves on a thread until the process ends.
pub(crate) fn start(arms: &[(String, SocketAddr)]) -> Result<()> {
    let mut listeners = Vec::new();
    for (name, address) in arms {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        listeners.push((name.clone(), listener));
    }
    if !listeners.is_empty() {
        thread::spawn(move || serve(listeners));
    }
    Ok(())
}

fn serve(listeners: Vec<(String, TcpListener)>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let accepting: Vec<_> = listeners.into_iter().map(|(name, listener)| spawn_local(accept(name, listener))).collect();
        for task in accepting {
            task.await??;
        }
        Ok(())
    })
}

async fn accept(name: String, listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let name = name.clone();
        // Who breaks off has gone.
        spawn_local(async move { drop(connection(stream, name).await) });
    }
}

async fn connection(stream: TcpStream, name: String) -> Result<()> {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(STREAMS).initial_window_size(1 << 20).initial_connection_window_size(16 << 20);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (_, respond) = accepted?;
        answer(respond, &name)?;
    }
    Ok(())
}

fn answer(mut respond: SendResponse<Bytes>, name: &str) -> Result<()> {
    let head =
        Response::builder().header("content-type", "application/json").header("content-length", BODY.len()).header("x-upstream", name);
    respond.send_response(head.body(())?, false)?.send_data(Bytes::from_static(BODY), true)?;
    Ok(())
}
