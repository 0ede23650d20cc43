//! The way out: a queue and a task for each target, so that nobody waits for one, and none for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::clock::{Clock, SystemClock};
use super::delivery::{Delivery, Totals};
use super::notice::Notice;

/// All targets of a config. When it is dropped, what waits is still sent, as that config has it, and then the tasks end.
#[derive(Debug)]
pub struct Outbox<C = SystemClock> {
    lanes: Vec<Lane<C>>,
}

#[derive(Debug)]
struct Lane<C> {
    delivery: Arc<Delivery<C>>,
    queue: mpsc::Sender<Arc<Notice>>,
    dropped: AtomicU64,
}

/// What became of a notice that was handed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offered {
    /// Targets that it waits for.
    pub queued: usize,
    /// Targets that want it, and have too much waiting.
    pub dropped: usize,
}

/// A target, for metrics and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTotals {
    /// Its name in the config.
    pub name: String,
    /// Notices in its queue, but for the one that is being sent.
    pub waiting: usize,
    /// Notices that found the queue full.
    pub dropped: u64,
    /// It said that it is gone.
    pub is_off: bool,
    /// What became of the others.
    pub totals: Totals,
}

impl<C: Clock> Outbox<C> {
    /// Begins with empty queues. To be called on a runtime: the tasks run there.
    #[must_use]
    pub fn start(deliveries: Vec<Delivery<C>>) -> Outbox<C> {
        let lane = |delivery: Delivery<C>| {
            let (queue, mut notices) = mpsc::channel::<Arc<Notice>>(delivery.target().max_waiting);
            let delivery = Arc::new(delivery);
            let sending = delivery.clone();
            tokio::spawn(async move {
                while let Some(notice) = notices.recv().await {
                    // It has counted and logged what became of it.
                    sending.deliver(&notice).await;
                }
            });
            Lane { delivery, queue, dropped: AtomicU64::new(0) }
        };
        Outbox { lanes: deliveries.into_iter().map(lane).collect() }
    }

    /// Hands in a notice for every target that wants it, in the order in which they come. Never waits.
    pub fn offer(&self, notice: &Arc<Notice>) -> Offered {
        let mut offered = Offered::default();
        for lane in self.lanes.iter().filter(|lane| lane.delivery.wants(notice) && !lane.delivery.is_off()) {
            if lane.queue.try_send(notice.clone()).is_ok() {
                offered.queued += 1;
                continue;
            }
            offered.dropped += 1;
            lane.dropped.fetch_add(1, Relaxed);
            let target = lane.delivery.target();
            tracing::error!(target_name = target.name, id = notice.id, waiting = target.max_waiting, "a notice is dropped: too many wait");
        }
        offered
    }

    /// Each target, in the order of the config.
    #[must_use]
    pub fn totals(&self) -> Vec<TargetTotals> {
        let of = |lane: &Lane<C>| TargetTotals {
            name: lane.delivery.target().name.clone(),
            waiting: lane.queue.max_capacity() - lane.queue.capacity(),
            dropped: lane.dropped.load(Relaxed),
            is_off: lane.delivery.is_off(),
            totals: lane.delivery.totals(),
        };
        self.lanes.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoticeEvent;
    use crate::notify::notice::tests::{notice, rolled_back};
    use crate::notify::receiver::{Receiver, TestClock, answer, target};

    fn lane(name: &str, receiver: &Receiver, max_waiting: usize) -> Delivery<TestClock> {
        let mut target = target(&receiver.url("/hook"));
        (target.name, target.max_waiting) = (name.to_owned(), max_waiting);
        Delivery::with_clock(&target, TestClock::at(rolled_back().time_ms)).unwrap()
    }

    #[tokio::test]
    async fn a_target_that_is_silent_holds_up_no_other() {
        let (silent, good) = (Receiver::silent().await, Receiver::start(vec![answer("200 OK", "", ""); 3]).await);
        let outbox = Outbox::start(vec![lane("silent", &silent, 10), lane("good", &good, 10)]);
        let events = [NoticeEvent::RolloutStarted, NoticeEvent::Promoted, NoticeEvent::RolloutDone];
        for event in events {
            assert_eq!(outbox.offer(&Arc::new(notice(event))), Offered { queued: 2, dropped: 0 });
        }
        assert_eq!(outbox.offer(&Arc::new(notice(NoticeEvent::FlagsChanged))), Offered::default());
        let sent = good.wait_for(3).await;
        for (request, event) in sent.iter().zip(events) {
            assert!(request.body.contains(&format!("\"event\":\"{}\"", event.name())), "{}", request.body);
        }
        assert_eq!(outbox.totals()[1].name, "good");
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_newest_and_counts_it() {
        let silent = Receiver::silent().await;
        let outbox = Outbox::start(vec![lane("silent", &silent, 2)]);
        let notice = Arc::new(rolled_back());
        // No task has run yet: this thread has not waited for anything since.
        let offered: Vec<Offered> = (0..4).map(|_| outbox.offer(&notice)).collect();
        let (taken, full) = (Offered { queued: 1, dropped: 0 }, Offered { queued: 0, dropped: 1 });
        assert_eq!(offered, [taken, taken, full, full]);
        let totals = outbox.totals().remove(0);
        assert_eq!((totals.name.as_str(), totals.waiting, totals.dropped, totals.is_off), ("silent", 2, 2, false));
    }

    #[tokio::test]
    async fn what_waits_is_sent_although_the_outbox_is_gone() {
        let good = Receiver::start(vec![answer("200 OK", "", ""); 2]).await;
        let outbox = Outbox::start(vec![lane("good", &good, 10)]);
        outbox.offer(&Arc::new(rolled_back()));
        outbox.offer(&Arc::new(rolled_back()));
        drop(outbox);
        assert_eq!(good.wait_for(2).await.len(), 2);
    }
}
