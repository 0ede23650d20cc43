//! What a ranker serves first: what it served before, what it was told, or what its operator most likely wants.

use std::str::FromStr;
use std::sync::Arc;

use super::loading::{Changes, blocking};
use super::repository::VersionPolicy;
use super::{Ranker, RankerError};
use crate::registry::Name;
use crate::vocabulary::read_version;

/// The alias that is served where nobody says anything else.
const CHAMPION: &str = "champion";

/// Which version of the model is served at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serve {
    /// This one.
    Version(u64),
    /// Whichever an alias of the registry points to.
    Alias(Name),
    /// None: somebody will load one.
    Nothing,
}

impl FromStr for Serve {
    type Err = String;

    fn from_str(text: &str) -> Result<Serve, String> {
        let alias = || text.parse().map(Serve::Alias).map_err(|_| "must be a version's number, an alias, or none".to_owned());
        match text {
            "none" => Ok(Serve::Nothing),
            // No alias: nobody could tell 07 from 7.
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                read_version(text).map(Serve::Version).ok_or_else(|| "versions are numbered from 1 on".to_owned())
            }
            _ => alias(),
        }
    }
}

impl Ranker {
    /// Loads what is to be served first. `given` is the version of a file that was given at the start.
    pub(super) async fn begin(&self, serve: Option<Serve>, given: Option<u64>) -> Result<(), RankerError> {
        if let Some(state) = self.state.clone()
            && let Some(served) = blocking(move || state.read()).await.and_then(|read| read).map_err(RankerError::Options)?
        {
            return self.restore(served).await;
        }
        let of_version = |version| VersionPolicy::Specific([version].into());
        let policy = match (serve, given) {
            // It shows that the state can be written.
            (Some(Serve::Nothing), _) => {
                return self.commit(Changes::new()).await.map_err(|refusal| RankerError::Options(refusal.message));
            }
            (Some(Serve::Version(version)), _) | (None, Some(version)) => of_version(version),
            (Some(Serve::Alias(alias)), _) => match self.version_of(alias.clone()).await? {
                Some(version) => of_version(version),
                None => {
                    let (name, place) = (&self.name, self.repository.describe(&self.name));
                    return Err(RankerError::Model(format!("the model `{name}`: it has no alias {alias} ({place})")));
                }
            },
            (None, None) => match CHAMPION.parse() {
                Ok(champion) => self.version_of(champion).await?.map_or(VersionPolicy::Latest(1), of_version),
                Err(_) => VersionPolicy::Latest(1),
            },
        };
        let loaded = self.load(&self.name, &policy).await;
        loaded.map_err(
            |refusal| {
                if refusal.is_unavailable() { RankerError::Away(refusal.message) } else { RankerError::Model(refusal.message) }
            },
        )
    }

    /// Which version an alias of the model points to; `None` without a registry.
    async fn version_of(&self, alias: Name) -> Result<Option<u64>, RankerError> {
        let (repository, name) = (Arc::clone(&self.repository), self.name.clone());
        let asked = blocking(move || repository.pulls.as_ref().map_or(Ok(None), |pulls| pulls.alias(&name, &alias)));
        asked.await.map_err(RankerError::Start)?.map_err(RankerError::Away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_first_is_a_number_an_alias_or_nothing() {
        let read = |text: &str| text.parse::<Serve>();
        assert_eq!(read("12"), Ok(Serve::Version(12)));
        assert_eq!(read("none"), Ok(Serve::Nothing));
        assert_eq!(read("champion"), Ok(Serve::Alias("champion".parse().unwrap())));
        for wrong in ["", "0", "012", "a b", "@champion", "search:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
