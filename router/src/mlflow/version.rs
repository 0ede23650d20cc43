//! One version of a registered model: what MLflow knows of it, and its files.

use std::path::Path;

use form_urlencoded::Serializer;

use super::answers::{ModelVersion, Run, RunFound, UriFound, VersionFound};
use super::described::described;
use super::error::MlflowError;
use super::mlmodel::{MLMODEL_BYTES, MlModel, is_inside};
use super::model_uri::{ModelUri, Picked, version};
use super::tracking::Tracking;
use crate::registry::{About, Progress};

/// The longest text of the server's that is repeated, in characters.
const SAID_CHARS: usize = 200;

/// A version, as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// How it was asked for.
    asked: ModelUri,
    /// Its number, from 1 on.
    pub number: u64,
    /// What is said of it.
    pub about: About,
    /// The names of metrics, tags and parameters that a manifest has no room for, or that are no numbers.
    pub left_out: Vec<String>,
    /// Where its files are, as the server says.
    location: String,
    /// Its files are those of a run, below this path.
    of_run: Option<(String, String)>,
}

impl Version {
    /// Asks for it, and for its run.
    ///
    /// # Errors
    /// [`MlflowError`]; where there is no such version, what the server says about that.
    pub async fn find(tracking: &Tracking, asked: &ModelUri) -> Result<Version, MlflowError> {
        let name = asked.model.as_str();
        let unusable = |why: String| MlflowError::Unusable { what: asked.to_string(), why };
        let path = match &asked.picked {
            Picked::Alias(alias) => with("/api/2.0/mlflow/registered-models/alias", &[("name", name), ("alias", alias)]),
            Picked::Version(number) => with("/api/2.0/mlflow/model-versions/get", &[("name", name), ("version", &number.to_string())]),
        };
        let VersionFound { model_version: found } = tracking.json(&path, &asked.to_string()).await?;
        let number = version(&found.version).ok_or_else(|| unusable(format!("its version is {:?}", cut(&found.version))))?;
        if found.name != name {
            return Err(unusable(format!("the server answers with the model {:?}", cut(&found.name))));
        }
        if !matches!(found.status.as_str(), "READY" | "") {
            return Err(unusable(format!("version {number} is not ready: {} {}", cut(&found.status), cut(&found.status_message))));
        }
        let path = with("/api/2.0/mlflow/model-versions/get-download-uri", &[("name", name), ("version", &found.version)]);
        let UriFound { artifact_uri: location } = tracking.json(&path, &asked.to_string()).await?;
        let of_run = of_run(&location).map_err(unusable)?;
        let run = run_of(tracking, &found).await?;
        let (about, left_out) = described(&found, run.as_ref(), tracking.url());
        Ok(Version { asked: asked.clone(), number, about, left_out, location: cut(&location), of_run })
    }

    /// What its file `MLmodel` says.
    ///
    /// # Errors
    /// [`MlflowError`].
    pub async fn mlmodel(&self, tracking: &Tracking) -> Result<MlModel, MlflowError> {
        let what = format!("{} of {}", "MLmodel", self.asked);
        let text = tracking.bytes(&self.file("MLmodel"), &what, MLMODEL_BYTES).await.map_err(|error| self.explained(error))?;
        MlModel::read(&text).map_err(|why| MlflowError::Unusable { what, why })
    }

    /// Copies one of its files, of so many bytes at most, to a place of this machine.
    ///
    /// # Errors
    /// [`MlflowError`]; what is there then is not all of it.
    pub async fn fetch(
        &self,
        tracking: &Tracking,
        path: &str,
        (to, most): (&Path, u64),
        progress: &dyn Fn(Progress),
    ) -> Result<(), MlflowError> {
        let what = format!("{path} of {}", self.asked);
        if !is_inside(path) {
            return Err(MlflowError::Unusable { what, why: "must be a path inside the model".to_owned() });
        }
        let fetched = tracking.download(&self.file(path), &what, (to, most), progress).await;
        fetched.map_err(|error| self.explained(error))
    }

    /// The request for one of its files. The server reads it from wherever it is: a folder, or a bucket that it has the keys of.
    fn file(&self, path: &str) -> String {
        match &self.of_run {
            Some((run, folder)) if folder.is_empty() => with("/get-artifact", &[("run_id", run), ("path", path)]),
            Some((run, folder)) => with("/get-artifact", &[("run_id", run), ("path", &format!("{folder}/{path}"))]),
            None => {
                let number = self.number.to_string();
                with("/model-versions/get-artifact", &[("name", &self.asked.model), ("version", &number), ("path", path)])
            }
        }
    }

    /// What a server that cannot read its own artifacts is to be started with.
    fn explained(&self, error: MlflowError) -> MlflowError {
        let is_proxied = ["mlflow-artifacts:", "runs:"].iter().any(|scheme| self.location.starts_with(scheme));
        match error {
            MlflowError::Away { server, why } if !is_proxied => {
                let location = &self.location;
                let hint = format!(
                    "{why}. Its artifacts are at {location}, and nobody but the server is asked for them: it has to reach that place itself (mlflow server --serve-artifacts --artifacts-destination ..., with the credentials of the store)"
                );
                MlflowError::Away { server, why: hint }
            }
            error => error,
        }
    }
}

/// The run and the folder of `runs:/RUN/FOLDER`, which the server does not resolve by itself; `None` for any other place.
fn of_run(location: &str) -> Result<Option<(String, String)>, String> {
    let Some(rest) = location.strip_prefix("runs:/") else { return Ok(None) };
    let (run, folder) = rest.split_once('/').unwrap_or((rest, ""));
    let is_run = (1..=64).contains(&run.len()) && run.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let folder = folder.trim_end_matches('/');
    if is_run && (folder.is_empty() || is_inside(folder)) {
        Ok(Some((run.to_owned(), folder.to_owned())))
    } else {
        Err(format!("its files are at {:?}: must be runs:/RUN/FOLDER", cut(location)))
    }
}

/// The run that made it; `None` where it names none, or one that is gone.
async fn run_of(tracking: &Tracking, found: &ModelVersion) -> Result<Option<Run>, MlflowError> {
    if found.run_id.is_empty() {
        return Ok(None);
    }
    let what = format!("the run {}", cut(&found.run_id));
    match tracking.json(&with("/api/2.0/mlflow/runs/get", &[("run_id", &found.run_id)]), &what).await {
        Ok(RunFound { run }) => Ok(Some(run)),
        Err(MlflowError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn with(path: &str, query: &[(&str, &str)]) -> String {
    let query = Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

fn cut(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_run_are_asked_for_by_the_run() {
        assert_eq!(of_run("mlflow-artifacts:/0/models/m-1/artifacts"), Ok(None));
        assert_eq!(of_run("s3://bucket/x"), Ok(None));
        assert_eq!(of_run("runs:/29dac4/model"), Ok(Some(("29dac4".to_owned(), "model".to_owned()))));
        assert_eq!(of_run("runs:/29dac4"), Ok(Some(("29dac4".to_owned(), String::new()))));
        for wrong in ["runs:/", "runs:/a b/model", "runs:/29/../..", "runs:/29//x", "runs://h/29/x", "runs:/29/a%2f.."] {
            assert!(of_run(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_escaped_in_requests() {
        assert_eq!(with("/x", &[("name", "a b&c=d/../é")]), "/x?name=a+b%26c%3Dd%2F..%2F%C3%A9");
    }
}
