//! `switchback policy push|list|remove`: a running router's plugins, by its admin API.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::admin_client::AdminArgs;
use super::table::table;
use super::{Failure, block_on, print};

/// Digits of a digest that people are shown.
const SHOWN_DIGITS: usize = 12;

/// Uploads a plugin.
#[derive(Debug, Args)]
pub(super) struct Push {
    /// The plugin: a WebAssembly component.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// The name that flags will say [default: the file's, without .wasm].
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the router's answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Lists plugins.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, with the reports of their admission.
    #[arg(long)]
    pub(super) json: bool,
}

/// Removes a plugin.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The plugin's name.
    name: String,
    /// Also when a route's flags name it and nothing else has that name; what is in force there stays until a restart.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the router's answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Push {
    pub(super) fn run(self) -> Result<(), Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name_of(&self.file)?,
        };
        let bytes =
            std::fs::read(&self.file).map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", self.file.display())))?;
        let client = self.admin.client()?;
        let answer = block_on(async { client.put(&format!("/api/v1/policies/{}", path_segment(&name)), bytes.into()).await })?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        let digest = text(&answer, "digest");
        let what = if answer.get("changed") == Some(&Value::Bool(true)) { "admitted" } else { "it was there already" };
        print(&format!("{name}@{digest}: {what}\nput it in force with: switchback flag set ROUTE split_policy={name}\n"))
    }
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.admin.client()?;
        let answer = block_on(async { client.get("/api/v1/policies").await })?;
        let plugins = answer.get("plugins").and_then(Value::as_array).cloned().unwrap_or_default();
        if self.json {
            return print(&format!("{}\n", Value::Array(plugins)));
        }
        print(&rows(&plugins))
    }
}

impl Remove {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.admin.client()?;
        let force = if self.force { "?force=true" } else { "" };
        let path = format!("/api/v1/policies/{}{force}", path_segment(&self.name));
        let answer = block_on(async { client.delete(&path).await })?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        let was = Some(text(&answer, "digest")).filter(|digest| !digest.is_empty());
        let was = was.map_or_else(|| "it could not be read".to_owned(), |digest| format!("it was {digest}"));
        print(&format!("{} is no longer in the folder ({was})\n", self.name))
    }
}

fn rows(plugins: &[Value]) -> String {
    let mut rows = vec![["name", "digest", "bytes", "state", "in force on", "source"].map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for plugin in plugins {
        let routes = plugin.get("routes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let routes: Vec<&str> = routes.iter().filter_map(Value::as_str).collect();
        let digest: String = text(plugin, "digest").chars().take(SHOWN_DIGITS).collect();
        let bytes = plugin.get("bytes").map(ToString::to_string).unwrap_or_default();
        let (name, why) = (text(plugin, "name"), text(plugin, "why"));
        rows.push(vec![
            name.to_owned(),
            digest,
            bytes,
            text(plugin, "state").to_owned(),
            routes.join(", "),
            text(plugin, "source").to_owned(),
        ]);
        if !why.is_empty() {
            reasons.push_str(&format!("  {name}: {why}\n"));
        }
    }
    format!("{}{reasons}", table(&rows))
}

fn name_of(file: &Path) -> Result<String, Failure> {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm"));
    name.map(str::to_owned)
        .ok_or_else(|| Failure::usage(format!("{}: is not called NAME.wasm; give it a name with --name", file.display())))
}

/// The router says what a name may be; here it only has to stay one segment of a path.
fn path_segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_lines_up_and_says_why() {
        let plugin = serde_json::json!({ "name": "mine", "digest": "0123456789abcdef", "bytes": 7, "source": "/p/mine.wasm",
            "state": "refused", "why": "it trapped", "routes": ["search", "ads"], "report": null });
        let expected = "  name  digest        bytes  state    in force on  source\n\
                        \x20 mine  0123456789ab  7      refused  search, ads  /p/mine.wasm\n\
                        \x20 mine: it trapped\n";
        assert_eq!(rows(&[plugin]), expected);
    }

    #[test]
    fn a_file_gives_its_name() {
        assert_eq!(name_of(Path::new("/x/my-split.wasm")).ok().as_deref(), Some("my-split"));
        assert!(name_of(Path::new("my-split.wat")).is_err());
        assert_eq!(path_segment("../a b"), "..%2Fa%20b");
    }
}
