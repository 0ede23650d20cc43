//! Reading versions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use super::manifest::{FORM, Manifest, ManifestFault, Sealed};
use super::names::{Name, Reference, Which};
use super::open::Registry;
use super::sign::{Signature, TrustedKey};
use crate::vocabulary::read_version;

/// That an artefact was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Of this form.
    pub form: u8,
    /// Who removed it.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub removed_ms: u64,
}

/// A version, as the registry has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Version {
    /// What it is.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// That its artefact is gone.
    pub removed: Option<Removed>,
    /// Who vouches for it.
    pub signature: Option<Signature>,
    /// What is signed.
    #[serde(skip)]
    pub(super) signed: Vec<u8>,
}

/// The versions of a model, from the first on.
#[derive(Debug, Default)]
pub struct Found {
    /// That can be read.
    pub versions: Vec<Version>,
    /// Whose manifests somebody changed or broke.
    pub unreadable: Vec<(u64, RegistryError)>,
}

impl Version {
    /// Whether one of these keys vouches for it. Without keys nobody has to.
    ///
    /// # Errors
    /// [`RegistryError::Untrusted`].
    pub fn check_signature(&self, keys: &[TrustedKey]) -> Result<(), RegistryError> {
        if keys.is_empty() {
            return Ok(());
        }
        let Manifest { model, version, .. } = &self.manifest;
        let refuse = |why: String| Err(RegistryError::Untrusted { model: model.clone(), version: *version, why });
        let known = || keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", ");
        match &self.signature {
            None => refuse("nobody signed it".to_owned()),
            Some(signature) => match keys.iter().find(|key| key.id == signature.key) {
                None => refuse(format!(
                    "it is signed with the key {}, and trusted are {}",
                    signature.key.chars().take(64).collect::<String>(),
                    known()
                )),
                Some(key) if key.vouches(signature, &self.signed) => Ok(()),
                Some(key) => refuse(format!("it was changed after it was signed with the key {}", key.id)),
            },
        }
    }
}

impl Registry {
    /// The names of all models that have a version.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn models_there(&self) -> Result<Vec<Name>, RegistryError> {
        let mut there = Vec::new();
        for name in self.models_begun().await? {
            // A push that is under way, or was killed, is seen by nobody.
            if !self.numbers(&name).await?.is_empty() {
                there.push(name);
            }
        }
        Ok(there)
    }

    /// The names of all models that somebody ever pushed something to, done or not.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn models_begun(&self) -> Result<Vec<Name>, RegistryError> {
        let mut names: Vec<Name> = self.folders(&self.models()).await?.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The numbers of a model's versions, from the first on; those of removed ones, too.
    pub(super) async fn numbers(&self, model: &Name) -> Result<Vec<u64>, RegistryError> {
        let below = self.below(&self.path(model, "versions")).await?;
        let numbers = below.iter().filter_map(|object| {
            let mut parts = object.location.parts().rev();
            let is_manifest = parts.next().is_some_and(|name| name.as_ref() == "manifest.json");
            read_version(parts.next()?.as_ref()).filter(|_| is_manifest)
        });
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The numbers of a model's versions whose artefacts are there: one question, however many there are.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn numbers_there(&self, model: &Name) -> Result<BTreeSet<u64>, RegistryError> {
        let (mut there, mut removed) = (BTreeSet::new(), BTreeSet::new());
        for object in self.below(&self.path(model, "versions")).await? {
            let mut parts = object.location.parts().rev();
            let (name, number) = (parts.next(), parts.next().and_then(|number| read_version(number.as_ref())));
            match (name.as_ref().map(AsRef::as_ref), number) {
                (Some("manifest.json"), Some(number)) => drop(there.insert(number)),
                (Some("removed.json"), Some(number)) => drop(removed.insert(number)),
                _ => {}
            }
        }
        Ok(&there - &removed)
    }

    /// All versions of a model, from the first on.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn versions(&self, model: &Name) -> Result<Vec<Version>, RegistryError> {
        let Found { versions, unreadable } = self.versions_found(model).await?;
        match unreadable.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(versions),
        }
    }

    /// Those of a model's newest versions, so many, that cannot be read, and why.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn unreadable(&self, model: &Name, newest: usize) -> Result<Vec<RegistryError>, RegistryError> {
        let mut unreadable = Vec::new();
        for number in self.numbers(model).await?.into_iter().rev().take(newest) {
            match self.version_there(model, number).await {
                Ok(_) => {}
                Err(error @ RegistryError::Object { .. }) => unreadable.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(unreadable)
    }

    /// All versions of a model, and those that cannot be read.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub async fn versions_found(&self, model: &Name) -> Result<Found, RegistryError> {
        let mut found = Found::default();
        for number in self.numbers(model).await? {
            match self.version_there(model, number).await {
                Ok(version) => found.versions.extend(version),
                Err(error @ RegistryError::Object { .. }) => found.unreadable.push((number, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The version that is meant.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] where there is none; [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn version(&self, wanted: &Reference) -> Result<Version, RegistryError> {
        let model = &wanted.model;
        let number = match &wanted.which {
            Which::Number(number) => Some(*number),
            Which::Alias(alias) => self.alias(model, alias).await?.and_then(|last| last.version),
            Which::Newest => {
                for number in self.numbers(model).await?.into_iter().rev() {
                    if let Some(version) = self.version_there(model, number).await?.filter(|version| version.removed.is_none()) {
                        return Ok(version);
                    }
                }
                None
            }
        };
        let found = match number {
            Some(number) => self.version_there(model, number).await?,
            None => None,
        };
        match found {
            Some(version) => Ok(version),
            None => Err(self.unknown(wanted).await?),
        }
    }

    async fn version_there(&self, model: &Name, number: u64) -> Result<Option<Version>, RegistryError> {
        let path = self.path(model, &format!("versions/{number}/manifest.json"));
        let Some(text) = self.small(&path).await? else { return Ok(None) };
        let object = |fault| RegistryError::Object { path: path.to_string(), fault };
        let Sealed { manifest, signature, signed } = Sealed::read(&text).map_err(object)?;
        if manifest.version != number || manifest.model != *model {
            let fault = format!("it says that it is {}:{}", manifest.model, manifest.version);
            return Err(object(ManifestFault(fault)));
        }
        let removed = self.small(&self.path(model, &format!("versions/{number}/removed.json"))).await?;
        // However it reads: it is there, and so the artefact is not.
        let unknown = || Removed { form: FORM, who: "somebody".to_owned(), removed_ms: 0 };
        let removed = removed.map(|text| serde_json::from_slice(&text).unwrap_or_else(|_| unknown()));
        Ok(Some(Version { manifest, removed, signature, signed }))
    }

    /// What there is instead.
    async fn unknown(&self, wanted: &Reference) -> Result<RegistryError, RegistryError> {
        let numbers = self.numbers(&wanted.model).await?;
        let hint = match (numbers.first(), numbers.last(), &wanted.which) {
            (Some(_), Some(_), Which::Alias(_)) => {
                let aliases: Vec<String> = self.aliases(&wanted.model).await?.into_iter().map(|(alias, _)| alias.to_string()).collect();
                if aliases.is_empty() { "; the model has no alias".to_owned() } else { format!("; its aliases are {}", aliases.join(", ")) }
            }
            (Some(first), Some(last), _) => format!("; it has the versions {first} to {last}"),
            _ => {
                let models: Vec<String> = self.models_there().await?.iter().map(ToString::to_string).collect();
                if models.is_empty() { "; it is empty".to_owned() } else { format!("; its models are {}", models.join(", ")) }
            }
        };
        Ok(RegistryError::Unknown { wanted: wanted.clone(), place: self.place(), hint })
    }
}
