//! What the environment and the shared files of AWS say: keys, region, endpoint. The environment comes first, as everywhere.

use std::path::PathBuf;

use ini::Ini;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::config::S3;
use crate::registry::RegistryError;

/// Keys of a profile, in the files' names.
const KEYS: [(&str, AmazonS3ConfigKey); 4] = [
    ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
    ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
    ("aws_session_token", AmazonS3ConfigKey::Token),
    ("region", AmazonS3ConfigKey::Region),
];

/// A builder that knows what this machine says of a bucket's service.
///
/// # Errors
/// A profile that was asked for and is not there, or a file that is no INI.
pub(super) fn from_machine(s3: &S3) -> Result<AmazonS3Builder, RegistryError> {
    let mut builder = AmazonS3Builder::from_env();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if variable("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(builder);
    }
    let asked = s3.profile.clone().or_else(|| variable("AWS_PROFILE"));
    let profile = asked.clone().unwrap_or_else(|| "default".to_owned());
    let home = |name: &str| variable("HOME").map(|home| PathBuf::from(home).join(".aws").join(name));
    let files = [
        (variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(|| home("credentials")), profile.clone()),
        // There, every profile but the default one has the word before its name.
        (
            variable("AWS_CONFIG_FILE").map(PathBuf::from).or_else(|| home("config")),
            if profile == "default" { profile.clone() } else { format!("profile {profile}") },
        ),
    ];
    let mut is_found = false;
    for (file, section) in files {
        let Some(file) = file.filter(|file| file.is_file()) else { continue };
        let read = Ini::load_from_file(&file).map_err(|error| RegistryError::Config {
            key: "registry.s3.profile",
            value: profile.clone(),
            why: format!("{} cannot be read: {error}", file.display()),
        })?;
        let Some(section) = read.section(Some(section)) else { continue };
        is_found = true;
        for (name, key) in KEYS {
            let is_set = builder.get_config_value(&key).is_some();
            if let Some(value) = section.get(name).filter(|_| !is_set) {
                builder = builder.with_config(key, value);
            }
        }
    }
    if asked.is_some() && !is_found {
        let why = "there is no such profile in the shared credentials file, nor in the config file".to_owned();
        return Err(RegistryError::Config { key: "registry.s3.profile", value: profile, why });
    }
    Ok(builder)
}
