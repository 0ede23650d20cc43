//! What the store announces on one connection: which routes' flags were touched, and that the connection is gone.
//!
//! The connection's reader sets marks here and never waits; any number of announcements while a read is under way become one more read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Signals {
    by_key: HashMap<Vec<u8>, usize>,
    touched: Vec<AtomicBool>,
    is_gone: AtomicBool,
    news: Notify,
}

impl Signals {
    /// For the flags keys of the routes, in the routes' order.
    pub(super) fn new(keys: Vec<String>) -> Signals {
        let touched = keys.iter().map(|_| AtomicBool::new(false)).collect();
        let by_key = keys.into_iter().enumerate().map(|(index, key)| (key.into_bytes(), index)).collect();
        Signals { by_key, touched, is_gone: AtomicBool::new(false), news: Notify::new() }
    }

    /// Takes a push message of the connection.
    pub(super) fn hear(&self, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Invalidate, [Value::Array(keys)]) => keys.iter().for_each(|key| self.touch(key)),
            // A null instead of a list: everything was flushed.
            (PushKind::Invalidate, _) => self.touched.iter().for_each(|mark| mark.store(true, Ordering::Release)),
            (PushKind::Disconnection, _) => self.is_gone.store(true, Ordering::Release),
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

    /// Waits until there may be something new. Safe to drop and call again.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// The routes touched since the last call. Marks are taken before the read that follows, so that nothing falls between.
    pub(super) fn take_touched(&self) -> Vec<usize> {
        let is_touched = |(_, mark): &(usize, &AtomicBool)| mark.swap(false, Ordering::AcqRel);
        self.touched.iter().enumerate().filter(is_touched).map(|(index, _)| index).collect()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
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
        signals.hear(&invalidation(Value::Array(vec![key(), Value::BulkString(b"other".to_vec())])));
        signals.hear(&invalidation(Value::Array(vec![key()])));
        assert_eq!(signals.take_touched(), [1]);
        assert_eq!(signals.take_touched(), [0usize; 0]);
    }

    #[test]
    fn a_null_touches_every_route() {
        let signals = Signals::new(vec!["a".to_owned(), "b".to_owned()]);
        signals.hear(&invalidation(Value::Nil));
        assert_eq!(signals.take_touched(), [0, 1]);
    }

    #[test]
    fn a_lost_connection_is_news() {
        let signals = Signals::new(vec!["a".to_owned()]);
        signals.hear(&PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
        assert!(signals.is_gone());
        assert!(signals.take_touched().is_empty());
    }
}
