//! Aliases: names that point to a version. Each move is an object of its own, created at the next number, so that two who move one at a time cannot both be next,
//! and everybody can read where it was when.

use serde::{Deserialize, Serialize};

use super::error::RegistryError;
use super::manifest::{FORM, ManifestFault};
use super::names::{Name, Reference, Which};
use super::open::{Registry, after};
use crate::vocabulary::read_version;

/// So many others may be first where it does not matter from where it is moved.
const TRIES: u32 = 1_000;

/// One move of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasMove {
    /// Of this form.
    pub form: u8,
    /// Random: whoever lost the answer to a move finds it by this.
    pub id: String,
    /// Where it points from then on; `None`: nowhere.
    pub version: Option<u64>,
    /// Where it pointed before.
    pub before: Option<u64>,
    /// Who moved it.
    pub who: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// When, in milliseconds since 1970.
    pub moved_ms: u64,
}

impl AliasMove {
    /// A move to a version, or to none.
    #[must_use]
    pub fn to(version: Option<u64>, who: String, why: String, moved_ms: u64, id: String) -> AliasMove {
        AliasMove { form: FORM, id, version, before: None, who, why, moved_ms }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn read(text: &[u8]) -> Result<AliasMove, ManifestFault> {
        let moved: AliasMove = serde_json::from_slice(text).map_err(|error| ManifestFault(error.to_string()))?;
        match moved.form {
            FORM => Ok(moved),
            form => Err(ManifestFault(format!("form = {form}: must be {FORM}: another one was written by a newer Switchback"))),
        }
    }
}

/// Where an alias has to be for it to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Wherever it is.
    Anywhere,
    /// Here; `None`: nowhere.
    At(Option<u64>),
}

impl Registry {
    /// All aliases of a model that point somewhere, and their last moves.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn aliases(&self, model: &Name) -> Result<Vec<(Name, AliasMove)>, RegistryError> {
        let mut found = Vec::new();
        for name in self.folders(&self.path(model, "aliases")).await? {
            let Ok(alias) = name.parse::<Name>() else { continue };
            if let Some(last) = self.alias(model, &alias).await?.filter(|last| last.version.is_some()) {
                found.push((alias, last));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The last moves of all aliases, also of those that point nowhere now.
    pub(super) async fn last_moves(&self, model: &Name) -> Result<Vec<AliasMove>, RegistryError> {
        let mut moves = Vec::new();
        for name in self.folders(&self.path(model, "aliases")).await? {
            if let Ok(alias) = name.parse::<Name>() {
                moves.extend(self.alias(model, &alias).await?);
            }
        }
        Ok(moves)
    }

    /// An alias's last move; `None` where there never was one.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn alias(&self, model: &Name, alias: &Name) -> Result<Option<AliasMove>, RegistryError> {
        Ok(self.last_move(model, alias).await?.map(|(_, last)| last))
    }

    /// All moves of an alias, the first one first.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn alias_history(&self, model: &Name, alias: &Name) -> Result<Vec<AliasMove>, RegistryError> {
        let mut moves = Vec::new();
        for number in self.moves(model, alias).await? {
            moves.extend(self.one_move(model, alias, number).await?);
        }
        Ok(moves)
    }

    /// Moves an alias, by compare-and-set. `to` is what is to be written but for `before`, which is what it was found at.
    ///
    /// # Errors
    /// [`RegistryError::Moved`] where it is not where it should be, [`RegistryError::Unknown`] for a version that is not there,
    /// [`RegistryError::Alias`] for a name that would be taken for a version.
    pub async fn move_alias(&self, model: &Name, alias: &Name, to: AliasMove, expected: Expected) -> Result<AliasMove, RegistryError> {
        // One that is there already can be taken away.
        to.version.map_or(Ok(()), |_| alias.check_as_alias())?;
        self.is_there(model, to.version).await?;
        let moved = self.write_move(model, alias, &to, expected).await?;
        // Retention looks for aliases after it said that it removes a version: of the two, one sees the other.
        if let Err(error) = self.is_there(model, to.version).await {
            let back = AliasMove { version: moved.before, id: format!("{}-back", to.id), ..to };
            self.write_move(model, alias, &back, Expected::At(moved.version)).await?;
            return Err(error);
        }
        Ok(moved)
    }

    async fn is_there(&self, model: &Name, version: Option<u64>) -> Result<(), RegistryError> {
        let Some(number) = version else { return Ok(()) };
        let found = self.version(&Reference { model: model.clone(), which: Which::Number(number) }).await?;
        found.removed.map_or(Ok(()), |removed| Err(RegistryError::Removed { model: model.clone(), version: number, who: removed.who }))
    }

    async fn write_move(&self, model: &Name, alias: &Name, to: &AliasMove, expected: Expected) -> Result<AliasMove, RegistryError> {
        for _ in 0..TRIES {
            let last = self.last_move(model, alias).await?;
            let (number, is) = last.as_ref().map_or((0, None), |(number, last)| (*number, last.version));
            if let Expected::At(at) = expected
                && at != is
            {
                let words = |at: Option<u64>| at.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
                let (is, expected) = (words(is), words(at));
                return Err(RegistryError::Moved { model: model.clone(), alias: alias.clone(), is, expected });
            }
            // It is there already: that is no move, and what it pointed to before stays known.
            if let Some((_, last)) = last.filter(|(_, last)| last.version == to.version) {
                return Ok(last);
            }
            let next = AliasMove { form: FORM, before: is, ..to.clone() };
            let path = |number: u64| self.path(model, &format!("aliases/{alias}/{number}.json"));
            let number = after((number > 0).then_some(number), path)?;
            if self.create(&path(number), serde_json::to_vec_pretty(&next).unwrap_or_default()).await? {
                return Ok(next);
            }
            let there = self.one_move(model, alias, number).await?;
            if there.is_some_and(|there| there.id == next.id) {
                return Ok(next);
            }
        }
        Err(RegistryError::Busy { model: model.clone(), tries: TRIES })
    }

    async fn last_move(&self, model: &Name, alias: &Name) -> Result<Option<(u64, AliasMove)>, RegistryError> {
        let Some(number) = self.moves(model, alias).await?.last().copied() else { return Ok(None) };
        Ok(self.one_move(model, alias, number).await?.map(|last| (number, last)))
    }

    async fn moves(&self, model: &Name, alias: &Name) -> Result<Vec<u64>, RegistryError> {
        let below = self.below(&self.path(model, &format!("aliases/{alias}"))).await?;
        let names = below.iter().filter_map(|object| object.location.filename());
        let mut numbers: Vec<u64> = names.filter_map(|name| read_version(name.strip_suffix(".json")?)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn one_move(&self, model: &Name, alias: &Name, number: u64) -> Result<Option<AliasMove>, RegistryError> {
        let path = self.path(model, &format!("aliases/{alias}/{number}.json"));
        let Some(text) = self.small(&path).await? else { return Ok(None) };
        AliasMove::read(&text).map(Some).map_err(|fault| RegistryError::Object { path: path.to_string(), fault })
    }
}
