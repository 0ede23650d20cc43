//! Where an endpoint is: one address, or those that its name stands for at this moment.
//!
//! Names are looked up on the control thread, by the system's resolver. Workers connect to the addresses in turn, pass over those that
//! failed lately, and go on to the next where there is one.
//!
//! Invariant: a failed look-up keeps the last good addresses, and no query waits for the resolver.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::Authority;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::reason::no_connection;

/// So many addresses of a name are used: more than any resolver gives in one answer.
const ADDRESSES: usize = 256;

/// One address of an endpoint.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) address: SocketAddr,
    /// The last attempt to connect, or the last health check, failed.
    is_down: AtomicBool,
    /// The name no longer stands for it.
    is_gone: AtomicBool,
}

impl Place {
    fn at(address: SocketAddr) -> Arc<Place> {
        Arc::new(Place { address, is_down: AtomicBool::new(false), is_gone: AtomicBool::new(false) })
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Connections to it are not used any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// All places of one endpoint.
#[derive(Debug)]
pub(super) struct Places {
    host: String,
    port: u16,
    is_name: bool,
    current: ArcSwap<Vec<Arc<Place>>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// Somebody could not connect: the name may stand for something else now.
    pub(super) doubted: Notify,
    pub(super) lookups: AtomicU64,
    pub(super) failed_lookups: AtomicU64,
}

/// What a look-up changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    Same,
    Changed { from: Vec<SocketAddr>, to: Vec<SocketAddr> },
}

impl Places {
    /// A name stands for nothing until it was looked up.
    pub(super) fn new(authority: &Authority) -> Places {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // The config has checked that there is one.
        let port = authority.port_u16().unwrap_or(0);
        let address = host.parse::<IpAddr>().ok();
        let places = address.map(|address| Place::at(SocketAddr::new(address, port)));
        Places {
            is_name: address.is_none(),
            host,
            port,
            current: ArcSwap::from_pointee(places.into_iter().collect()),
            turn: AtomicUsize::new(0),
            doubted: Notify::new(),
            lookups: AtomicU64::new(0),
            failed_lookups: AtomicU64::new(0),
        }
    }

    pub(super) fn is_name(&self) -> bool {
        self.is_name
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Place>>> {
        self.current.load_full()
    }

    pub(super) fn is_resolved(&self) -> bool {
        !self.current.load().is_empty()
    }

    /// What is said of it then.
    pub(super) fn unresolved(&self) -> String {
        format!("the name {} does not resolve", self.host)
    }

    /// Asks the system's resolver; the error says what it said.
    pub(super) async fn look_up(&self) -> Result<Looked, String> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_else(|error| {
            tracing::debug!(%error, host = self.host, "look-up failed");
            Vec::new()
        });
        if addresses.is_empty() {
            self.failed_lookups.fetch_add(1, Ordering::Relaxed);
            return Err(self.unresolved());
        }
        Ok(self.take(addresses))
    }

    /// The addresses in any order, some perhaps twice. Places that stay keep what is known of them.
    fn take(&self, mut addresses: Vec<SocketAddr>) -> Looked {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        let old = self.all();
        let from: Vec<SocketAddr> = old.iter().map(|place| place.address).collect();
        if from == addresses {
            return Looked::Same;
        }
        let known = |address: &SocketAddr| old.iter().find(|place| place.address == *address).cloned();
        let new: Vec<Arc<Place>> = addresses.iter().map(|address| known(address).unwrap_or_else(|| Place::at(*address))).collect();
        self.current.store(Arc::new(new));
        for gone in old.iter().filter(|place| !addresses.contains(&place.address)) {
            gone.is_gone.store(true, Ordering::Relaxed);
        }
        Looked::Changed { from, to: addresses }
    }

    /// Says that there was no connection: a name is looked up again soon.
    pub(super) fn doubt(&self) {
        if self.is_name {
            self.doubted.notify_one();
        }
    }

    /// Connects to one of the places: each in its turn, those that failed lately last. The time is shared among them, so that an
    /// address that swallows packets leaves the others some.
    pub(super) async fn connect(&self, timeout: Duration) -> Result<(TcpStream, Option<Arc<Place>>), String> {
        let places = self.all();
        if let [only] = places.as_slice() {
            let stream = TcpStream::connect(only.address).await.map_err(|error| {
                self.doubt();
                no_connection(&error)
            })?;
            return Ok((stream, self.is_name.then(|| only.clone())));
        }
        let deadline = Instant::now() + timeout;
        let mut why = self.unresolved();
        let order = self.order(&places);
        for (tried, place) in order.iter().enumerate() {
            let others = u32::try_from(order.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / others.max(1);
            let error = match tokio::time::timeout(share, TcpStream::connect(place.address)).await {
                Ok(Ok(stream)) => {
                    place.set_down(false);
                    return Ok((stream, Some(place.clone())));
                }
                Ok(Err(error)) => no_connection(&error),
                Err(_) => format!("no answer within {share:?}"),
            };
            place.set_down(true);
            self.doubt();
            why = format!("{}: {error}", place.address);
        }
        Err(why)
    }

    fn order(&self, places: &[Arc<Place>]) -> Vec<Arc<Place>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % places.len().max(1);
        let in_turn = places.iter().cycle().skip(turn).take(places.len());
        let (down, up): (Vec<&Arc<Place>>, Vec<&Arc<Place>>) = in_turn.partition(|place| place.is_down());
        up.into_iter().chain(down).cloned().collect()
    }

    /// Where nothing else would ever find out that a place is up again.
    pub(super) fn forget_failures(&self) {
        self.current.load().iter().for_each(|place| place.set_down(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9_001))
    }

    fn named() -> Places {
        Places::new(&"models.internal:9001".parse().unwrap())
    }

    fn firsts(places: &Places, times: usize) -> Vec<SocketAddr> {
        (0..times).map(|_| places.order(&places.all())[0].address).collect()
    }

    #[test]
    fn an_address_is_its_only_place_and_a_name_has_none_at_first() {
        let places = Places::new(&"[::1]:9001".parse().unwrap());
        assert!(!places.is_name() && places.all()[0].address == "[::1]:9001".parse().unwrap());
        assert!(named().is_name() && !named().is_resolved());
    }

    #[test]
    fn the_order_of_an_answer_is_no_change() {
        let places = named();
        assert_ne!(places.take(vec![address(2), address(1), address(2)]), Looked::Same);
        assert_eq!(places.take(vec![address(1), address(2)]), Looked::Same);
    }

    #[test]
    fn what_stays_is_remembered_and_what_goes_is_told() {
        let places = named();
        places.take(vec![address(1), address(2)]);
        let before = places.all();
        before[0].set_down(true);
        places.take(vec![address(1), address(3)]);
        assert!(places.all()[0].is_down() && !before[0].is_gone());
        assert!(before[1].is_gone() && !places.all()[1].is_down());
    }

    #[test]
    fn each_place_has_its_turn_and_those_that_failed_come_last() {
        let places = named();
        places.take(vec![address(1), address(2), address(3)]);
        assert_eq!(firsts(&places, 4), [address(1), address(2), address(3), address(1)]);
        places.all()[1].set_down(true);
        assert!(!firsts(&places, 6).contains(&address(2)));
        assert_eq!(places.order(&places.all())[2].address, address(2), "but it is there");
    }
}
