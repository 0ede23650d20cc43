//! Runs what hyper starts (HTTP/2 streams and connections) on the worker's own thread.

/// An executor that never leaves the thread.
#[derive(Clone, Copy)]
pub(crate) struct OnThisWorker;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisWorker {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
