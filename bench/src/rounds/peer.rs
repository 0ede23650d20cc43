//! Peers as `bench/peers/NAME/peer.toml` describes them: which program, how it is started, and the configs that are kept beside it.
//!
//! Configs are templates: `@PORT@` and the like (see [`Places`]) are filled in for a run, and lines between `@EACH_ROUTE@` and `@END@` are written
//! once for each of 1,000 routes, with `@N@` for its number.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::process::said_by;

/// Routes of a config with `@EACH_ROUTE@`.
pub(crate) const ROUTES: usize = 1_000;

/// A program that can be measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    /// A name, looked for in the tools folder and on the PATH, or a path with places in it.
    program: String,
    /// How it is started in the foreground.
    arguments: Vec<String>,
    /// How it says whether a config is good. A variant that is not is left out.
    #[serde(default)]
    check: Vec<String>,
    /// How it says its version. Nothing: it has none of its own.
    #[serde(default)]
    version: Vec<String>,
    /// What else it is made of: commands, of which all that they say is added to its version.
    #[serde(default)]
    parts: Vec<Vec<String>>,
    /// Whether it counts what each arm got, and where.
    pub(crate) arms: String,
    pub(crate) variants: BTreeMap<String, Variant>,
    #[serde(skip)]
    folder: PathBuf,
}

/// One of its configs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    /// The config file, beside `peer.toml`; nothing where the arguments say all.
    #[serde(default)]
    config: Option<String>,
    /// Further files that the config names, filled in like it.
    #[serde(default)]
    files: Vec<String>,
    /// Another program than the peer's, where a build of it is compared with another one: a path with places in it.
    #[serde(default)]
    program: Option<String>,
    /// Added to the arguments.
    #[serde(default)]
    arguments: Vec<String>,
    /// Switchback: what has to hold before it is measured.
    #[serde(default)]
    pub(crate) router: Option<RouterState>,
}

/// What a router has to be told, and to say, before it is measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouterState {
    /// The route that is asked about.
    pub(crate) route: String,
    /// Who decides: `policy` or `native`.
    pub(crate) answered_by: String,
    /// A plugin from the tools folder that is uploaded first.
    #[serde(default)]
    pub(crate) plugin: Option<String>,
    /// Flags that are set one after the other, each when the one before is obeyed.
    #[serde(default)]
    pub(crate) flags: Vec<BTreeMap<String, String>>,
}

/// What stands for what in a config.
#[derive(Debug, Clone)]
pub(crate) struct Places(pub(crate) Vec<(&'static str, String)>);

impl Places {
    /// The text with every place filled in.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = each_route(text);
        for (name, value) in &self.0 {
            text = text.replace(name, value);
        }
        text
    }
}

fn each_route(text: &str) -> String {
    let mut filled = String::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match &mut block {
            None if line.contains("@EACH_ROUTE@") => block = Some(String::new()),
            None => filled.extend([line, "\n"]),
            Some(lines) if line.contains("@END@") => {
                for number in 1..=ROUTES {
                    filled.push_str(&lines.replace("@N@", &number.to_string()));
                }
                block = None;
            }
            Some(lines) => lines.extend([line, "\n"]),
        }
    }
    filled
}

impl Peer {
    /// Reads `peer.toml` of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Peer> {
        let file = folder.join("peer.toml");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let peer: Peer = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
        Ok(Peer { folder: folder.to_owned(), ..peer })
    }

    pub(crate) fn variant(&self, name: &str) -> Result<&Variant> {
        self.variants.get(name).with_context(|| format!("no variant {name} in {}/peer.toml", self.folder.display()))
    }

    /// The file of a variant's program.
    pub(crate) fn find(&self, variant: &Variant, tools: &Path, places: &Places) -> Result<PathBuf> {
        let program = places.fill(variant.program.as_ref().unwrap_or(&self.program)).trim_end().to_owned();
        if program.is_empty() {
            bail!("no program was named (--unprofiled)");
        }
        if program.contains('/') {
            let path = PathBuf::from(&program);
            return if path.is_file() { Ok(path) } else { bail!("{program} is not there") };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let folders = [tools.join("bin")].into_iter().chain(std::env::split_paths(&path)).chain(system);
        let found = folders.map(|folder| folder.join(&program)).find(|path| path.is_file());
        found.with_context(|| format!("{program} is not installed (bench/install_peers.sh)"))
    }

    /// The line in which it says its version.
    pub(crate) fn version(&self, program: &Path) -> String {
        if self.version.is_empty() {
            return "of this repository".to_owned();
        }
        let said = said_by(program, &self.version).unwrap_or_else(|error| format!("{error:#}"));
        let line = said.lines().find(|line| line.contains(|letter: char| letter.is_ascii_digit()));
        let own = line.unwrap_or("says none").trim().trim_start_matches(&*program.display().to_string()).trim().to_owned();
        let parts = self.parts.iter().filter_map(|command| command.split_first()).flat_map(|(name, arguments)| {
            let said = said_by(Path::new(name), arguments).unwrap_or_else(|error| format!("{name}: {error:#}"));
            said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        });
        [own].into_iter().chain(parts).collect::<Vec<_>>().join("; ")
    }

    /// Writes a variant's files into a folder, and answers how the program is started with them.
    pub(crate) fn prepare(&self, program: &Path, variant: &Variant, work: &Path, places: &Places) -> Result<Vec<String>> {
        fs::create_dir_all(work)?;
        let mut places = places.clone();
        for file in variant.config.iter().chain(&variant.files) {
            let text = fs::read_to_string(self.folder.join(file)).with_context(|| format!("reading {file}"))?;
            fs::write(work.join(file), places.fill(&text))?;
        }
        if let Some(config) = &variant.config {
            places.0.push(("@CONFIG@", work.join(config).display().to_string()));
        }
        let fill = |arguments: &[String]| arguments.iter().map(|one| places.fill(one).trim_end().to_owned()).collect::<Vec<_>>();
        if !self.check.is_empty() {
            said_by(program, &fill(&self.check))?;
        }
        let mut arguments = fill(&self.arguments);
        arguments.extend(fill(&variant.arguments));
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in() {
        let places = Places(vec![("@PORT@", "80".to_owned())]);
        assert_eq!(places.fill("listen @PORT@;"), "listen 80;\n");
    }

    #[test]
    fn what_is_said_for_each_route_is_said_a_thousand_times() {
        let text = each_route("a\n# @EACH_ROUTE@\nroute @N@\n# @END@\nb\n");
        assert!(text.starts_with("a\nroute 1\nroute 2\n"));
        assert!(text.ends_with("route 1000\nb\n"));
        assert_eq!(text.lines().count(), ROUTES + 2);
    }
}
