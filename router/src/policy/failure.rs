//! What a policy did wrong, as far as the host can know it.

use std::time::Duration;

use wasmtime::Trap;

use super::engine::Guest;

/// The longest text of a policy's own that is kept, in bytes.
pub(super) const TEXT_BYTES: usize = 512;

/// A policy that gave no usable answer. It never fails a query: the caller takes its native decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFailure {
    /// It ran past its deadline.
    #[error("it was stopped at its deadline of {} ms", .limit.as_millis())]
    Deadline {
        /// The deadline.
        limit: Duration,
    },
    /// It asked for more memory than it may have.
    #[error("it asked for more than its {limit} bytes of memory")]
    Memory {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It used up its stack.
    #[error("it used up its stack of {limit} bytes")]
    Stack {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It trapped: a panic, an index out of range, a call of an import that is not granted.
    #[error("it trapped: {reason}")]
    Trap {
        /// What WebAssembly calls it.
        reason: String,
    },
    /// Its exports have the right names and other types than the interface says.
    #[error("its exports do not have the interface's types: {reason}")]
    Types {
        /// What does not fit.
        reason: String,
    },
    /// Its answer breaks the interface.
    #[error("it answered nonsense: {what}")]
    Nonsense {
        /// What, and what is allowed.
        what: String,
    },
    /// Its `configure` refused the flags: it is not asked again until they change.
    #[error("it refused the flags: {reason}")]
    Refused {
        /// Its own words, at most 512 bytes.
        reason: String,
    },
    /// A rollback policy could make nothing of config, state or window: there is no verdict, and the state stays as it was.
    #[error("it could not judge the window: {reason}")]
    Unjudged {
        /// Its own words, at most 512 bytes.
        reason: String,
    },
}

impl PolicyFailure {
    /// Whether the policy refused the flags, in order. Then the same flags need not be tried again; after any other failure a
    /// new instance may do better.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, PolicyFailure::Refused { .. })
    }

    /// The `kind` label in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            PolicyFailure::Deadline { .. } => "deadline",
            PolicyFailure::Memory { .. } => "memory",
            PolicyFailure::Stack { .. } => "stack",
            PolicyFailure::Trap { .. } => "trap",
            PolicyFailure::Types { .. } => "types",
            PolicyFailure::Nonsense { .. } => "nonsense",
            PolicyFailure::Refused { .. } => "refused",
            PolicyFailure::Unjudged { .. } => "unjudged",
        }
    }

    pub(super) fn nonsense(what: impl Into<String>) -> PolicyFailure {
        PolicyFailure::Nonsense { what: what.into() }
    }

    pub(super) fn refused(reason: &str) -> PolicyFailure {
        PolicyFailure::Refused { reason: printable(reason) }
    }

    pub(super) fn unjudged(reason: &str) -> PolicyFailure {
        PolicyFailure::Unjudged { reason: printable(reason) }
    }

    /// Reads a failed call. `limit` is the deadline that the call had.
    pub(super) fn of_call(error: &wasmtime::Error, guest: &Guest, limit: Duration) -> PolicyFailure {
        if guest.was_denied_memory() {
            return PolicyFailure::Memory { limit: guest.limits().memory };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => PolicyFailure::Deadline { limit },
            Some(Trap::StackOverflow) => PolicyFailure::Stack { limit: guest.limits().stack },
            Some(trap) => PolicyFailure::trap(&trap.to_string()),
            None => PolicyFailure::trap(&error.root_cause().to_string()),
        }
    }

    pub(super) fn of_types(error: &wasmtime::Error) -> PolicyFailure {
        PolicyFailure::Types { reason: printable(&format!("{error:#}")) }
    }

    fn trap(text: &str) -> PolicyFailure {
        let reason = text.strip_prefix("wasm trap: ").unwrap_or(text);
        PolicyFailure::Trap { reason: printable(reason) }
    }
}

/// Text of outside origin, fit for a log line: at most [`TEXT_BYTES`] bytes, control characters replaced.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len().min(TEXT_BYTES));
    for character in text.chars() {
        if printable.len() + character.len_utf8() > TEXT_BYTES {
            break;
        }
        printable.push(if character.is_control() { ' ' } else { character });
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character_and_has_no_control_characters() {
        let text = printable(&format!("a\nb\u{1b}[31m{}", "é".repeat(400)));
        assert!(text.starts_with("a b [31m"));
        assert!(text.len() <= TEXT_BYTES && text.len() > TEXT_BYTES - 2, "{}", text.len());
    }
}
