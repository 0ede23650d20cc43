//! Reports of validations beside a version: each is created once, at the next number. The newest one counts.

use bytes::Bytes;
use object_store::path::Path;
use sha2::{Digest as _, Sha256};

use super::error::RegistryError;
use super::manifest::ManifestFault;
use super::names::Name;
use super::open::{Registry, after};
use crate::vocabulary::read_version;

/// So many others may be first.
const TRIES: u32 = 1_000;
/// Reports that are read of one version, at most.
const REPORTS: usize = 100;
/// The largest set of golden queries.
const GOLDEN_BYTES: u64 = 64 << 20;

/// A report, and the golden queries that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReport {
    /// From 1 on.
    pub number: u64,
    /// JSON.
    pub report: Vec<u8>,
}

impl Registry {
    /// Stores a report beside its version, and golden queries under their SHA-256. Its number.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Busy`], [`RegistryError::Full`].
    pub async fn store_report(
        &self,
        model: &Name,
        number: u64,
        report: &[u8],
        golden: Option<(&str, &[u8])>,
    ) -> Result<u64, RegistryError> {
        if let Some((sha256, golden)) = golden {
            // The same queries and scores are the same object.
            self.create(&self.golden_path(model, number, sha256), golden.to_vec()).await?;
        }
        let last = self.report_numbers(model, number).await?.last().copied();
        let mut next = after(last, |report| self.report_path(model, number, report))?;
        for _ in 0..TRIES {
            if self.create(&self.report_path(model, number, next), report.to_vec()).await? {
                return Ok(next);
            }
            // Somebody has it; or we do, and the answer to it was lost.
            if self.small(&self.report_path(model, number, next)).await?.is_some_and(|there| there == report) {
                return Ok(next);
            }
            next = next.saturating_add(1);
        }
        Err(RegistryError::Busy { model: model.clone(), tries: TRIES })
    }

    /// The newest report on a version.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn newest_report(&self, model: &Name, number: u64) -> Result<Option<StoredReport>, RegistryError> {
        let Some(newest) = self.report_numbers(model, number).await?.last().copied() else { return Ok(None) };
        let report = self.small(&self.report_path(model, number, newest)).await?;
        Ok(report.map(|report| StoredReport { number: newest, report }))
    }

    /// The reports on a version, the first one first; of more than [`REPORTS`] the newest.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn reports(&self, model: &Name, number: u64) -> Result<Vec<StoredReport>, RegistryError> {
        let numbers = self.report_numbers(model, number).await?;
        let mut found = Vec::new();
        for report in numbers.iter().skip(numbers.len().saturating_sub(REPORTS)) {
            let text = self.small(&self.report_path(model, number, *report)).await?;
            found.extend(text.map(|text| StoredReport { number: *report, report: text }));
        }
        Ok(found)
    }

    /// Golden queries with a version's scores, as JSON lines.
    ///
    /// # Errors
    /// [`RegistryError::Away`], [`RegistryError::Object`].
    pub async fn golden(&self, model: &Name, number: u64, sha256: &str) -> Result<Option<Bytes>, RegistryError> {
        let path = self.golden_path(model, number, sha256);
        let Some(found) = self.whole(&path, GOLDEN_BYTES).await? else { return Ok(None) };
        let is = hex::encode(Sha256::digest(&found));
        if is != sha256 {
            let fault = ManifestFault(format!("its SHA-256 is {is}"));
            return Err(RegistryError::Object { path: path.to_string(), fault });
        }
        Ok(Some(found))
    }

    fn report_path(&self, model: &Name, number: u64, report: u64) -> Path {
        self.path(model, &format!("versions/{number}/reports/{report}.json"))
    }

    fn golden_path(&self, model: &Name, number: u64, sha256: &str) -> Path {
        self.path(model, &format!("versions/{number}/golden/{sha256}.jsonl"))
    }

    async fn report_numbers(&self, model: &Name, number: u64) -> Result<Vec<u64>, RegistryError> {
        let below = self.below(&self.path(model, &format!("versions/{number}/reports"))).await?;
        let numbers = below.iter().filter_map(|object| read_version(object.location.filename()?.strip_suffix(".json")?));
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}
