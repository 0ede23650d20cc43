//! The `switchback` binary.

fn main() -> std::process::ExitCode {
    switchback::cli::run()
}
