//! Writes copies of the flags to disk behind the router's back: the newest of each route, never holding up a flip.

use std::collections::BTreeMap;
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
        let written = tokio::task::spawn_blocking(move || batch.into_iter().filter(|(_, copy)| !save(&writer, copy)).collect()).await;
        let Ok(failed): Result<BTreeMap<String, Copy>, _> = written else { return };
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

fn save(disk: &Disk, copy: &Copy) -> bool {
    let Err(error) = disk.save(copy) else { return true };
    let path = disk.path(&copy.route);
    tracing::error!(path = %path.display(), %error, "the flags' copy on disk cannot be written: a restart without Redis would use an older one");
    false
}
