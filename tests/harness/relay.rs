//! A way to a server that counts what goes over it, and can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread;

#[derive(Default)]
struct State {
    /// The server's.
    port: AtomicU16,
    up: AtomicU64,
    down: AtomicU64,
    /// After so many bytes from the server nothing more comes, on any connection.
    most_down: AtomicU64,
    is_cut: AtomicBool,
    is_gone: AtomicBool,
}

/// Carries connections to a server, until it is dropped.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    /// To the server at this port of this machine.
    pub fn to(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(State::default()));
        state.most_down.store(u64::MAX, Ordering::SeqCst);
        state.port.store(port, Ordering::SeqCst);
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.is_gone.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                // Cut, it is as if nobody listened.
                let port = shared.port.load(Ordering::SeqCst);
                let Some(server) = (!shared.is_cut.load(Ordering::SeqCst)).then(|| TcpStream::connect(("127.0.0.1", port)).ok()).flatten()
                else {
                    continue;
                };
                carry(client, server, &shared);
            }
        });
        Relay { address, state }
    }

    /// From the next connection on, to the server at this port.
    pub fn point_to(&self, port: u16) {
        self.state.port.store(port, Ordering::SeqCst);
    }

    /// Bytes that went to the server.
    pub fn up(&self) -> u64 {
        self.state.up.load(Ordering::SeqCst)
    }

    /// Bytes that came from the server.
    pub fn down(&self) -> u64 {
        self.state.down.load(Ordering::SeqCst)
    }

    /// After so many more bytes from the server all connections break off, and none can be made.
    pub fn cut_after(&self, bytes: u64) {
        self.state.most_down.store(self.down() + bytes, Ordering::SeqCst);
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.state.is_cut.load(Ordering::SeqCst)
    }

    /// Connections can be made again.
    pub fn mend(&self) {
        self.state.most_down.store(u64::MAX, Ordering::SeqCst);
        self.state.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.is_gone.store(true, Ordering::SeqCst);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (shared, other) = (state.clone(), state.clone());
    thread::spawn(move || one_way(client, server, |bytes| shared.up.fetch_add(bytes, Ordering::SeqCst) < u64::MAX));
    thread::spawn(move || {
        one_way(both.1, both.0, |bytes| {
            let is_within = other.down.fetch_add(bytes, Ordering::SeqCst) + bytes <= other.most_down.load(Ordering::SeqCst);
            if !is_within {
                other.is_cut.store(true, Ordering::SeqCst);
            }
            is_within
        });
    });
}

fn one_way(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(u64) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !goes_on(count as u64) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
