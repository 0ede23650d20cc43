//! `[registry]` and `[registry.s3]`: where model versions are.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::written;

const URL_RULE: &str = "must be a URL like \"file:///var/lib/switchback/models\" or \"s3://bucket/prefix\"";
const ENDPOINT_RULE: &str = "must be a URL like \"https://minio.example.org:9000\", without a path";
const REGION_RULE: &str = "must be a region's name like \"eu-central-1\": letters, digits and -";
const PROFILE_RULE: &str = "must be the name of a profile in the shared credentials file";
const CA_RULE: &str = "must be the path of a file with the authorities of the endpoint, in PEM";
/// Keys are tried one after the other.
const KEYS: usize = 16;
const KEYS_RULE: &str = "must be up to 16 paths of files with a public key of Ed25519 in PEM each";
const S3_RULE: &str = "is for a registry.url that begins with s3://";

/// Where model versions are, and how they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// The folder, or the bucket.
    pub place: Place,
    /// How the bucket is reached.
    pub s3: S3,
    /// For how long a store that is away is tried again.
    pub retry_for: Duration,
    /// The largest artefact.
    pub artefact_bytes: u64,
    /// Files of public keys: a version that none of them signed is not deployed. Without any, nobody has to sign. 0..=16.
    pub trusted_keys: Vec<PathBuf>,
}

/// What holds a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of S3, or of something that speaks it.
    S3 {
        /// Its name.
        bucket: String,
        /// What all keys begin with; may be empty.
        prefix: String,
    },
}

/// How a bucket is reached, beside what the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3 {
    /// Of a service that is not AWS's.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// The bucket is the first part of the path, and not of the host. By default it is, where there is an endpoint.
    pub path_style: Option<bool>,
    /// Of the shared credentials file.
    pub profile: Option<String>,
    /// Who may vouch for the endpoint beside the system's authorities.
    pub ca_file: Option<PathBuf>,
}

impl Place {
    /// Reads a URL.
    #[must_use]
    pub fn parse(url: &str) -> Option<Place> {
        if let Some(path) = url.strip_prefix("file://") {
            let is_folder = path.starts_with('/') && !path.contains(['?', '#', '\0']) && !path.split('/').any(|part| part == "..");
            return is_folder.then(|| Place::Folder(PathBuf::from(path)));
        }
        let (bucket, prefix) = url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
        let is_bucket = (3..=63).contains(&bucket.len()) && bucket.bytes().all(is_letter);
        let prefix = prefix.trim_end_matches('/');
        let is_part = |part: &str| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'=' | b'+');
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_letter)
        };
        let is_prefix = prefix.len() <= 512 && (prefix.is_empty() || prefix.split('/').all(is_part));
        (is_bucket && is_prefix).then(|| Place::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// The URL.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => write!(out, "file://{}", path.display()),
            Place::S3 { bucket, prefix } if prefix.is_empty() => write!(out, "s3://{bucket}"),
            Place::S3 { bucket, prefix } => write!(out, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Registry {
    /// The registry of a URL, everything else as by default.
    #[must_use]
    pub fn at(place: Place) -> Registry {
        Registry { place, s3: S3::default(), retry_for: Duration::from_secs(30), artefact_bytes: 10 << 30, trusted_keys: Vec::new() }
    }
}

/// `default` is the folder of a config that names no other place.
pub(super) fn check_registry(checker: &mut Checker, written: written::Registry, default: PathBuf) -> Registry {
    let place = written.url.as_deref().and_then(Place::parse);
    if let (Some(url), None) = (&written.url, &place) {
        checker.refuse("registry.url", url, URL_RULE);
    }
    let is_s3 = matches!(place, Some(Place::S3 { .. })) || (written.url.is_some() && place.is_none());
    let registry = Registry::at(place.unwrap_or(Place::Folder(default)));
    Registry {
        s3: written.s3.map(|written| check_s3(checker, written, is_s3)).unwrap_or_default(),
        retry_for: checker.duration(
            "registry.retry_for",
            written.retry_for.as_deref(),
            registry.retry_for,
            Duration::from_secs(1),
            Duration::from_secs(280),
        ),
        artefact_bytes: checker.bytes(
            "registry.artefact_bytes",
            written.artefact_bytes.as_deref(),
            registry.artefact_bytes,
            1 << 10,
            1 << 40,
        ),
        trusted_keys: check_keys(checker, written.trusted_keys.unwrap_or_default()),
        place: registry.place,
    }
}

fn check_keys(checker: &mut Checker, files: Vec<String>) -> Vec<PathBuf> {
    if files.len() > KEYS {
        checker.refuse("registry.trusted_keys", files.len(), KEYS_RULE);
    }
    for (index, file) in files.iter().enumerate().filter(|(_, file)| file.is_empty()) {
        checker.refuse(&format!("registry.trusted_keys[{index}]"), file, KEYS_RULE);
    }
    files.into_iter().map(PathBuf::from).collect()
}

fn check_s3(checker: &mut Checker, written: written::S3, is_s3: bool) -> S3 {
    if !is_s3 {
        checker.refuse_as_written("registry.s3", "{ ... }".to_owned(), S3_RULE.to_owned());
    }
    let is_endpoint = |url: &str| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|host| !host.is_empty() && host.parse::<http::uri::Authority>().is_ok() && !host.contains('@'))
    };
    let is_region =
        |region: &str| (1..=64).contains(&region.len()) && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_text = |text: &str| (1..=128).contains(&text.len()) && !text.contains(char::is_control);
    let endpoint = written.endpoint.map(|url| url.trim_end_matches('/').to_owned());
    let mut check = |key: &str, value: &Option<String>, is_good: &dyn Fn(&str) -> bool, rule: &str| {
        if let Some(value) = value.as_deref().filter(|value| !is_good(value)) {
            checker.refuse(key, value, rule);
        }
    };
    check("registry.s3.endpoint", &endpoint, &is_endpoint, ENDPOINT_RULE);
    check("registry.s3.region", &written.region, &is_region, REGION_RULE);
    check("registry.s3.profile", &written.profile, &is_text, PROFILE_RULE);
    check("registry.s3.ca_file", &written.ca_file, &|path| !path.is_empty(), CA_RULE);
    S3 {
        endpoint,
        region: written.region,
        path_style: written.path_style,
        profile: written.profile,
        ca_file: written.ca_file.map(PathBuf::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_back() {
        for url in ["file:///var/lib/models", "s3://bucket", "s3://my-bucket/a/b_c"] {
            assert_eq!(Place::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Place::parse("s3://bucket/a/"), Place::parse("s3://bucket/a"));
        for wrong in [
            "",
            "models",
            "file://models",
            "file:///a/../b",
            "s3://",
            "s3://b",
            "s3://UPPER",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "gs://bucket",
        ] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let said = |url: &str, s3: written::S3| {
            let mut checker = Checker::default();
            let retry_for = Some("1h".to_owned());
            let trusted_keys = Some(vec!["ci.pub".to_owned(), String::new()]);
            let written = written::Registry { url: Some(url.to_owned()), s3: Some(s3), retry_for, artefact_bytes: None, trusted_keys };
            check_registry(&mut checker, written, PathBuf::from("/models"));
            checker.said()
        };
        let s3 = || written::S3 { endpoint: Some("minio:9000".to_owned()), region: Some("a b".to_owned()), ..written::S3::default() };
        let all = said("s3://bucket", s3());
        for key in ["registry.s3.endpoint = \"minio:9000\"", "registry.s3.region = \"a b\"", "registry.retry_for = \"1h\""] {
            assert!(all.contains(key), "{all}");
        }
        assert!(all.contains("registry.trusted_keys[1] = \"\": must be up to 16 paths") && !all.contains("trusted_keys[0]"), "{all}");
        let many = written::Registry { trusted_keys: Some(vec!["ci.pub".to_owned(); 17]), ..written::Registry::default() };
        let mut checker = Checker::default();
        check_registry(&mut checker, many, PathBuf::from("/models"));
        assert!(checker.said().contains("registry.trusted_keys = 17: must be up to 16 paths"));
        assert!(said("file:///models", written::S3::default()).contains("is for a registry.url that begins with s3://"));
        assert!(said("models", s3()).contains("registry.url = \"models\": must be a URL like"));
    }
}
