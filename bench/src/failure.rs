//! How this program ends when something is wrong: with an exit code that says of which kind it is (sysexits.h). Everything else is 1.

use std::fmt;

/// The command line makes no sense (EX_USAGE).
pub(crate) const USAGE: u8 = 64;
/// A program that is needed is not there (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// Nothing could be measured (EX_SOFTWARE).
const NOTHING: u8 = 70;

/// Why the program ends, and with which exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

impl std::error::Error for Failure {}

/// The command line makes no sense: 64.
pub(crate) fn usage(why: String) -> anyhow::Error {
    Failure { code: USAGE, why }.into()
}

/// A program that is needed is not there: 69.
pub(crate) fn unavailable(why: String) -> anyhow::Error {
    Failure { code: UNAVAILABLE, why }.into()
}

/// Nothing could be measured: 70.
pub(crate) fn nothing(why: String) -> anyhow::Error {
    Failure { code: NOTHING, why }.into()
}

/// The exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failure>().map_or(1, |failure| failure.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_says_what_kind_of_failure_it_is() {
        assert_eq!(exit_code(&usage(String::new())), 64);
        assert_eq!(exit_code(&unavailable(String::new()).context("looking")), 69);
        assert_eq!(exit_code(&nothing(String::new())), 70);
        assert_eq!(exit_code(&anyhow::anyhow!("something else")), 1);
    }
}
