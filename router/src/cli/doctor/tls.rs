//! Certificates that the router shows: to clients, to endpoints, to Redis.

use std::path::{Path, PathBuf};

use super::Shared;
use super::finding::{Finding, until};
use super::run::Check;
use crate::config::{Config, StateUrl};
use crate::tls::certificate_in;

const PART: &str = "tls";
const TO_DO: &str = "put a new one in its place: it is in use some seconds later, without a restart (runbooks/certificate-expiry.md)";

pub(super) fn checks(config: &Shared) -> Vec<Check> {
    let one = |(key, path): (String, PathBuf)| Check::blocking(PART, key.clone(), move || vec![certificate(&key, &path)]);
    files(config).into_iter().map(one).collect()
}

fn files(config: &Config) -> Vec<(String, PathBuf)> {
    let listeners = config.tls.iter().flat_map(|tls| &tls.certificates).enumerate();
    let mut files: Vec<(String, PathBuf)> =
        listeners.map(|(index, files)| (format!("tls.certificate[{index}].cert"), files.cert.clone())).collect();
    for (route, pool) in config.routes.iter().flat_map(|route| route.pools.iter().map(move |pool| (route, pool))) {
        let shown = pool.tls.certificate.as_ref();
        files.extend(shown.map(|files| (format!("route.{}.pools.{}.tls.cert", route.name, pool.name), files.cert.clone())));
    }
    if let StateUrl::Redis(store) = &config.state.url {
        let shown = store.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        files.extend(shown.map(|files| ("state.cert".to_owned(), files.cert.clone())));
    }
    files
}

fn certificate(key: &str, path: &Path) -> Finding {
    match certificate_in(key, path) {
        Err(error) => Finding::failed(PART, key, error.to_string(), "put a certificate there, in PEM"),
        Ok(seen) => {
            let what =
                format!("{} ({})", path.display(), if seen.names.is_empty() { "no names".to_owned() } else { seen.names.join(", ") });
            let now = i64::try_from(crate::admin::now_unix_ms() / 1_000).unwrap_or(i64::MAX);
            until(PART, key, (&what, seen.not_after), now, TO_DO)
        }
    }
}
