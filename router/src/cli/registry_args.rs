//! Which registry a command is about, and how failures of it end.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Failure, again};
use crate::config::{self, Place};
use crate::registry::{Progress, Registry, RegistryError, TrustedKey};

const DEFAULT_FOLDER: &str = "/var/lib/switchback/models";

/// Which registry.
#[derive(Debug, Args, Default)]
pub(super) struct RegistryArgs {
    #[command(flatten)]
    at: RegistryAt,
    /// A router's config: its registry is used, with its endpoint, region and limits.
    #[arg(long, value_name = "FILE", env = "SWITCHBACK_CONFIG")]
    config: Option<PathBuf>,
}

/// The same without `--config`, for commands that need it for more than this.
#[derive(Debug, Args, Default)]
pub(super) struct RegistryAt {
    /// The registry: file:///FOLDER or s3://BUCKET/PREFIX [default: that of --config, or file:///var/lib/switchback/models].
    #[arg(long, value_name = "URL", env = "SWITCHBACK_REGISTRY")]
    registry: Option<String>,
}

impl RegistryArgs {
    /// The router's config, where one was named.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn config(&self) -> Result<Option<config::Config>, Failure> {
        self.config.as_deref().map(config::load).transpose().map_err(|error| Failure::config(&error.to_string()))
    }

    /// Whether one was named by its URL.
    pub(super) fn has_url(&self) -> bool {
        self.at.registry.is_some()
    }

    /// Whether a config was named.
    pub(super) fn has_config(&self) -> bool {
        self.config.is_some()
    }

    /// Opens it.
    ///
    /// # Errors
    /// A URL or config that makes no sense, or a folder that is not there or cannot be used.
    pub(super) fn open(&self) -> Result<Registry, Failure> {
        Registry::open(&self.at.named(self.config()?)?).map_err(failed)
    }

    /// The same, and the keys of which one has to have signed: these, and those of the config.
    ///
    /// # Errors
    /// As [`RegistryArgs::open`], and a file that holds no key.
    pub(super) fn open_trusting(&self, keys: &[PathBuf]) -> Result<(Registry, Vec<TrustedKey>), Failure> {
        let config = self.at.named(self.config()?)?;
        let keys = trusted(keys.iter().chain(&config.trusted_keys))?;
        Ok((Registry::open(&config).map_err(failed)?, keys))
    }

    /// As [`RegistryArgs::open`], and makes its folder where there is none.
    ///
    /// # Errors
    /// As [`RegistryArgs::open`].
    pub(super) fn open_or_make(&self) -> Result<Registry, Failure> {
        Registry::open_or_make(&self.at.named(self.config()?)?).map_err(failed)
    }
}

impl RegistryAt {
    /// What was said, to be said again.
    pub(super) fn again(&self) -> String {
        again::option("registry", self.registry.as_deref().map(str::as_ref), Some("SWITCHBACK_REGISTRY"))
    }

    /// What is said of it; `config` is the router's, where one was named.
    ///
    /// # Errors
    /// A URL that makes no sense.
    pub(super) fn named(&self, config: Option<config::Config>) -> Result<config::Registry, Failure> {
        let config = config.map_or_else(|| config::Registry::at(Place::Folder(PathBuf::from(DEFAULT_FOLDER))), |config| config.registry);
        let Some(url) = &self.registry else { return Ok(config) };
        let rule = "must be a URL like file:///var/lib/switchback/models or s3://bucket/prefix";
        let place = Place::parse(url).ok_or_else(|| Failure::usage(format!("--registry {url}: {rule}")))?;
        Ok(config::Registry { place, ..config })
    }
}

/// The keys in these files.
///
/// # Errors
/// A file that holds none.
pub(super) fn trusted<'f>(files: impl IntoIterator<Item = &'f PathBuf>) -> Result<Vec<TrustedKey>, Failure> {
    files.into_iter().map(|path| TrustedKey::read(path)).collect::<Result<_, _>>().map_err(failed)
}

/// The exit code of what went wrong.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(error: RegistryError) -> Failure {
    let message = Failure::chain(&error);
    match () {
        () if error.is_away() => Failure::unreachable(message),
        () if error.is_no_room() => Failure::no_room(message),
        () if error.is_usage() => Failure::usage(message),
        () => Failure::refused(message),
    }
}

/// A bar on a terminal; nothing elsewhere.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &str, is_quiet: bool) -> Bar {
        let target = if is_quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        // Nothing is drawn before it is known of how much.
        Bar(ProgressBar::with_draw_target(None, target).with_style(style).with_message(what.to_owned()))
    }

    pub(super) fn show(&self, progress: Progress) {
        self.0.update(|state| {
            state.set_len(progress.of);
            state.set_pos(progress.done);
        });
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_knows_its_length_before_it_is_drawn() {
        let bar = Bar::new("pushing", true);
        assert_eq!((bar.0.length(), bar.0.position()), (None, 0));
        bar.show(Progress { done: 3, of: 10 });
        assert_eq!((bar.0.length(), bar.0.position()), (Some(10), 3));
    }
}
