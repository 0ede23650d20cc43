//! `[tls]` and `[route.pools.NAME.tls]`: which files there must be. What is in them is read when the router starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::check::Checker;
use super::checked::{CertificateFiles, ClientAuth, PoolTls, Tls};
use super::written;

const CERT_RULE: &str = "must be the path of a certificate chain in PEM form, the server's own certificate first";
const KEY_RULE: &str = "must be the path of the certificate's private key in PEM form";
const CLIENT_AUTH_RULE: &str = "must be \"required\" or \"optional\"";

pub(super) fn check_tls(checker: &mut Checker, listen: Option<SocketAddr>, written: Option<written::Tls>) -> Option<Tls> {
    let Some(written) = written else {
        if listen.is_some() {
            checker.missing("tls.certificate", "listen.traffic_tls needs at least one [[tls.certificate]] with cert and key");
        }
        return None;
    };
    if listen.is_none() {
        checker.missing("listen.traffic_tls", "[tls] is for this listener: must be an address like \"0.0.0.0:8443\"");
    }
    if written.certificate.is_empty() {
        checker.missing("tls.certificate", "must be at least one [[tls.certificate]] with cert and key");
    }
    let mut certificates = Vec::new();
    for (index, pair) in written.certificate.into_iter().enumerate() {
        let key = |name: &str| format!("tls.certificate[{index}].{name}");
        let cert = checker.required(&key("cert"), pair.cert, CERT_RULE);
        let private_key = checker.required(&key("key"), pair.key, KEY_RULE);
        certificates.push(CertificateFiles { cert: PathBuf::from(cert), key: PathBuf::from(private_key) });
    }
    if let (Some(auth), None) = (&written.client_auth, &written.client_ca) {
        checker.refuse("tls.client_auth", auth, "needs tls.client_ca: the authorities of client certificates");
    }
    let client_auth = match written.client_auth.as_deref() {
        None | Some("required") => ClientAuth::Required,
        Some("optional") => ClientAuth::Optional,
        Some(other) => {
            checker.refuse("tls.client_auth", other, CLIENT_AUTH_RULE);
            ClientAuth::Required
        }
    };
    let reload_interval = checker.duration(
        "tls.reload_interval",
        written.reload_interval.as_deref(),
        Duration::from_secs(10),
        Duration::from_millis(10),
        Duration::from_secs(3_600),
    );
    Some(Tls { certificates, client_ca: written.client_ca.map(PathBuf::from), client_auth, reload_interval })
}

/// A certificate to show, with its key: both or neither.
pub(super) fn check_pair(checker: &mut Checker, section: &str, cert: Option<String>, key: Option<String>) -> Option<CertificateFiles> {
    if cert.is_none() && key.is_none() {
        return None;
    }
    let cert = checker.required(&format!("{section}.cert"), cert, CERT_RULE);
    let key = checker.required(&format!("{section}.key"), key, KEY_RULE);
    Some(CertificateFiles { cert: PathBuf::from(cert), key: PathBuf::from(key) })
}

/// `is_used`: an endpoint of the pool is `https`.
pub(super) fn check_pool(checker: &mut Checker, pool_key: &str, written: Option<written::PoolTls>, is_used: bool) -> PoolTls {
    let Some(written) = written else { return PoolTls::default() };
    let key = |name: &str| format!("{pool_key}.tls.{name}");
    if !is_used {
        checker.refuse(&format!("{pool_key}.tls"), "{ ... }", "is for https endpoints, and this pool has none");
    }
    let server_name = written.server_name.and_then(|name| {
        let parsed = ServerName::try_from(name.clone()).ok();
        if parsed.is_none() {
            checker.refuse(&key("server_name"), &name, "must be a DNS name or an IP address, like \"ranker.internal\"");
        }
        parsed
    });
    let certificate = check_pair(checker, &format!("{pool_key}.tls"), written.cert, written.key);
    PoolTls { ca: written.ca.map(PathBuf::from), server_name, certificate }
}
