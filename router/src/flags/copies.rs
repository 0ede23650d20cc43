//! Writes copies of the flags to disk behind the router's back: the newest of each route, never holding up a flip.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::disk::{Copy, Disk};

/// A copy that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The writing end. Dropping it ends the task once everything is written.
#[derive(Debug)]
pub(crate) struct Copies {
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    by_route: BTreeMap<String, Copy>,
    is_closed: bool,
}

impl Copies {
    /// Starts the task that writes.
    pub(crate) fn start(disk: Disk) -> Copies {
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(write_all(disk, waiting.clone()));
        Copies { waiting }
    }

    /// Replaces what waits to be written of this route.
    pub(crate) fn save(&self, route: &str, copy: Copy) {
        self.waiting.inner.lock().unwrap_or_else(PoisonError::into_inner).by_route.insert(route.to_owned(), copy);
        self.waiting.news.notify_one();
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.waiting.inner.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.waiting.news.notify_one();
    }
}

async fn write_all(disk: Disk, waiting: Arc<Waiting>) {
    let disk = Arc::new(disk);
    loop {
        let (batch, is_closed) = waiting.take();
        if batch.is_empty() {
            if is_closed {
                return;
            }
            waiting.news.notified().await;
            continue;
        }
        let writer = disk.clone();
        let Ok(failed) = tokio::task::spawn_blocking(move || save_all(&writer, batch)).await else { return };
        if !failed.is_empty() {
            if is_closed {
                return;
            }
            waiting.put_back(failed);
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

impl Waiting {
    fn take(&self) -> (BTreeMap<String, Copy>, bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut inner.by_route), inner.is_closed)
    }

    /// Keeps what could not be written, unless there is something newer.
    fn put_back(&self, failed: BTreeMap<String, Copy>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, copy) in failed {
            inner.by_route.entry(route).or_insert(copy);
        }
    }
}

/// Writes them all, with one wait for the disk where they are many, and answers those that could not be written.
fn save_all(disk: &Disk, batch: BTreeMap<String, Copy>) -> BTreeMap<String, Copy> {
    let blame = |path: &Path, error: &io::Error| {
        tracing::error!(path = %path.display(), %error, "the flags' copy on disk cannot be written: a restart without Redis would use an older one");
    };
    let (mut written, mut failed) = (Vec::new(), BTreeMap::new());
    for (route, copy) in &batch {
        match disk.write_beside(copy) {
            Ok(beside) => written.push(beside),
            Err(error) => {
                blame(&disk.path(route), &error);
                failed.insert(route.clone(), copy.clone());
            }
        }
    }
    match disk.put_in_place(written, Vec::new()) {
        Ok(()) => failed,
        // Which of them are in their place is not known: all are written again.
        Err((path, error)) => {
            blame(&path, &error);
            batch
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flags::Fields;

    #[test]
    fn what_cannot_be_written_is_answered_and_the_rest_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let copy =
            |route: &str| Copy { route: route.to_owned(), store: "s".to_owned(), epoch: 7, seal: String::new(), fields: Fields::new() };
        // There is no folder `no`.
        let routes = ["ads", "no/where", "search"];
        let batch: BTreeMap<String, Copy> = routes.iter().map(|route| ((*route).to_owned(), copy(route))).collect();
        let failed = save_all(&disk, batch);
        assert_eq!(failed.into_keys().collect::<Vec<_>>(), ["no/where"]);
        assert_eq!(disk.load("ads").unwrap(), Some(copy("ads")));
        assert_eq!(disk.load("search").unwrap(), Some(copy("search")));
    }
}
