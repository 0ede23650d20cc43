//! epoll, edge-triggered: what is ready is told once, so that nothing has to be asked for a second time.

use std::io::{self, stdin};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// Events taken at once.
const BATCH: usize = 256;
/// Standard input's token in [`Poll::serve`]: whoever started this is gone when it ends.
pub(crate) const INPUT: usize = 0;

/// Which descriptors are ready.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// Nobody is watched yet.
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Watches a connection, both ways. `token` comes back with what happens to it.
    pub(crate) fn watch_both(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        self.watch(source, token, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET)
    }

    /// Watches whether something can be read. Told as long as that holds: for listeners, timers and standard input.
    pub(crate) fn watch_input(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        self.watch(source, token, EventFlags::IN)
    }

    fn watch(&self, source: impl AsFd, token: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token as u64), flags)?)
    }

    /// Listens there, and watches for whoever connects.
    pub(crate) fn listen(&self, address: SocketAddr, token: usize) -> Result<TcpListener> {
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        self.watch_input(&listener, token)?;
        Ok(listener)
    }

    /// Calls `on_ready` with the token of each that is ready, until standard input ends. No token may be [`INPUT`].
    pub(crate) fn serve(mut self, mut on_ready: impl FnMut(&Poll, usize) -> Result<()>) -> Result<()> {
        // A file, as standard input may be when a person starts this, is never waited for.
        let _ = self.watch_input(stdin(), INPUT);
        let mut ready = Vec::new();
        loop {
            self.wait(None, &mut ready)?;
            for &token in &ready {
                if token == INPUT {
                    return Ok(());
                }
                on_ready(&self, token)?;
            }
        }
    }

    /// Waits until something is ready, or so long at most, and lists the tokens of what is.
    pub(crate) fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit = limit.map(timespec);
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let data = event.data;
            ready.push(usize::try_from(data.u64()).unwrap_or(usize::MAX));
        }
        Ok(())
    }
}

/// A timer that expires once at each time that it is set to. A descriptor, so that it is waited for with everything else, to the nanosecond.
pub(crate) struct Timer {
    timer: OwnedFd,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Timer> {
        Ok(Timer { timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)? })
    }

    /// Expires at `at`; at once when that has passed. What it was set to before no longer counts, and neither does an expiry that nobody saw.
    pub(crate) fn set(&self, at: Instant) -> io::Result<()> {
        // Zero would stop it.
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let when = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &when)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// Whether an error only says that there is nothing to do at present.
pub(crate) fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
