//! `switchback override`: signs a header that sends one's own queries to a pool.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::{Failure, print};
use crate::config::{self, Override};
use crate::serve::{OVERRIDE_FIELD, Overrides};

/// The most that `override.max_lifetime` can be.
const LIFETIME_AT_MOST: Duration = Duration::from_secs(720 * 3_600);

/// Sign a header that sends the queries which carry it to a pool, whatever the split says.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchback override --config switchback.toml --route search --pool canary --for 1h
  curl -H \"$(switchback override --key-file override.key --route search --pool canary --for 5m)\" https://search.example/rank

Whoever has the header can use it until it ends. Such queries count for no pool, and no other pool answers for theirs.")]
pub(super) struct SignOverride {
    /// The router's config: names the key, and what is written below is checked against it.
    #[arg(long, value_name = "FILE", required_unless_present = "key_file")]
    config: Option<PathBuf>,
    /// A file with the key, in place of a config.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    key_file: Option<PathBuf>,
    /// The route whose queries it is for.
    #[arg(long, value_parser = name)]
    route: String,
    /// The pool that shall answer them.
    #[arg(long, value_parser = name)]
    pool: String,
    /// How long it is good: 30s, 5m, 1h.
    #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
    lifetime: Duration,
}

impl SignOverride {
    pub(super) fn run(self) -> Result<(), Failure> {
        let written = match (&self.config, self.key_file.clone()) {
            (Some(file), _) => self.checked(file)?,
            (None, _) if self.lifetime > LIFETIME_AT_MOST => {
                return Err(Failure::usage("--for: no router takes an override that is good for longer than 720h"));
            }
            (None, key_file) => Override { key_files: key_file.into_iter().collect(), max_lifetime: LIFETIME_AT_MOST },
        };
        let overrides = Overrides::load(Some(&written)).map_err(|error| Failure::config(&Failure::chain(&error)))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = now.saturating_add(self.lifetime).as_secs();
        let value = overrides.sign(&self.route, &self.pool, expiry).ok_or_else(|| Failure::config("there is no key to sign with"))?;
        print(&format!("{OVERRIDE_FIELD}: {value}\n"))
    }

    /// What the config says of overrides, if it would take this one.
    fn checked(&self, file: &Path) -> Result<Override, Failure> {
        let config = config::load(file).map_err(|error| Failure::config(&error.to_string()))?;
        let Some(written) = config.overrides else {
            return Err(Failure::config(&format!("{}: has no [override] with key_files, so the router takes none", file.display())));
        };
        let Some(route) = config.routes.iter().find(|route| route.name == self.route) else {
            return Err(Failure::config(&format!("{}: has no route {:?}", file.display(), self.route)));
        };
        if route.pool_named(&self.pool).is_none() {
            return Err(Failure::config(&format!("{}: route {} has no pool {:?}", file.display(), self.route, self.pool)));
        }
        if self.lifetime > written.max_lifetime {
            let place = config::place(file, "override.max_lifetime");
            return Err(Failure::config(&format!("{place}: override.max_lifetime: an override that is good for longer is ignored")));
        }
        Ok(written)
    }
}

/// A name that a route or pool can have.
fn name(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let is_name = (1..=64).contains(&text.len()) && text.bytes().all(is_good) && text.starts_with(|first: char| first.is_ascii_lowercase());
    is_name.then(|| text.to_owned()).ok_or_else(|| "must be 1 to 64 of a-z, 0-9, - and _, starting with a letter".to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let read = config::units::duration(text).filter(|lifetime| lifetime.as_secs() > 0);
    read.ok_or_else(|| "must be a duration of a second or more, like \"5m\" or \"1h\"".to_owned())
}
