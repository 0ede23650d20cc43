//! Builds a guest that is written in C: bindings from the WIT, clang, and the same last step as for Rust.
//!
//! No C library is linked: the guest's folder has the few functions that the bindings need (`include/`), so that the component imports
//! nothing but the interface.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

/// Whether there is a clang here, with its linker for WebAssembly.
#[must_use]
pub fn has_clang() -> bool {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    runs("clang") && runs("wasm-ld")
}

/// A guest in C.
#[derive(Debug, Clone, Copy)]
pub struct CGuest<'a> {
    /// Its folder: every `*.c` in it is compiled, and `include/` is where it finds headers.
    pub folder: &'a Path,
    /// The folder of the WIT package.
    pub wit: &'a Path,
    /// The world that it implements.
    pub world: &'a str,
}

impl CGuest<'_> {
    /// Builds the guest with bindings and object files in `scratch`, and writes the component to `component`.
    ///
    /// # Errors
    /// When clang is not there, the guest does not build, or what it builds is not a component of the world.
    pub fn build(&self, scratch: &Path, component: &Path) -> Result<()> {
        std::fs::create_dir_all(scratch)?;
        let bindings = self.bindings(scratch)?;
        let sources = std::fs::read_dir(self.folder).with_context(|| format!("reading {}", self.folder.display()))?;
        let mut sources: Vec<PathBuf> = sources.filter_map(|entry| Some(entry.ok()?.path())).collect();
        sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
        sources.sort();
        let module = scratch.join("core.wasm");
        let mut clang = Command::new("clang");
        clang.args(["--target=wasm32-unknown-unknown", "-O2", "-std=c11", "-Wall", "-ffreestanding", "-nostdlib"]);
        clang.arg("-Wl,--no-entry").arg("-I").arg(self.folder.join("include")).arg("-I").arg(scratch);
        clang.args(&sources).args(&bindings).arg("-o").arg(&module);
        let status = clang.status().context("starting clang: is it installed? `apt-get install clang lld`")?;
        ensure!(status.success(), "clang could not build {}", self.folder.display());
        let bytes = std::fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
        super::write(component, &super::encode(&bytes)?)
    }

    /// Writes the bindings; those of the files that are compiled or linked.
    fn bindings(&self, scratch: &Path) -> Result<Vec<PathBuf>> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(self.wit).with_context(|| format!("reading {}", self.wit.display()))?;
        let world = resolve.select_world(&[package], Some(self.world))?;
        let mut files = Files::default();
        wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
        let mut linked = Vec::new();
        for (name, contents) in files.iter() {
            let path = scratch.join(name);
            std::fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
            if !name.ends_with(".h") {
                linked.push(path);
            }
        }
        Ok(linked)
    }
}
