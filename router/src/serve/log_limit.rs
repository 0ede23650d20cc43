//! Keeps a log readable when every query fails: so many lines a second for each worker and route, then silence.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

const LINES: u32 = 5;
const PERIOD: Duration = Duration::from_secs(1);

/// What was logged lately.
pub(crate) struct LogLimit {
    began: Cell<Option<Instant>>,
    lines: Cell<u32>,
}

impl LogLimit {
    pub(crate) fn new() -> LogLimit {
        LogLimit { began: Cell::new(None), lines: Cell::new(0) }
    }

    /// Whether one more line may be logged. Counters tell of those that may not.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let is_new_period = self.began.get().is_none_or(|began| now.saturating_duration_since(began) >= PERIOD);
        if is_new_period {
            self.began.set(Some(now));
            self.lines.set(0);
        }
        self.lines.set(self.lines.get().saturating_add(1));
        self.lines.get() <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_pass_each_second() {
        let (limit, start) = (LogLimit::new(), Instant::now());
        let passed = |at: Instant| (0..100).filter(|_| limit.allows(at)).count();
        assert_eq!(passed(start), 5);
        assert_eq!(passed(start + PERIOD / 2), 0);
        assert_eq!(passed(start + PERIOD), 5);
    }
}
