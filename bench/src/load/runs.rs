//! The three kinds of load: closed loop, open loop, and connections that only stay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::crowd::{Crowd, Mark};
use super::tally::Summary;
use crate::poll::Timer;

/// How long a run waits for anything before it looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Open loop: requests that wait for a connection. Further ones are not sent, and counted: so much behind, a peer does not keep up.
const MOST_WAITING: usize = 20_000;
/// Open loop: for answers to what was due, when the measured time is over.
const GRACE: Duration = Duration::from_secs(1);
/// Clients that connect at once, below what a listener's queue holds.
const AT_ONCE: usize = 100;
/// For a wave of those to be answered.
const WAVE_WITHIN: Duration = Duration::from_secs(20);

/// How long a run takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Before anything counts.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Is told when measuring begins and ends.
pub(crate) type OnMark<'a> = &'a mut dyn FnMut(Mark) -> Result<()>;

/// Which part of a run counts.
struct Measuring {
    begin: Instant,
    measured: Duration,
    /// Once it has.
    began: Option<Instant>,
}

impl Measuring {
    fn new(start: Instant, pace: Pace) -> Measuring {
        Measuring { begin: start + pace.warm_up, measured: pace.measured, began: None }
    }

    /// Begins it when it is due. True when it is over, and the crowd's tally is whole.
    fn is_over(&mut self, crowd: &mut Crowd, on_mark: OnMark<'_>) -> Result<bool> {
        let now = Instant::now();
        match self.began {
            None if now >= self.begin => {
                on_mark(Mark::Begin)?;
                crowd.forget()?;
                self.began = Some(Instant::now());
            }
            Some(began) if now >= began + self.measured => {
                crowd.tally.end(now - began);
                on_mark(Mark::End)?;
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }
}

/// Every client asks again as soon as it was answered: as many requests as the target takes.
pub(crate) fn closed(crowd: &mut Crowd, pace: Pace, on_mark: OnMark) -> Result<Summary> {
    let mut measuring = Measuring::new(Instant::now(), pace);
    let mut ready = Vec::new();
    for place in 0..crowd.len() {
        crowd.ask(place, Instant::now())?;
    }
    loop {
        crowd.wait(LOOK_EVERY, &mut ready)?;
        if measuring.is_over(crowd, on_mark)? {
            return Ok(crowd.tally.summary());
        }
        for &place in &ready {
            let (answered, is_free) = crowd.hear(place)?;
            if let Some((asked, answer)) = answered {
                crowd.tally.add(answer, asked.since.elapsed());
            }
            if is_free {
                crowd.ask(place, Instant::now())?;
            }
        }
    }
}

/// Requests are due at even times, whether or not those before them were answered, and their latency counts from then.
pub(crate) fn open(crowd: &mut Crowd, per_second: u32, pace: Pace, on_mark: OnMark) -> Result<Summary> {
    let timer = Timer::new()?;
    crowd.watch(&timer)?;
    let mut schedule = Schedule::new(per_second, crowd.len())?;
    let mut measuring = Measuring::new(schedule.start, pace);
    let mut ready = Vec::new();
    loop {
        schedule.send_what_is_due(crowd, measuring.began)?;
        timer.set(schedule.next())?;
        crowd.wait(LOOK_EVERY, &mut ready)?;
        if measuring.is_over(crowd, on_mark)? {
            let began = measuring.began.unwrap_or(measuring.begin);
            timer.set(Instant::now() + GRACE)?;
            schedule.wait_for_overdue(crowd, began, &mut ready)?;
            return Ok(crowd.tally.summary());
        }
        for &place in &ready {
            schedule.hear(crowd, place, measuring.began, None)?;
        }
    }
}

/// When requests are due, and who is free to send them.
struct Schedule {
    start: Instant,
    interval: Duration,
    /// The number of the next request.
    number: u32,
    /// Connections that wait for nothing, the one that has for longest first.
    free: VecDeque<usize>,
    /// Requests that are due and wait for a connection.
    waiting: VecDeque<Instant>,
}

impl Schedule {
    fn new(per_second: u32, clients: usize) -> Result<Schedule> {
        if per_second == 0 {
            bail!("a rate of 0");
        }
        let interval = Duration::from_secs(1) / per_second;
        Ok(Schedule { start: Instant::now(), interval, number: 0, free: (0..clients).collect(), waiting: VecDeque::new() })
    }

    fn next(&self) -> Instant {
        self.start + self.interval * self.number
    }

    fn send_what_is_due(&mut self, crowd: &mut Crowd, began: Option<Instant>) -> Result<()> {
        while self.next() <= Instant::now() {
            let due = self.next();
            self.number += 1;
            if self.waiting.len() < MOST_WAITING {
                self.waiting.push_back(due);
            } else {
                crowd.tally.unsent += 1;
            }
        }
        self.send_waiting(crowd, began.is_some())
    }

    /// Sends what waits, as far as connections are free.
    fn send_waiting(&mut self, crowd: &mut Crowd, is_measured: bool) -> Result<()> {
        while let Some(&due) = self.waiting.front()
            && let Some(place) = self.free.pop_front()
        {
            self.waiting.pop_front();
            if self.waiting.is_empty() && is_measured {
                crowd.tally.sent_late_by(due.elapsed());
            }
            crowd.ask(place, due)?;
        }
        Ok(())
    }

    /// Takes what has come on a connection: at `at`, or now. An answer counts if its request was due since `began`.
    fn hear(&mut self, crowd: &mut Crowd, place: usize, began: Option<Instant>, at: Option<Instant>) -> Result<()> {
        let (answered, is_free) = crowd.hear(place)?;
        if let Some((asked, answer)) = answered
            && began.is_some_and(|began| asked.since >= began)
        {
            crowd.tally.add(answer, at.unwrap_or_else(Instant::now).saturating_duration_since(asked.since));
        }
        if is_free {
            self.free.push_back(place);
        }
        Ok(())
    }

    /// The measured time is over. What was due in it is charged all the same, so that a stall at the end is in the tail: answers are waited for,
    /// for so long, and what has none then is lost, or was never sent. `ready` are the places that have something already.
    fn wait_for_overdue(&mut self, crowd: &mut Crowd, began: Instant, ready: &mut Vec<usize>) -> Result<()> {
        let until = Instant::now() + GRACE;
        // What came while the end was marked came at the end: that this program was busy is not the target's.
        let ended = began + crowd.tally.time;
        let mut came = std::mem::take(ready);
        crowd.wait(Duration::ZERO, ready)?;
        came.append(ready);
        for place in came {
            self.hear(crowd, place, Some(began), Some(ended))?;
        }
        loop {
            self.send_waiting(crowd, false)?;
            let is_done = self.waiting.is_empty() && crowd.unanswered(began) == 0;
            if is_done || Instant::now() >= until {
                break;
            }
            crowd.wait(LOOK_EVERY, ready)?;
            for &place in ready.iter() {
                self.hear(crowd, place, Some(began), None)?;
            }
        }
        crowd.tally.lost += crowd.unanswered(began) as u64;
        crowd.tally.unsent += self.waiting.iter().filter(|due| **due >= began).count() as u64;
        Ok(())
    }
}

/// Clients that ask once, and then keep their connections. `while_idle` is called when all were answered.
pub(crate) fn idle(crowd: &mut Crowd, clients: usize, on_mark: OnMark) -> Result<Summary> {
    let began = Instant::now();
    let mut ready = Vec::new();
    while crowd.len() < clients {
        let first = crowd.len();
        crowd.join(AT_ONCE.min(clients - first))?;
        for place in first..crowd.len() {
            crowd.ask(place, Instant::now())?;
        }
        let mut left = crowd.len() - first;
        let until = Instant::now() + WAVE_WITHIN;
        while left > 0 {
            if Instant::now() > until {
                bail!("{left} of {} clients got no answer within {} s", crowd.len(), WAVE_WITHIN.as_secs());
            }
            crowd.wait(LOOK_EVERY, &mut ready)?;
            for &place in &ready {
                if let (Some((asked, answer)), _) = crowd.hear(place)? {
                    crowd.tally.add(answer, asked.since.elapsed());
                    left -= 1;
                }
            }
        }
    }
    on_mark(Mark::Begin)?;
    on_mark(Mark::End)?;
    crowd.wait(Duration::ZERO, &mut ready)?;
    for &place in &ready {
        crowd.hear(place)?;
    }
    if crowd.ended > 0 {
        bail!("{} or more of {clients} connections were not kept", crowd.ended);
    }
    crowd.tally.end(began.elapsed());
    Ok(crowd.tally.summary())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::load::{Shape, Target};

    #[test]
    fn a_stall_at_the_end_of_an_open_loop_is_in_the_tail() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target { address: listener.local_addr().unwrap(), tls: None };
        let (end, ended) = sync_channel(1);
        // Nobody is answered before the end; then one connection is, and the other one never.
        thread::spawn(move || {
            let (mut late, _) = listener.accept().unwrap();
            let (_never, _) = listener.accept().unwrap();
            ended.recv().unwrap();
            while late.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let _ = late.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let mut crowd = Crowd::new(target, Shape::get().requests()).unwrap();
        crowd.join(2).unwrap();
        let on_mark = &mut |mark: Mark| {
            if mark == Mark::End {
                end.send(())?;
            }
            Ok(())
        };
        // Due at 0 (before it begins), 100, 200 and 300 ms.
        let pace = Pace { warm_up: Duration::ZERO, measured: Duration::from_millis(350) };
        let summary = open(&mut crowd, 10, pace, on_mark).unwrap();
        assert_eq!((summary.answers, summary.overdue, summary.lost, summary.unsent), (0, 2, 1, 0));
        assert!(summary.seconds < 1.0, "{}", summary.seconds);
        assert!(summary.latency.unwrap().max_us >= 140_000.0);
    }
}
