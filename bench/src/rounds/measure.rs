//! One peer, once: it is started, warmed up, asked, and what it cost is read.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Options;
use super::admin::{Admin, Done};
use super::cost::{Memory, memory, processor_time, time_of_others, tree};
use super::machine::realtime;
use super::peer::{Peer, Places, RouterState};
use super::process::{LOOK_EVERY, Process};
use super::workloads::{Contender, Load, Placement, Workload};
use super::{h2load, machine};
use crate::load::{Crowd, Identity, Mark, OnMark, Pace, Shape, Summary, Target, closed, idle, open, trust};

/// For a peer to answer its first request.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Ports of peers are taken from these, below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// A peer that idles, with connections or without, is looked at when it has for so long.
const SETTLE: Duration = Duration::from_secs(3);

static NEXT_PORT: AtomicU16 = AtomicU16::new(PORTS.start);

/// The backends of every run, and where their names are in configs.
pub(crate) struct Upstreams {
    pub(crate) process: Process,
    pub(crate) blue: u16,
    pub(crate) green: u16,
    pub(crate) canary: u16,
    /// The same two over HTTP/2.
    pub(crate) blue_h2: u16,
    pub(crate) canary_h2: u16,
}

/// What one run came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Processor time of the peer's processes, per answer, in microseconds. Nothing where there is no peer.
    pub(crate) cpu_us: Option<f64>,
    /// The same as a part of the measured time: above one, more than one processor's.
    pub(crate) busy: Option<f64>,
    /// What everybody else on the machine used meanwhile, in processors: what is neither the peer's, the generator's nor the upstreams'.
    pub(crate) others: Option<f64>,
    pub(crate) per_second: f64,
    /// Before the first request, and at the end. Nothing where it cannot be read.
    pub(crate) memory_before: Option<Memory>,
    pub(crate) memory: Option<Memory>,
    pub(crate) done: Option<Done>,
    pub(crate) is_realtime: bool,
    pub(crate) load: Summary,
}

/// What does not change from run to run.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) upstreams: Upstreams,
    pub(crate) identity: Identity,
    pub(crate) work: PathBuf,
}

/// Time on processors until a moment.
struct Costs {
    at: Instant,
    peer: Duration,
    others: Duration,
}

/// A peer that runs.
pub(crate) struct Running {
    process: Process,
    ports: Ports,
    is_realtime: bool,
    /// Whether it was asked before: it is warm.
    was_asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    http2: u16,
    tls: u16,
    admin: u16,
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    for _ in PORTS {
        let port = NEXT_PORT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |port| Some(if port + 1 < PORTS.end { port + 1 } else { PORTS.start }));
        let port = port.unwrap_or(PORTS.start);
        if TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Bench<'_> {
    /// Whether a contender can be measured: its program is there, and takes its config. The line in which it says its version.
    pub(crate) fn look_at(&self, contender: &Contender) -> Result<String> {
        if contender.peer.is_empty() {
            return Ok(String::new());
        }
        let ports = Ports { http: free_port()?, http2: free_port()?, tls: free_port()?, admin: free_port()? };
        let (peer, program, _) = self.prepare(contender, ports, &self.work.join("look"))?;
        Ok(peer.version(&program))
    }

    /// Its files, written.
    fn prepare(&self, contender: &Contender, ports: Ports, work: &Path) -> Result<(Peer, PathBuf, Vec<String>)> {
        let peer = Peer::read(&self.options.peers.join(contender.peer))?;
        let places = self.places(contender, ports, work)?;
        let variant = peer.variant(contender.variant)?;
        let program = peer.find(variant, &self.options.tools, &places)?;
        let arguments = peer.prepare(&program, variant, work, &places)?;
        Ok((peer, program, arguments))
    }

    fn work_of(&self, contender: &Contender) -> PathBuf {
        let label: String = contender.label.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        self.work.join(format!("{}-{}-{label}", contender.peer, contender.variant))
    }

    fn places(&self, contender: &Contender, ports: Ports, work: &Path) -> Result<Places> {
        let text = |path: &Path| path.display().to_string();
        Ok(Places(vec![
            ("@PORT@", ports.http.to_string()),
            ("@PORT_H2@", ports.http2.to_string()),
            ("@PORT_TLS@", ports.tls.to_string()),
            ("@PORT_ADMIN@", ports.admin.to_string()),
            ("@BLUE@", self.upstreams.blue.to_string()),
            ("@GREEN@", self.upstreams.green.to_string()),
            ("@CANARY@", self.upstreams.canary.to_string()),
            ("@BLUE_H2@", self.upstreams.blue_h2.to_string()),
            ("@CANARY_H2@", self.upstreams.canary_h2.to_string()),
            ("@CERT@", text(&self.identity.cert)),
            ("@KEY@", text(&self.identity.key)),
            ("@PAIR@", text(&self.identity.cert.with_file_name("pair.pem"))),
            ("@WORKERS@", contender.workers.to_string()),
            ("@WORK@", text(work)),
            ("@TOOLS@", text(&self.options.tools)),
            ("@SWITCHBACK@", text(&self.options.switchback)),
            ("@UNPROFILED@", self.options.unprofiled.as_deref().map(text).unwrap_or_default()),
            ("@SELF@", text(&std::env::current_exe()?)),
        ]))
    }

    fn start(&self, workload: &Workload, contender: &Contender) -> Result<Running> {
        let ports = Ports { http: free_port()?, http2: free_port()?, tls: free_port()?, admin: free_port()? };
        // What a peer keeps, such as a compiled policy, is there in its next round.
        let work = self.work_of(contender);
        let (peer, program, arguments) = self.prepare(contender, ports, &work)?;
        let processors = match workload.placement {
            Placement::Apart => self.options.peer_cpu.clone(),
            Placement::Together => format!("{},{}", self.options.peer_cpu, self.options.load_cpu),
        };
        Admin::forget(&work.join("data"))?;
        let mut process = Process::start(&program, &arguments, &processors, &work.join("log"))?;
        let first = match &contender.load {
            Some(Load::Closed(shape)) => shape.clone(),
            _ => Shape::get(),
        };
        wait_for_answer(&mut process, ports.http, &first)?;
        if let Some(state) = &peer.variant(contender.variant)?.router {
            self.admin(ports, &work).prepare(state, &self.options.tools).context("bringing the router into its state")?;
        }
        // A peer that has no listener of its own for HTTP/2 takes it where it takes HTTP/1.1.
        let http2 = if TcpStream::connect(loopback(ports.http2)).is_ok() { ports.http2 } else { ports.http };
        let is_realtime = workload.is_realtime && self.raise(&process).is_ok();
        Ok(Running { process, ports: Ports { http2, ..ports }, is_realtime, was_asked: false })
    }

    fn admin(&self, ports: Ports, work: &Path) -> Admin {
        Admin::new(loopback(ports.admin), &work.join("data"))
    }

    /// Measures a contender once, which is started where it does not run, and ended where it failed.
    pub(crate) fn measure(&self, workload: &Workload, contender: &Contender, running: &mut Option<Running>) -> Result<Measured> {
        if contender.peer.is_empty() {
            return self.measure_straight(workload);
        }
        let mut now = match running.take() {
            Some(running) => running,
            None => self.start(workload, contender)?,
        };
        let result = self.measure_running(workload, contender, &mut now);
        if workload.is_realtime {
            self.lower()?;
        }
        let measured = Measured { is_realtime: now.is_realtime, ..result? };
        *running = Some(Running { was_asked: true, ..now });
        Ok(measured)
    }

    /// A part of the time is for warming up, once for a process that was just started.
    fn pace(&self, workload: &Workload, was_asked: bool) -> Pace {
        let whole = self.options.pace();
        let turns = workload.turns();
        Pace { warm_up: if was_asked { whole.warm_up / turns } else { whole.warm_up }, measured: whole.measured / turns }
    }

    fn measure_straight(&self, workload: &Workload) -> Result<Measured> {
        let everybody = [std::process::id(), self.upstreams.process.id()];
        let is_realtime = workload.is_realtime && realtime(&everybody, true).is_ok();
        let ports = Ports { http: self.upstreams.blue, http2: 0, tls: 0, admin: 0 };
        let load = self.load(&workload.load, ports, self.pace(workload, true), &mut |_| Ok(()));
        if workload.is_realtime {
            self.lower()?;
        }
        let load = load?;
        let per_second = load.answers as f64 / load.seconds;
        Ok(Measured {
            cpu_us: None,
            busy: None,
            others: None,
            per_second,
            memory_before: None,
            memory: None,
            done: None,
            is_realtime,
            load,
        })
    }

    fn raise(&self, process: &Process) -> Result<()> {
        let mut everybody = tree(process.id());
        everybody.extend([std::process::id(), self.upstreams.process.id()]);
        realtime(&everybody, true)
    }

    fn lower(&self) -> Result<()> {
        realtime(&[std::process::id(), self.upstreams.process.id()], false)
    }

    fn measure_running(&self, workload: &Workload, contender: &Contender, running: &mut Running) -> Result<Measured> {
        let root = running.process.id();
        if matches!(workload.load, Load::Idle) {
            // What only the start needed is given back by then, by whoever does that.
            thread::sleep(SETTLE);
        }
        let memory_before = memory(&tree(root));
        let mut costs = Vec::new();
        let mut memory_at_end = None;
        let mut on_mark = |mark: Mark| {
            if mark == Mark::Begin && matches!(workload.load, Load::Idle) {
                thread::sleep(SETTLE);
            }
            let processes = tree(root);
            costs.push(self.costs(mark, &processes)?);
            if mark == Mark::End {
                memory_at_end = memory(&processes);
            }
            Ok(())
        };
        let asked = workload.load_of(contender);
        let (ports, pace) = (running.ports, self.pace(workload, running.was_asked));
        let (load, done) = match self.state_of(contender)? {
            Some(state) if contender.is_operated => {
                let admin = self.admin(ports, &self.work_of(contender));
                operated(&admin, &state, || self.load(asked, ports, pace, &mut on_mark))?
            }
            _ => (self.load(asked, ports, pace, &mut on_mark)?, None),
        };
        running.process.check()?;
        let [before, after] = costs.as_slice() else { bail!("it was not measured from begin to end") };
        let spent = |what: fn(&Costs) -> Duration| what(after).saturating_sub(what(before)).as_secs_f64();
        let (cpu, time) = (spent(|costs| costs.peer), after.at.duration_since(before.at).as_secs_f64());
        let others = spent(|costs| costs.others);
        let has_cost = !matches!(workload.load, Load::Idle);
        Ok(Measured {
            cpu_us: has_cost.then(|| cpu * 1e6 / (load.answers as f64).max(1.0)),
            busy: has_cost.then(|| cpu / time),
            others: has_cost.then(|| others / time),
            per_second: load.answers as f64 / load.seconds,
            memory_before,
            memory: memory_at_end,
            done,
            is_realtime: false,
            load,
        })
    }

    /// What was used until now. Looking at everybody else takes milliseconds, which lie outside of the measured time.
    fn costs(&self, mark: Mark, peer: &[u32]) -> Result<Costs> {
        let these = [peer, &[std::process::id(), self.upstreams.process.id()]].concat();
        let before = (mark == Mark::Begin).then(|| time_of_others(&these));
        let (at, cost) = (Instant::now(), processor_time(peer)?);
        Ok(Costs { at, peer: cost, others: before.unwrap_or_else(|| time_of_others(&these)) })
    }

    fn state_of(&self, contender: &Contender) -> Result<Option<RouterState>> {
        let peer = Peer::read(&self.options.peers.join(contender.peer))?;
        Ok(peer.variant(contender.variant)?.router.clone())
    }

    fn load(&self, load: &Load, ports: Ports, pace: Pace, on_mark: OnMark) -> Result<Summary> {
        let crowd = |port, shape: &Shape, is_tls: bool, connections| {
            let tls = if is_tls { Some(trust(&self.identity.cert)?) } else { None };
            let mut crowd = Crowd::new(Target { address: loopback(port), tls }, shape.requests())?;
            crowd.join(connections)?;
            Ok::<Crowd, anyhow::Error>(crowd)
        };
        let usual = self.options.connections.get();
        match load {
            Load::Closed(shape) => closed(&mut crowd(ports.http, shape, false, usual)?, pace, on_mark),
            Load::Tls(shape) => closed(&mut crowd(ports.tls, shape, true, usual)?, pace, on_mark),
            Load::One => closed(&mut crowd(ports.http, &Shape::get(), false, 1)?, pace, on_mark),
            Load::Open(rate) => open(&mut crowd(ports.http, &Shape::get(), false, usual)?, *rate, pace, on_mark),
            Load::Idle => idle(&mut crowd(ports.http, &Shape::get(), false, 0)?, self.options.idle_clients.get(), on_mark),
            Load::Http2 => http2(ports.http2, pace, on_mark),
        }
    }
}

/// h2load measures a process's whole life, so that begin and end are its.
fn http2(port: u16, pace: Pace, on_mark: OnMark) -> Result<Summary> {
    h2load::warm_up(port)?;
    on_mark(Mark::Begin)?;
    let summary = h2load::load(port, pace.measured)?;
    on_mark(Mark::End)?;
    Ok(summary)
}

/// Runs a load while an operator is at work.
fn operated(admin: &Admin, state: &RouterState, load: impl FnOnce() -> Result<Summary>) -> Result<(Summary, Option<Done>)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let operator = scope.spawn(|| admin.operate(&state.route, &is_over));
        let summary = load();
        is_over.store(true, Ordering::Relaxed);
        let done = operator.join().map_err(|_| anyhow::anyhow!("the operator's thread panicked"))?;
        Ok((summary?, Some(done.context("flipping and swapping")?)))
    })
}

/// Waits until a request is answered with 200.
fn wait_for_answer(process: &mut Process, port: u16, shape: &Shape) -> Result<()> {
    let until = Instant::now() + READY_WITHIN;
    let target = Target { address: loopback(port), tls: None };
    loop {
        process.check()?;
        let once = Pace { warm_up: Duration::ZERO, measured: LOOK_EVERY };
        let answered = Crowd::new(target.clone(), shape.requests()).and_then(|mut crowd| {
            crowd.join(1)?;
            closed(&mut crowd, once, &mut |_| Ok(()))
        });
        if answered.is_ok_and(|summary| summary.statuses.contains_key(&200) && summary.failures() == 0) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("it does not answer with 200 within {} s", READY_WITHIN.as_secs());
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Starts the backends where this program runs.
pub(crate) fn start_upstreams(work: &Path, load_cpu: &str) -> Result<Upstreams> {
    let [blue, green, canary, blue_h2, canary_h2] = [free_port()?, free_port()?, free_port()?, free_port()?, free_port()?];
    let mut arguments = vec!["upstream".to_owned()];
    arguments.extend([("blue", blue), ("green", green), ("canary", canary)].map(|(name, port)| format!("{name}={}", loopback(port))));
    arguments.extend([("blue", blue_h2), ("canary", canary_h2)].map(|(name, port)| format!("--http2={name}={}", loopback(port))));
    machine::pin(load_cpu)?;
    let mut process = Process::start(&std::env::current_exe()?, &arguments, load_cpu, &work.join("upstream.log"))?;
    wait_for_answer(&mut process, blue, &Shape::get())?;
    Ok(Upstreams { process, blue, green, canary, blue_h2, canary_h2 })
}
