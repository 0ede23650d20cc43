//! Builds the default policies as WebAssembly components, which the router carries inside itself.

use std::path::{Path, PathBuf};

use componentize::{Guests, Target};

const SHIPPED: [&str; 1] = ["split-weighted"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    Guests { workspace: &workspace, packages: &SHIPPED, features: &[], target: Target::Bare }.build(&out_dir.join("guests"), &out_dir)?;
    let sources = SHIPPED.iter().map(|name| format!("plugins/{name}"));
    for path in sources.chain(["plugins/sdk".to_owned(), "wit".to_owned()]) {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    Ok(())
}
