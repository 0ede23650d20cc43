//! How a command ends when it is not done: a message on stderr and an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Map, Value};

/// Refused by the router, or rolled back.
pub(crate) const REFUSED: u8 = 2;
/// Bad usage or a bad config (sysexits' EX_USAGE).
pub(crate) const USAGE: u8 = 64;
/// Something needed is unreachable (EX_UNAVAILABLE).
pub(crate) const UNREACHABLE: u8 = 69;

/// A file of this machine cannot be written: there is no room (EX_IOERR).
pub(crate) const NO_ROOM: u8 = 74;

/// Still running when the time was up (EX_TEMPFAIL).
pub(crate) const TIMED_OUT: u8 = 75;
/// Somebody pressed Ctrl-C (128 and SIGINT's number, as shells have it).
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    /// What machines are told beside the message.
    details: Map<String, Value>,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), details: Map::new() }
    }

    /// The router (or a check) said no.
    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::new(REFUSED, message)
    }

    /// The command line or the config makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(USAGE, message)
    }

    /// A config that is wrong: one line for each problem.
    pub(crate) fn config(problems: &str) -> Failure {
        let mut failure = Failure::usage(format!("the config is refused\n{problems}"));
        failure.details.insert("problems".to_owned(), problems.lines().collect());
        failure
    }

    /// With a last line for people: what to do instead.
    pub(crate) fn with_hint(mut self, hint: &str) -> Failure {
        self.message = format!("{}\n{hint}", self.message);
        self
    }

    /// With what it is about, before what went wrong with it.
    pub(crate) fn about(mut self, what: &str) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// With another name for what it is about: nobody knows a file that this program made for itself.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Failure {
        self.message = self.message.replace(from, to);
        self
    }

    /// With what else the API said: everything beside its `error`.
    pub(crate) fn with_details(mut self, answer: Value) -> Failure {
        if let Value::Object(answer) = answer {
            self.details.extend(answer.into_iter().filter(|(key, _)| key != "error"));
        }
        self
    }

    /// Somebody said no; it is not that nobody was there.
    pub(crate) fn is_refused(&self) -> bool {
        self.code == REFUSED
    }

    /// Something that is needed was not there.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.code == UNREACHABLE
    }

    /// What people are told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on stdout too, as one JSON object, to whoever asked for JSON.
    pub(crate) fn in_json(self, is_asked: bool) -> Failure {
        if is_asked && !self.message.is_empty() {
            // The exit code says it too, also when nobody reads this.
            let _ = super::print(&format!("{}\n", self.as_json()));
        }
        self
    }

    fn as_json(&self) -> Value {
        // With problems, the lines after the first are these.
        let lines = if self.details.contains_key("problems") { 1 } else { usize::MAX };
        let error = self.message.lines().take(lines).collect::<Vec<_>>().join("\n");
        let mut object = Map::from_iter([("error".to_owned(), Value::from(error))]);
        object.extend(self.details.clone());
        Value::Object(object)
    }

    /// A router, a port, a file or a library that is needed cannot be used.
    pub(crate) fn unreachable(message: impl Into<String>) -> Failure {
        Failure::new(UNREACHABLE, message)
    }

    /// There is no room for a file on this machine.
    pub(crate) fn no_room(message: impl Into<String>) -> Failure {
        Failure::new(NO_ROOM, message)
    }

    /// The time was up before all was done.
    pub(crate) fn timed_out(message: impl Into<String>) -> Failure {
        Failure::new(TIMED_OUT, message)
    }

    /// Somebody pressed Ctrl-C.
    pub(crate) fn interrupted(message: impl Into<String>) -> Failure {
        Failure::new(INTERRUPTED, message)
    }

    /// Somebody did.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.code == INTERRUPTED
    }

    /// The reader of our output is gone; nobody is there to be told.
    pub(crate) fn quiet() -> Failure {
        Failure::new(0, "")
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

/// A line on stderr, without what a terminal would obey. Where that is gone too there is nobody left to tell, which is no reason to panic as
/// `eprintln!` would.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", super::plain(line));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn machines_are_told_what_the_api_said() {
        let answer = json!({ "error": "live = purple: must be blue", "faults": [{ "field": "live" }] });
        let failure = Failure::refused("live = purple: must be blue").with_details(answer.clone());
        assert_eq!(failure.as_json(), answer);
        let config = Failure::config("one\ntwo");
        assert_eq!(config.as_json(), json!({ "error": "the config is refused", "problems": ["one", "two"] }));
        let renamed = Failure::usage("/tmp/x/MLmodel: it is empty").renamed("/tmp/x/MLmodel", "MLmodel of models:/search/1");
        assert_eq!(renamed.message(), "MLmodel of models:/search/1: it is empty");
    }
}
