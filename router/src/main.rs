//! The `switchback` command: everything is in the library, [`switchback::cli`].

use std::process::ExitCode;

use switchback::allocator::Mimalloc;

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

fn main() -> ExitCode {
    switchback::cli::run()
}
