//! The listening sockets: bound here, or inherited from systemd (socket activation) or from the process before this one.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::LifecycleError;
use crate::config::Listen;

/// What the sockets are called by whoever passes them: the keys of `[listen]`.
pub(super) const NAMES: [&str; 3] = ["traffic", "traffic_tls", "admin"];

/// Sockets that came with the process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// With the name that goes with each, if it is one of [`NAMES`].
    sockets: Vec<(Option<String>, TcpListener)>,
    /// The process before this one had the addresses from its config; systemd has them from its own unit, and that one holds.
    must_match_config: bool,
}

/// Where the router listens.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) traffic: TcpListener,
    pub(super) traffic_tls: Option<TcpListener>,
    pub(super) admin: TcpListener,
}

impl Inherited {
    /// Takes what systemd passes (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`), once, before there are other threads.
    ///
    /// # Errors
    /// A descriptor that is no listening TCP socket.
    pub fn from_environment() -> std::io::Result<Inherited> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().filter(|name| NAMES.contains(&name.as_str()));
            sockets.extend(passed.take_tcp_listener(index)?.map(|socket| (name, socket)));
        }
        Ok(Inherited { sockets, must_match_config: false })
    }

    /// What the process before this one passed.
    pub(super) fn from_predecessor(sockets: Vec<(String, TcpListener)>) -> Inherited {
        let named = |(name, socket)| (Some(name), socket);
        Inherited { sockets: sockets.into_iter().map(named).collect(), must_match_config: true }
    }

    /// The socket for a key: by its name, else by its address, else the first without a name.
    fn take(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let is_at = |socket: &TcpListener| socket.local_addr().is_ok_and(|bound| bound == address);
        let by_name = self.sockets.iter().position(|(found, socket)| {
            let may_be = !self.must_match_config || address.port() == 0 || is_at(socket);
            found.as_deref() == Some(name) && may_be
        });
        let by_address = || self.sockets.iter().position(|(found, socket)| found.is_none() && is_at(socket));
        let by_order = || self.sockets.iter().position(|(found, _)| found.is_none());
        let found = by_name.or_else(by_address).or_else(by_order)?;
        Some(self.sockets.remove(found).1)
    }
}

impl Listeners {
    /// Opens what `[listen]` says. The addresses become those that were really bound.
    pub(super) fn open(listen: &mut Listen, mut inherited: Inherited) -> Result<Listeners, LifecycleError> {
        let mut open = |key: &'static str, address: &mut SocketAddr| -> Result<TcpListener, LifecycleError> {
            let (name, asked) = (key.strip_prefix("listen.").unwrap_or(key), *address);
            let fails = |source| LifecycleError::Listen { key, address: asked, source };
            let socket = match inherited.take(name, asked) {
                Some(socket) => socket,
                None => TcpListener::bind(asked).map_err(fails)?,
            };
            *address = socket.local_addr().map_err(fails)?;
            Ok(socket)
        };
        // In the order of the file, which is that of sockets without a name.
        let traffic = open("listen.traffic", &mut listen.traffic)?;
        let traffic_tls = listen.traffic_tls.as_mut().map(|address| open("listen.traffic_tls", address)).transpose()?;
        let admin = open("listen.admin", &mut listen.admin)?;
        for (name, socket) in &inherited.sockets {
            tracing::warn!(name, address = ?socket.local_addr().ok(), "a listening socket was passed that no key of [listen] is for");
        }
        Ok(Listeners { traffic, traffic_tls, admin })
    }

    /// With their names, to be passed on.
    pub(super) fn named(&self) -> Vec<(&'static str, &TcpListener)> {
        let [traffic, traffic_tls, admin] = NAMES;
        let tls = self.traffic_tls.as_ref().map(|socket| (traffic_tls, socket));
        [Some((traffic, &self.traffic)), tls, Some((admin, &self.admin))].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn listen(traffic: SocketAddr, admin: SocketAddr) -> Listen {
        Listen { traffic, traffic_tls: None, admin, workers: 1, trusted_proxies: Vec::new() }
    }

    const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    #[test]
    fn a_name_comes_before_an_address_and_an_address_before_the_order() {
        let ((one, at_one), (two, at_two)) = (socket(), socket());
        let sockets = vec![(Some("admin".to_owned()), one), (None, two)];
        let mut by_name = listen(at_one, ANY.into());
        Listeners::open(&mut by_name, Inherited { sockets, must_match_config: false }).unwrap();
        assert_eq!((by_name.traffic, by_name.admin), (at_two, at_one));

        let ((one, at_one), (two, at_two)) = (socket(), socket());
        let sockets = vec![(None, one), (None, two)];
        let mut by_address = listen(at_two, ANY.into());
        Listeners::open(&mut by_address, Inherited { sockets, must_match_config: false }).unwrap();
        assert_eq!((by_address.traffic, by_address.admin), (at_two, at_one));
    }

    #[test]
    fn a_new_process_whose_config_says_another_address_binds_that() {
        let ((one, at_one), (two, at_two)) = (socket(), socket());
        let free = socket().1;
        let passed = Inherited::from_predecessor(vec![("traffic".to_owned(), one), ("admin".to_owned(), two)]);
        let mut listen = listen(free, at_two);
        let listeners = Listeners::open(&mut listen, passed).unwrap();
        assert_eq!((listen.traffic, listen.admin), (free, at_two));
        assert!(std::net::TcpStream::connect(at_one).is_err(), "nobody listens there any more");
        assert_eq!(listeners.named().len(), 2);
    }
}
