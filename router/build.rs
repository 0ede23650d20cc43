//! Builds the default policies as WebAssembly components, which the router carries inside itself.

use std::path::{Path, PathBuf};

use componentize::{Guests, Target};

const SHIPPED: [&str; 4] = ["split-weighted", "split-rules", "rollback-guardrail", "rollback-threshold"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Of this run and not of when this was compiled: several checkouts may share a target folder.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let workspace = Path::new(&manifest).join("..");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // One by one: the second links the arithmetic of the first without its exports.
    for package in SHIPPED {
        let guests = Guests { workspace: &workspace, packages: &[package], features: &[], target: Target::Bare };
        guests.build(&out_dir.join("guests"), &out_dir)?;
    }
    let sources = SHIPPED.iter().map(|name| format!("plugins/{name}"));
    for path in sources.chain(["plugins/sdk".to_owned(), "wit".to_owned()]) {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    Ok(())
}
