//! What the store announces on its connections: which routes' flags were touched, and that a connection is gone.
//!
//! A connection's reader sets marks here and never waits; any number of announcements while a read is under way become one more read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Signals {
    by_key: HashMap<Vec<u8>, usize>,
    touched: Vec<AtomicBool>,
    news: Notify,
    /// For whoever looks after the connections.
    amiss: Notify,
}

impl Signals {
    /// For the flags keys of the routes, in the routes' order.
    pub(super) fn new(keys: Vec<String>) -> Signals {
        let touched = keys.iter().map(|_| AtomicBool::new(false)).collect();
        let by_key = keys.into_iter().enumerate().map(|(index, key)| (key.into_bytes(), index)).collect();
        Signals { by_key, touched, news: Notify::new(), amiss: Notify::new() }
    }

    /// Takes a push message of a connection; `is_gone` is that connection's own mark.
    pub(super) fn hear(&self, push: &PushInfo, is_gone: &AtomicBool) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Invalidate, [Value::Array(keys)]) => keys.iter().for_each(|key| self.touch(key)),
            // A null instead of a list: everything was flushed.
            (PushKind::Invalidate, _) => self.mark_all(),
            (PushKind::Disconnection, _) => {
                is_gone.store(true, Ordering::Release);
                self.amiss();
            }
            _ => return,
        }
        self.news.notify_one();
    }

    fn touch(&self, key: &Value) {
        let index = match key {
            Value::BulkString(key) => self.by_key.get(key.as_slice()),
            Value::SimpleString(key) => self.by_key.get(key.as_bytes()),
            _ => None,
        };
        if let Some(mark) = index.and_then(|index| self.touched.get(*index)) {
            mark.store(true, Ordering::Release);
        }
    }

    /// Marks a route as if it had been announced.
    pub(super) fn touch_index(&self, index: usize) {
        if let Some(mark) = self.touched.get(index) {
            mark.store(true, Ordering::Release);
            self.news.notify_one();
        }
    }

    /// Marks every route, as when nobody knows what was announced.
    pub(super) fn touch_all(&self) {
        self.mark_all();
        self.news.notify_one();
    }

    fn mark_all(&self) {
        self.touched.iter().for_each(|mark| mark.store(true, Ordering::Release));
    }

    /// Says that there is something new that is no announcement.
    pub(super) fn tell(&self) {
        self.news.notify_one();
    }

    /// Says that a connection or the map of slots is not as it should be.
    pub(super) fn amiss(&self) {
        self.amiss.notify_one();
    }

    /// Waits until something is amiss. For one waiter.
    pub(super) async fn until_amiss(&self) {
        self.amiss.notified().await;
    }

    /// Waits until there may be something new. Safe to drop and call again.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// The routes touched since the last call. Marks are taken before the read that follows, so that nothing falls between.
    pub(super) fn take_touched(&self) -> Vec<usize> {
        let is_touched = |(_, mark): &(usize, &AtomicBool)| mark.swap(false, Ordering::AcqRel);
        self.touched.iter().enumerate().filter(is_touched).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalidation(data: Value) -> PushInfo {
        PushInfo { kind: PushKind::Invalidate, data: vec![data] }
    }

    #[test]
    fn announcements_collapse_into_one_mark_a_route() {
        let signals = Signals::new(vec!["{switchback:a}:flags".to_owned(), "{switchback:b}:flags".to_owned()]);
        let key = || Value::BulkString(b"{switchback:b}:flags".to_vec());
        let gone = AtomicBool::new(false);
        signals.hear(&invalidation(Value::Array(vec![key(), Value::BulkString(b"other".to_vec())])), &gone);
        signals.hear(&invalidation(Value::Array(vec![key()])), &gone);
        assert_eq!(signals.take_touched(), [1]);
        assert_eq!(signals.take_touched(), [0usize; 0]);
    }

    #[test]
    fn a_null_touches_every_route() {
        let signals = Signals::new(vec!["a".to_owned(), "b".to_owned()]);
        signals.hear(&invalidation(Value::Nil), &AtomicBool::new(false));
        assert_eq!(signals.take_touched(), [0, 1]);
    }

    #[test]
    fn a_lost_connection_is_news() {
        let signals = Signals::new(vec!["a".to_owned()]);
        let gone = AtomicBool::new(false);
        signals.hear(&PushInfo { kind: PushKind::Disconnection, data: Vec::new() }, &gone);
        assert!(gone.load(Ordering::Acquire));
        assert!(signals.take_touched().is_empty());
    }
}
