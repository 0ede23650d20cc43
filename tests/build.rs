//! Builds the guests that tests put into routers: the hostile ones, and the example of the documentation.

use std::path::{Path, PathBuf};

use componentize::{CGuest, Guests, Target, has_clang};

/// Guests that misbehave in a decision; built twice, see `plugins/hostile/kit`.
const HOSTILE: [&str; 12] = [
    "hostile-trap",
    "hostile-spin",
    "hostile-memory-bomb",
    "hostile-deep",
    "hostile-nonsense",
    "hostile-moody",
    "hostile-slow",
    "hostile-refuse",
    "hostile-huge",
    "hostile-slow-configure",
    "hostile-flapping",
    "hostile-chatty",
];
/// Components that are no split policies.
const MISFITS: [&str; 5] = ["always-hold", "hostile-wrong-version", "hostile-wrong-types", "hostile-foreign-import", "hostile-no-policy"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Of this run and not of when this was compiled: several checkouts may share a target folder.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let workspace = Path::new(&manifest).join("..");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let scratch = out_dir.join("guests");
    let sleepers = out_dir.join("sleepers");
    std::fs::create_dir_all(&sleepers)?;
    let guests = Guests { workspace: &workspace, packages: &HOSTILE, features: &[], target: Target::Bare };
    guests.build(&scratch, &out_dir)?;
    Guests { packages: &MISFITS, ..guests }.build(&scratch, &out_dir)?;
    for shipped in ["split-weighted", "split-rules", "rollback-guardrail", "rollback-threshold"] {
        Guests { packages: &[shipped], ..guests }.build(&scratch, &out_dir)?;
    }
    // Where there is no clang, the test that needs it says what to install.
    if has_clang() {
        let (folder, wit) = (workspace.join("plugins/examples/c-split"), workspace.join("wit"));
        let guest = CGuest { folder: &folder, wit: &wit, world: "split-policy" };
        guest.build(&out_dir.join("c"), &out_dir.join("c-split.wasm"))?;
    }
    let is_sleeper = HOSTILE.map(|package| format!("{package}/sleeper"));
    Guests { features: &is_sleeper.each_ref().map(String::as_str), ..guests }.build(&scratch, &sleepers)?;
    Guests { packages: &["hello-split", "hostile-wasi"], target: Target::Wasip2, ..guests }.build(&scratch, &out_dir)?;
    for path in ["plugins", "wit"] {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo:rerun-if-env-changed=PATH");
    println!("cargo:rustc-env=SWITCHBACK_GUESTS={}", out_dir.display());
    Ok(())
}
