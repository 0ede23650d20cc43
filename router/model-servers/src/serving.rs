//! What a server serves, asked between loads. Nothing is changed.

use std::collections::BTreeSet;

use reqwest::Client;

use crate::call::Caller;
use crate::fault::{Fault, Trouble};
use crate::server::{Server, Way};
use crate::settings::{Protocol, Settings};

/// What a server says that it serves of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The versions that are ready.
    pub versions: BTreeSet<u64>,
    /// It may serve whatever its folder holds: a version beside another one was not asked for.
    pub is_by_name: bool,
}

impl Serving {
    /// Whether this version answers queries that name none: it is ready, and the newest one of a server that is told which versions to serve.
    #[must_use]
    pub fn answers_with(&self, version: u64) -> bool {
        if self.is_by_name { self.versions.contains(&version) } else { self.versions.last() == Some(&version) }
    }
}

/// Asks a server which versions are ready.
///
/// # Errors
/// [`Fault`]: it does not answer, or cannot tell; hooks never can.
pub async fn serving(client: &Client, settings: &Settings, endpoint: &str) -> Result<Serving, Fault> {
    if settings.protocol != Protocol::V2 {
        return Err(Trouble::refused("hooks do not tell what is served").at(endpoint));
    }
    let mut server = Server::new(Caller { client, stop: None }, settings, endpoint);
    server.look().await.map_err(|trouble| trouble.at(endpoint))?;
    Ok(Serving { is_by_name: server.way != Way::Specific, versions: server.before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_counts_where_it_would_answer() {
        let serving = |versions: &[u64], is_by_name| Serving { versions: versions.iter().copied().collect(), is_by_name };
        assert!(serving(&[2], false).answers_with(2) && serving(&[1, 2], false).answers_with(2));
        assert!(!serving(&[2, 3], false).answers_with(2) && serving(&[2, 3], true).answers_with(2));
        assert!(!serving(&[], false).answers_with(2) && !serving(&[1], true).answers_with(2));
    }
}
