//! Builds guest crates into WebAssembly components, for build scripts.
//!
//! `cargo build --target wasm32-unknown-unknown` makes a core module that carries its WIT as a custom section;
//! `wit-component` turns it into a component with no import but those of `wit/`. (`wasm32-wasip2` makes a component by itself,
//! but drags in WASI imports that are never called, and is larger: it is the way for people who have nothing but cargo.)

mod c;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use wit_component::ComponentEncoder;

pub use c::{CGuest, has_clang};

/// Which way to a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `wasm32-unknown-unknown`, and `wit-component` afterwards.
    Bare,
    /// `wasm32-wasip2`, where cargo alone makes a component.
    Wasip2,
}

impl Target {
    fn triple(self) -> &'static str {
        match self {
            Target::Bare => "wasm32-unknown-unknown",
            Target::Wasip2 => "wasm32-wasip2",
        }
    }
}

/// Guests of one workspace that are built together.
#[derive(Debug, Clone, Copy)]
pub struct Guests<'a> {
    /// The workspace's folder.
    pub workspace: &'a Path,
    /// The packages, named as in their `Cargo.toml`.
    pub packages: &'a [&'a str],
    /// Cargo features, `package/feature`.
    pub features: &'a [&'a str],
    /// Which way.
    pub target: Target,
}

impl Guests<'_> {
    /// Builds the guests with cargo's own files in `scratch`, and writes each component to `<package>.wasm` in `out_dir`.
    ///
    /// # Errors
    /// When the target is not installed, a guest does not build, or what it builds is not a component of a known world.
    pub fn build(&self, scratch: &Path, out_dir: &Path) -> Result<()> {
        self.run_cargo(scratch)?;
        let built = scratch.join(self.target.triple()).join("release");
        for package in self.packages {
            let module = built.join(format!("{}.wasm", package.replace('-', "_")));
            let bytes = std::fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
            let component = match self.target {
                Target::Bare => encode(&bytes).with_context(|| format!("making a component of {package}"))?,
                Target::Wasip2 => bytes,
            };
            write(&out_dir.join(format!("{package}.wasm")), &component)?;
        }
        Ok(())
    }

    fn run_cargo(&self, target_dir: &Path) -> Result<()> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let triple = self.target.triple();
        let mut command = Command::new(cargo);
        command.args(["build", "--release", "--locked", "--lib", "--target", triple]);
        command.arg("--manifest-path").arg(self.workspace.join("Cargo.toml"));
        command.arg("--target-dir").arg(target_dir);
        for package in self.packages {
            command.args(["--package", package]);
        }
        if !self.features.is_empty() {
            command.arg("--features").arg(self.features.join(","));
        }
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
        let packages = self.packages.join(", ");
        ensure!(status.success(), "building {packages} for {triple} failed; is the target there? `rustup target add {triple}`");
        Ok(())
    }
}

/// Turns a core module with embedded WIT into a component.
///
/// # Errors
/// When the module is broken, or its exports do not match its WIT.
pub fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
