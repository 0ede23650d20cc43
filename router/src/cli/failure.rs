//! How a command ends when it is not done: a message on stderr and an exit code.

use std::io::Write as _;
use std::process::ExitCode;

/// Refused by the router, or rolled back.
pub(crate) const REFUSED: u8 = 2;
/// Bad usage or a bad config (sysexits' EX_USAGE).
pub(crate) const USAGE: u8 = 64;
/// Something needed is unreachable (EX_UNAVAILABLE).
pub(crate) const UNREACHABLE: u8 = 69;

/// Still running when the time was up (EX_TEMPFAIL).
pub(crate) const TIMED_OUT: u8 = 75;

/// Why a command was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The router (or a check) said no.
    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure { code: REFUSED, message: message.into() }
    }

    /// The command line or the config makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { code: USAGE, message: message.into() }
    }

    /// A config that is wrong: one line for each problem.
    pub(crate) fn config(problems: &str) -> Failure {
        Failure::usage(format!("the config is refused\n{problems}"))
    }

    /// A router, a port, a file or a library that is needed cannot be used.
    pub(crate) fn unreachable(message: impl Into<String>) -> Failure {
        Failure { code: UNREACHABLE, message: message.into() }
    }

    /// The time was up before all was done.
    pub(crate) fn timed_out(message: impl Into<String>) -> Failure {
        Failure { code: TIMED_OUT, message: message.into() }
    }

    /// The reader of our output is gone; nobody is there to be told.
    pub(crate) fn quiet() -> Failure {
        Failure { code: 0, message: String::new() }
    }

    /// An error with all of its causes on one line.
    pub(crate) fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// Says it on stderr.
    pub(crate) fn report(self) -> ExitCode {
        ExitCode::from(self.told())
    }

    /// Says it on stderr, and ends the process here.
    pub(crate) fn exit(self) -> ! {
        std::process::exit(i32::from(self.told()))
    }

    fn told(self) -> u8 {
        if !self.message.is_empty() {
            complain(&format!("switchback: {}", self.message));
        }
        self.code
    }
}

/// A line on stderr. Where that is gone too there is nobody left to tell, which is no reason to panic as `eprintln!` would.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
