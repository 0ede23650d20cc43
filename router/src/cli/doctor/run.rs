//! Runs checks: all at once, each within its own time, all of them within one; on a terminal it says what is still under way.

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::finding::Finding;

/// For one check, where it does not say otherwise.
pub(super) const USUAL: Duration = Duration::from_secs(10);
/// For everything.
const ALL_WITHIN: Duration = Duration::from_secs(45);
/// What takes longer is named while it does.
const SLOW: Duration = Duration::from_millis(700);

/// Something to look at.
pub(super) struct Check {
    part: &'static str,
    name: String,
    limit: Duration,
    look: Pin<Box<dyn Future<Output = Vec<Finding>>>>,
}

impl Check {
    pub(super) fn new(part: &'static str, name: impl Into<String>, look: impl Future<Output = Vec<Finding>> + 'static) -> Check {
        Check { part, name: name.into(), limit: USUAL, look: Box::pin(look) }
    }

    /// What reads files or computes, on a thread that may wait for a disk that does not answer.
    pub(super) fn blocking(part: &'static str, name: impl Into<String>, look: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Check {
        let name = name.into();
        let told = name.clone();
        Check::new(part, name, async move {
            let looked = tokio::task::spawn_blocking(look).await;
            looked.unwrap_or_else(|_| vec![Finding::failed(part, told, "the check itself ended badly", "report it, with the config")])
        })
    }

    pub(super) fn within(mut self, limit: Duration) -> Check {
        self.limit = limit;
        self
    }
}

/// What all of them found, in the order in which they were given.
pub(super) async fn run_all(checks: Vec<Check>, is_quiet: bool) -> Vec<Finding> {
    let (began, mut found, mut open) = (Instant::now(), Vec::new(), Vec::new());
    let deadline = began + ALL_WITHIN;
    let mut running = FuturesUnordered::new();
    for (index, check) in checks.into_iter().enumerate() {
        open.push(Some(check.name.clone()));
        found.push(Vec::new());
        running.push(async move { (index, within(check, deadline).await) });
    }
    let bar = progress_bar(is_quiet);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            next = running.next() => {
                let Some((index, findings)) = next else { break };
                if let (Some(place), Some(name)) = (found.get_mut(index), open.get_mut(index)) {
                    (*place, *name) = (findings, None);
                }
            }
            _ = ticks.tick() => {
                if began.elapsed() > SLOW {
                    let names: Vec<&str> = open.iter().flatten().take(4).map(String::as_str).collect();
                    bar.set_message(names.join(", "));
                    bar.tick();
                }
            }
        }
    }
    bar.finish_and_clear();
    found.into_iter().flatten().collect()
}

async fn within(check: Check, deadline: Instant) -> Vec<Finding> {
    let Check { part, name, limit, look } = check;
    let until = deadline.min(Instant::now() + limit);
    let late = || vec![Finding::failed(part, name.clone(), format!("no answer within {} s", limit.as_secs()), "look whether it hangs")];
    tokio::time::timeout_at(until, look).await.unwrap_or_else(|_| late())
}

/// On a terminal; nothing elsewhere.
fn progress_bar(is_quiet: bool) -> ProgressBar {
    let target = if is_quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(ProgressStyle::with_template("{spinner} looking at {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_hangs_is_a_failure_and_holds_up_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(async {
            let hangs = Check::new("store", "hangs", std::future::pending()).within(Duration::from_millis(20));
            let works = Check::new("config", "works", async { vec![Finding::ok("config", "works", "yes")] });
            run_all(vec![hangs, works], true).await
        });
        assert_eq!(found[0], Finding::failed("store", "hangs", "no answer within 0 s", "look whether it hangs"));
        assert_eq!(found[1], Finding::ok("config", "works", "yes"));
    }
}
