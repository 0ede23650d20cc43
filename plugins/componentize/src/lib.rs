//! Builds a guest crate into a WebAssembly component, for build scripts.
//!
//! `cargo build --target wasm32-unknown-unknown` makes a core module that carries its WIT as a custom section;
//! `wit-component` turns it into a component with no import but those of `wit/`. (`wasm32-wasip2` makes a component by itself,
//! but drags in WASI imports that are never called, and is four times larger.)

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the guest crate in `crate_dir` and writes `<name>.wasm` into `out_dir`; returns that path. `name` is the crate's
/// name with dashes, as in its `Cargo.toml`.
///
/// # Errors
/// When the target is not installed, the crate does not build, or what it builds is not a component of a known world.
pub fn build(crate_dir: &Path, name: &str, out_dir: &Path) -> Result<PathBuf> {
    let target_dir = out_dir.join("guests");
    run_cargo(crate_dir, &target_dir)?;
    let module = target_dir.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
    let bytes = std::fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
    let component = encode(&bytes).with_context(|| format!("making a component of {name}"))?;
    let path = out_dir.join(format!("{name}.wasm"));
    std::fs::write(&path, component).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Turns a core module with embedded WIT into a component.
///
/// # Errors
/// When the module is broken, or its exports do not match its WIT.
pub fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

fn run_cargo(crate_dir: &Path, target_dir: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--lib", "--target", TARGET]);
    command.arg("--manifest-path").arg(crate_dir.join("Cargo.toml"));
    command.arg("--target-dir").arg(target_dir);
    // The outer build's wrapper and flags (clippy, coverage, native tuning) are not for the guest.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    let profile = [
        ("OPT_LEVEL", "3"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("STRIP", "debuginfo"),
        ("DEBUG", "false"),
        ("INCREMENTAL", "false"),
        ("OVERFLOW_CHECKS", "false"),
    ];
    for (key, value) in profile {
        command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    let status = command.status().context("starting cargo for a guest")?;
    ensure!(status.success(), "building {} for {TARGET} failed; is the target there? `rustup target add {TARGET}`", crate_dir.display());
    Ok(())
}
