//! The `switchback` command: everything is in the library, [`switchback::cli`].

mod allocator;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Mimalloc = allocator::Mimalloc;

fn main() -> ExitCode {
    switchback::cli::run()
}
