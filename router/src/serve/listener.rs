//! The listening socket: takes connections and hands each to the worker that has the least to carry.
//!
//! One socket an address for all workers, so that it can be handed over whole. Long-lived HTTP/2 connections make it matter who gets one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::Sockets;
use super::open::{OpenConnections, Spoken};
use crate::config::Limits;
use crate::quality::{Refusal, WorkerTotals};

/// After an error of `accept` (out of descriptors, say): long enough not to spin, short enough not to be noticed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// So many addresses are remembered before those without connections are forgotten.
const ADDRESSES_BEFORE_SWEEP: usize = 10_000;

/// A connection on its way to a worker.
pub(crate) struct Arrival {
    pub(crate) stream: StdStream,
    /// The certificates to shake hands with; `None` for a connection in the clear.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) peer: SocketAddr,
    pub(crate) place: Place,
}

/// A connection's place in the counts; given back when dropped.
pub(crate) struct Place {
    total: Arc<AtomicUsize>,
    of_address: Arc<AtomicUsize>,
    of_worker: Arc<OpenConnections>,
    spoken: Cell<Spoken>,
}

impl Place {
    /// What the connection speaks has come to light, or has changed.
    pub(crate) fn becomes(&self, spoken: Spoken) {
        self.of_worker.enter(spoken);
        self.of_worker.leave(self.spoken.replace(spoken));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for count in [&self.total, &self.of_address] {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        self.of_worker.leave(self.spoken.get());
    }
}

/// How many connections there may be. Another config changes them.
#[derive(Debug)]
pub(crate) struct Most {
    connections: AtomicUsize,
    per_address: AtomicUsize,
}

impl Most {
    pub(crate) fn of(limits: &Limits) -> Most {
        Most { connections: limits.connections.into(), per_address: limits.connections_per_address.into() }
    }

    pub(crate) fn set(&self, limits: &Limits) {
        self.connections.store(limits.connections, Ordering::Relaxed);
        self.per_address.store(limits.connections_per_address, Ordering::Relaxed);
    }
}

/// The way to one worker.
pub(crate) struct WorkerDoor {
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) connections: Arc<OpenConnections>,
}

/// Counts connections, and takes them until told to stop.
pub(crate) struct Acceptor {
    most: Arc<Most>,
    doors: Vec<WorkerDoor>,
    total: Arc<AtomicUsize>,
    addresses: HashMap<IpAddr, Arc<AtomicUsize>>,
    sweep_at: usize,
    counters: Arc<WorkerTotals>,
}

impl Acceptor {
    pub(crate) fn new(most: Arc<Most>, doors: Vec<WorkerDoor>, counters: Arc<WorkerTotals>) -> Acceptor {
        Acceptor { most, doors, total: Arc::default(), addresses: HashMap::new(), sweep_at: ADDRESSES_BEFORE_SWEEP, counters }
    }

    /// Takes connections until `shutdown` says so. The sockets are closed when this returns.
    pub(crate) async fn run(self, doors: Sockets, mut shutdown: watch::Receiver<bool>) -> std::io::Result<()> {
        let plain = TcpListener::from_std(doors.traffic)?;
        let tls = doors.traffic_tls.map(|(socket, tls)| std::io::Result::Ok((TcpListener::from_std(socket)?, tls))).transpose()?;
        let acceptor = RefCell::new(self);
        let in_the_clear = accept(&acceptor, &plain, || None);
        let over_tls = async {
            match &tls {
                Some((socket, tls)) => accept(&acceptor, socket, || Some(tls.current())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = in_the_clear => {}
            () = over_tls => {}
        }
        Ok(())
    }

    /// Hands a connection to the worker with the least to carry, or closes it when there are too many.
    fn place(&mut self, stream: StdStream, peer: SocketAddr, tls: Option<Arc<ServerConfig>>) {
        if self.addresses.len() >= self.sweep_at {
            self.addresses.retain(|_, count| count.load(Ordering::Relaxed) > 0);
            // Again only when it has doubled, or each connection would look at all of many.
            self.sweep_at = (self.addresses.len() * 2).max(ADDRESSES_BEFORE_SWEEP);
        }
        let of_address = self.addresses.entry(peer.ip().to_canonical()).or_default().clone();
        let is_full = self.total.load(Ordering::Relaxed) >= self.most.connections.load(Ordering::Relaxed);
        let address_is_full = of_address.load(Ordering::Relaxed) >= self.most.per_address.load(Ordering::Relaxed);
        let door = self.doors.iter().min_by_key(|door| door.connections.load());
        let Some(door) = door.filter(|_| !is_full && !address_is_full) else {
            return self.refuse(if is_full { Refusal::Connections } else { Refusal::Address });
        };
        let of_worker = door.connections.clone();
        for count in [&self.total, &of_address] {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let spoken = if tls.is_some() { Spoken::Handshake } else { Spoken::New };
        of_worker.enter(spoken);
        let place = Place { total: self.total.clone(), of_address, of_worker, spoken: Cell::new(spoken) };
        if door.arrivals.try_send(Arrival { stream, peer, tls, place }).is_err() {
            self.refuse(Refusal::Connections);
        }
    }

    fn refuse(&self, refusal: Refusal) {
        if let Some(count) = self.counters.refusals.get(refusal as usize) {
            count.increment();
        }
    }
}

/// Takes connections from one socket, for ever.
async fn accept(acceptor: &RefCell<Acceptor>, socket: &TcpListener, tls: impl Fn() -> Option<Arc<ServerConfig>>) {
    loop {
        match socket.accept().await.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => acceptor.borrow_mut().place(stream, peer, tls()),
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let config = crate::config::parse(
            "test",
            r#"
            listen = { traffic = "127.0.0.1:0", admin = "127.0.0.1:0" }
            route = [{ name = "search", pools = { blue = { endpoints = ["http://127.0.0.1:1"] } } }]
            "#,
        );
        let (arrivals, mut arrived) = mpsc::channel(4);
        let door = WorkerDoor { arrivals, connections: Arc::default() };
        let mut acceptor = Acceptor::new(Arc::new(Most::of(&config.unwrap().limits)), vec![door], Arc::default());
        acceptor.sweep_at = 8;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || StdStream::connect(listener.local_addr().unwrap()).unwrap();
        acceptor.place(connect(), ([10, 9, 9, 9], 1).into(), None);
        let held = arrived.try_recv().unwrap();
        for last in 0..100 {
            acceptor.place(connect(), ([10, 0, 0, last], 1).into(), None);
            drop(arrived.try_recv().unwrap());
            // The limit is that of real life after the first sweep.
            acceptor.sweep_at = 8;
            assert!(acceptor.addresses.len() <= 8);
        }
        assert!(acceptor.addresses.contains_key(&held.peer.ip()), "one that has a connection is kept");
        assert_eq!(acceptor.total.load(Ordering::Relaxed), 1);
    }
}
