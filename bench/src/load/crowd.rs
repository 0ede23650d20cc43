//! The clients of a run, on one thread: whom to wait for, who asks next, and what was heard.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::client::{Asked, Client, Heard, Target};
use super::tally::{Answer, Arm, Tally};
use crate::poll::Poll;
use crate::wire::READ_BYTES;

/// A run with more lost requests than this tells nothing, and ends.
const MOST_LOST: u64 = 10_000;

/// A moment of a run: what is measured of others is measured from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The warm-up is over.
    Begin,
    End,
}

/// Clients of one target, each with one connection.
pub(crate) struct Crowd {
    target: Target,
    requests: Vec<Vec<u8>>,
    clients: Vec<Client>,
    /// Who answered each user last.
    arms: Vec<Option<Arm>>,
    next_user: usize,
    poll: Poll,
    buffer: Vec<u8>,
    pub(crate) tally: Tally,
    /// Connections that the target ended.
    pub(crate) ended: u64,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(target: Target, requests: Vec<Vec<u8>>) -> Result<Crowd> {
        if requests.is_empty() {
            bail!("no user, no request");
        }
        let arms = vec![None; requests.len()];
        let (poll, buffer) = (Poll::new()?, vec![0; READ_BYTES]);
        Ok(Crowd { target, requests, clients: Vec::new(), arms, next_user: 0, poll, buffer, tally: Tally::new()?, ended: 0 })
    }

    /// So many more, connected.
    pub(crate) fn join(&mut self, clients: usize) -> Result<()> {
        for _ in 0..clients {
            let client = Client::connect(&self.target)?;
            self.poll.watch_both(client.stream(), self.clients.len())?;
            self.clients.push(client);
        }
        Ok(())
    }

    /// How many there are. Their places are the numbers below that.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Something else to wait for; its place is [`Crowd::len`] as it is then.
    pub(crate) fn watch(&self, source: impl AsFd) -> Result<()> {
        Ok(self.poll.watch_input(source, self.clients.len())?)
    }

    /// Waits, at most so long, and lists the places of those that have something.
    pub(crate) fn wait(&mut self, limit: Duration, ready: &mut Vec<usize>) -> Result<()> {
        Ok(self.poll.wait(Some(limit), ready)?)
    }

    /// The next user asks on this connection. On one that turns out to be over, the request is lost, and the connection is made anew.
    pub(crate) fn ask(&mut self, place: usize, since: Instant) -> Result<()> {
        let user = self.next_user;
        self.next_user = (user + 1) % self.requests.len();
        let (Some(client), Some(request)) = (self.clients.get_mut(place), self.requests.get(user)) else { return Ok(()) };
        // What went wrong is heard when the connection is read.
        let _ = client.ask(request, Asked { user, since });
        Ok(())
    }

    /// What has come on this connection: a whole answer with the time since which it counts; or nothing yet. Of a connection that
    /// is over the request is counted as lost; the connection is made anew, and is free: [`Option::None`] with `true`.
    pub(crate) fn hear(&mut self, place: usize) -> Result<(Option<(Asked, Answer)>, bool)> {
        let Some(client) = self.clients.get_mut(place) else { return Ok((None, false)) };
        match client.hear(&mut self.buffer) {
            Heard::Nothing => Ok((None, false)),
            Heard::Answer(asked, answer) => {
                self.note_arm(asked.user, answer.arm);
                Ok((Some((asked, answer)), true))
            }
            Heard::Over(asked) => {
                self.ended += 1;
                let is_lost = asked.is_some();
                self.tally.lost += u64::from(is_lost);
                if self.tally.lost > MOST_LOST {
                    bail!("more than {MOST_LOST} requests were lost");
                }
                let anew = Client::connect(&self.target)?;
                self.poll.watch_both(anew.stream(), place)?;
                *client = anew;
                // Whoever had asked nothing was free before.
                Ok((None, is_lost))
            }
        }
    }

    /// How many requests wait for an answer, of those that count from `began` on.
    pub(crate) fn unanswered(&self, began: Instant) -> usize {
        self.clients.iter().filter(|client| client.asked().is_some_and(|asked| asked.since >= began)).count()
    }

    fn note_arm(&mut self, user: usize, arm: Arm) {
        if let Some(before) = self.arms.get_mut(user) {
            let is_moved = before.is_some_and(|before| before != arm);
            self.tally.moved += u64::from(is_moved);
            *before = Some(arm);
        }
    }

    /// What was counted so far is forgotten: the warm-up is over.
    pub(crate) fn forget(&mut self) -> Result<()> {
        self.tally = Tally::new()?;
        Ok(())
    }
}
