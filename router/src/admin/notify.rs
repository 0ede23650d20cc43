//! What became of notices, in metrics.

use super::AdminState;
use super::exposition::Exposition;

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    let targets = state.process.board.targets();
    page.family(
        "switchback_notifications_total",
        "counter",
        "Notices that this router sent, by target and outcome: done, refused or gave_up.",
    );
    for target in &targets {
        let totals = target.totals();
        for (outcome, count) in [("done", totals.done), ("refused", totals.refused), ("gave_up", totals.gave_up)] {
            page.count(&[("target", &target.target().name), ("outcome", outcome)], count);
        }
    }
    page.family("switchback_notification_tries_total", "counter", "Tries to send one, by whether they were answered.");
    for target in &targets {
        let totals = target.totals();
        let answered = totals.tries.saturating_sub(totals.unanswered);
        for (is_answered, count) in [("true", answered), ("false", totals.unanswered)] {
            page.count(&[("target", &target.target().name), ("answered", is_answered)], count);
        }
    }
}
