//! A bucket: how it is opened, and what it means when its service refuses. S3 says why in XML; people are told what is refused, where, and what to set.

use std::path::Path as FilePath;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3ConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, Error, RetryConfig};

use super::credentials::from_machine;
use super::error::RegistryError;
use super::listed::{Connector, NO_LIST};
use super::open::chain;
use crate::config;

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte of an answer, while a part of an upload goes up or is put together; of everything else `registry.retry_for`, where that is shorter.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Never less than this: a busy server is not one that hangs.
const LEAST_TIMEOUT: Duration = Duration::from_secs(5);
/// Of one request, with its answer; an artefact that is read for longer is asked for anew from where it was.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// What a service says of a bucket that is in another region.
const OTHER_REGION: [&str; 3] = ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"];
/// What it says of credentials, with whatever status.
const CREDENTIALS: [&str; 5] = ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"];
/// Where a machine's own credentials are asked for: a part of the URL.
const OF_MACHINE: [&str; 2] = ["/latest/api/token", "/latest/meta-data/"];

/// What errors of the library begin with.
const OF_LIBRARY: [&str; 2] = ["Generic S3 error: ", "Generic LocalFileSystem error: "];

/// How a bucket is reached, as everybody may be told: without secrets.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    bucket: String,
    /// Of a service that is not AWS's.
    endpoint: Option<String>,
    /// The id of the key, where one is set.
    key: Option<String>,
}

/// A bucket that is open: the same one twice, since whoever sends much hears nothing for longer than others would wait.
pub(super) struct Opened {
    /// For what is read.
    pub(super) s3: AmazonS3,
    /// For the bytes of artefacts on their way there.
    pub(super) uploads: AmazonS3,
    pub(super) access: Access,
}

/// Opens it; nothing is asked yet.
///
/// # Errors
/// [`RegistryError::Config`] for what makes no sense.
pub(super) fn open(config: &config::Registry, bucket: &str) -> Result<Opened, RegistryError> {
    // Nobody else may have said which one TLS takes.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let s3 = &config.s3;
    let mut builder = from_machine(s3)?.with_bucket_name(bucket);
    let said = |key: AmazonS3ConfigKey| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let key = said(AmazonS3ConfigKey::AccessKeyId);
    let environment = said(AmazonS3ConfigKey::S3Endpoint).or_else(|| said(AmazonS3ConfigKey::Endpoint));
    // Such an endpoint has the bucket in it.
    let is_whole = s3.endpoint.is_none() && said(AmazonS3ConfigKey::VirtualHostedStyleRequest).as_deref() == Some("true");
    let endpoint = match &s3.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => environment.map(checked).transpose()?,
    };
    let mut client = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT.min(config.retry_for)).with_timeout(REQUEST_TIMEOUT);
    if let Some(path) = &s3.ca_file {
        for certificate in certificates(path)? {
            client = client.with_root_certificate(certificate);
        }
    }
    if let Some(endpoint) = &endpoint {
        // The environment has two names for it, of which one goes before what is set here.
        builder = builder.with_endpoint(endpoint).with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        client = client.with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    let is_path_style = s3.path_style.unwrap_or(endpoint.is_some() && !is_whole);
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(3), base: 2.0 },
        max_retries: 1_000,
        retry_timeout: config.retry_for,
    };
    let builder = builder.with_virtual_hosted_style_request(!is_path_style).with_retry(retry);
    let wrong = |error: Error| RegistryError::Config { key: "registry.url", value: config.place.to_string(), why: chain(&error) };
    let patient = |time| {
        builder
            .clone()
            .with_http_connector(Connector::default())
            .with_client_options(client.clone().with_read_timeout(time))
            .build()
            .map_err(wrong)
    };
    let (s3, uploads) = (patient(config.retry_for.clamp(LEAST_TIMEOUT, READ_TIMEOUT))?, patient(READ_TIMEOUT)?);
    Ok(Opened { s3, uploads, access: Access { bucket: bucket.to_owned(), endpoint, key } })
}

/// An endpoint that the environment names.
fn checked(endpoint: String) -> Result<String, RegistryError> {
    if ["http://", "https://"].iter().any(|scheme| endpoint.len() > scheme.len() && endpoint.starts_with(scheme)) {
        return Ok(endpoint.trim_end_matches('/').to_owned());
    }
    let why = "must be a URL like https://minio.example.org:9000".to_owned();
    Err(RegistryError::Config { key: "AWS_ENDPOINT_URL", value: endpoint, why })
}

fn certificates(path: &FilePath) -> Result<Vec<Certificate>, RegistryError> {
    let text = std::fs::read(path).map_err(|source| RegistryError::File { path: path.to_owned(), what: "read the authorities", source })?;
    let wrong = |why: String| RegistryError::Config { key: "registry.s3.ca_file", value: path.display().to_string(), why };
    let found = Certificate::from_pem_bundle(&text).map_err(|error| wrong(chain(&error)))?;
    if found.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(found) }
}

impl Access {
    /// Whether an error says that something is set wrong, and not that the service is away: what, and what to set.
    pub(super) fn refusal(&self, error: &Error) -> Option<String> {
        let is_denied = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
        self.meant(&chain(error), is_denied)
    }

    fn meant(&self, said: &str, is_denied: bool) -> Option<String> {
        let at = self.endpoint.as_deref().unwrap_or("AWS");
        let code = code_of(said).unwrap_or_default();
        let with_code = if code.is_empty() { String::new() } else { format!(" ({code})") };
        let is_denied = is_denied || CREDENTIALS.contains(&code) || matches!(status_of(said), Some(401 | 403));
        let keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE or registry.s3.profile";
        if self.key.is_none() && OF_MACHINE.iter().any(|part| said.contains(part)) {
            return Some(format!("there are no credentials for the bucket {} at {at}, and this machine has no role; {keys}", self.bucket));
        }
        if code == "NoSuchBucket" {
            let other = "make it, or name another one in --registry or registry.url, or another service in registry.s3.endpoint or AWS_ENDPOINT_URL";
            return Some(format!("there is no bucket {} at {at}{with_code}; {other}", self.bucket));
        }
        if said.contains(NO_LIST) {
            return Some(format!(
                "what answers at {at} for the bucket {} {NO_LIST}; name the service in registry.s3.endpoint or AWS_ENDPOINT_URL",
                self.bucket
            ));
        }
        if OTHER_REGION.contains(&code) || said.contains("redirect without LOCATION") {
            return Some(format!(
                "the bucket {} at {at} is in another region{with_code}; set registry.s3.region or AWS_REGION",
                self.bucket
            ));
        }
        let who = self.key.as_ref().map_or_else(|| "the role of this machine".to_owned(), |key| format!("the key id {key}"));
        let may = "one that may list, read, create and delete objects below the prefix";
        is_denied.then(|| format!("{who} is not let into the bucket {} at {at}{with_code}; {keys}: {may}", self.bucket))
    }
}

/// Without how often it was tried: `, after 3 retries, max_retries: 1000, retry_timeout: 2s `. How long is in `registry.retry_for`.
fn without_retries(said: &str) -> String {
    let Some((before, rest)) = said.split_once(", after ") else { return said.to_owned() };
    let Some((_, rest)) = rest.split_once("retry_timeout: ") else { return said.to_owned() };
    let end = rest.find([' ', ',']).unwrap_or(rest.len());
    format!("{before}{}", rest.get(end..).unwrap_or_default())
}

/// The code in an error of S3's, which is XML.
fn code_of(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("<Code>")?;
    rest.split_once("</Code>")
        .map(|(code, _)| code)
        .filter(|code| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The status of the answer, as the library says it.
fn status_of(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// An error on one line, with the code of what is XML, and without what the library says of itself.
pub(super) fn in_short(said: &str) -> String {
    let said = OF_LIBRARY.iter().find_map(|start| said.strip_prefix(start)).unwrap_or(said);
    let said = &without_retries(said);
    let start = ["<?xml", "<Error"].iter().find_map(|start| said.find(start));
    let short = start
        .and_then(|start| said.get(..start))
        .map_or_else(|| said.to_owned(), |before| format!("{before}{}", code_of(said).unwrap_or("an answer that cannot be read")));
    short.replace(|letter: char| letter.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(line: &str, code: &str) -> String {
        format!(
            "Generic S3 error: Error performing list request: Error performing GET http://a/models in 1ms - Server returned non-2xx status code: {line}: <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>x</Message></Error>"
        )
    }

    #[test]
    fn what_is_set_wrong_is_named_with_what_to_set() {
        let access = Access { bucket: "models".to_owned(), endpoint: Some("http://a".to_owned()), key: Some("ann".to_owned()) };
        let said = |line, code| access.meant(&status(line, code), false).unwrap_or_default();
        for (line, code, says) in [
            (
                "403 Forbidden",
                "SignatureDoesNotMatch",
                "the key id ann is not let into the bucket models at http://a (SignatureDoesNotMatch); set AWS_",
            ),
            (
                "404 Not Found",
                "NoSuchBucket",
                "there is no bucket models at http://a (NoSuchBucket); make it, or name another one in --registry",
            ),
            ("301 Moved Permanently", "PermanentRedirect", "is in another region (PermanentRedirect); set registry.s3.region"),
        ] {
            assert!(said(line, code).contains(says), "{}", said(line, code));
        }
        assert_eq!(access.meant(&status("503 Service Unavailable", "SlowDown"), false), None);
        assert_eq!(access.meant("Generic S3 error: HTTP error: error sending request", false), None);
        let nobody = Access { key: None, ..access };
        let none = nobody.meant("Generic S3 error: Error performing PUT http://b/latest/api/token in 2s - HTTP error", false);
        assert!(none.is_some_and(|none| none.starts_with("there are no credentials for the bucket models at http://a")));
        assert!(nobody.meant("", true).is_some_and(|why| why.starts_with("the role of this machine is not let into")));
    }

    #[test]
    fn xml_is_told_by_its_code() {
        assert!(in_short(&status("503 Service Unavailable", "SlowDown")).ends_with("status code: 503 Service Unavailable: SlowDown"));
        assert!(in_short(&status("500 x", "<a>")).ends_with("500 x: an answer that cannot be read"));
        assert_eq!(in_short("one\ntwo"), "one two");
    }

    #[test]
    fn the_library_is_nobodys_business() {
        assert_eq!(in_short("Generic LocalFileSystem error: Unable to open file /a: x"), "Unable to open file /a: x");
        let retried =
            "Generic S3 error: Error performing GET http://a in 2s, after 75 retries, max_retries: 1000, retry_timeout: 2s  - HTTP error";
        assert_eq!(in_short(retried), "Error performing GET http://a in 2s  - HTTP error");
        assert_eq!(in_short("closed, after all"), "closed, after all");
    }
}
