//! Builds the default policies as WebAssembly components, which the router carries inside itself.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    for name in ["split-weighted"] {
        let crate_dir = plugins.join(name);
        println!("cargo:rerun-if-changed={}", crate_dir.display());
        componentize::build(&crate_dir, name, &out_dir)?;
    }
    for shared in ["sdk/src", "sdk/Cargo.toml", "../wit"] {
        println!("cargo:rerun-if-changed={}", plugins.join(shared).display());
    }
    Ok(())
}
