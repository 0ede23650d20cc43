//! Which faults a seed stands for, and when. Pure: the same seed is the same plan.

use std::fmt;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The router that moves the rollout is killed, and comes back later.
    KillHolder,
    /// Any router is.
    KillRouter,
    /// Redis is killed, and comes back with what it wrote down.
    KillRedis,
    /// The router that moves the rollout is stopped for longer than its lease, and goes on: two take themselves for the holder.
    SleepHolder,
    /// The wall clock of every router is set, and in half of the plans set back later.
    RouterClocks,
    /// A router is killed, and comes back with another wall clock than the others.
    StrangeClock,
    /// The wall clock of Redis is set, and in half of the plans set back later.
    RedisClock,
    /// A feature flag is set with redis-cli.
    EditFlag,
    /// A share is set with redis-cli: the rollout pauses, and an operator resumes it.
    EditShare,
}

impl Kind {
    pub(crate) const ALL: [Kind; 9] = [
        Kind::KillHolder,
        Kind::KillRouter,
        Kind::KillRedis,
        Kind::SleepHolder,
        Kind::RouterClocks,
        Kind::StrangeClock,
        Kind::RedisClock,
        Kind::EditFlag,
        Kind::EditShare,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::KillHolder => "kill -9 of the router that moves it",
            Kind::KillRouter => "kill -9 of any router",
            Kind::KillRedis => "kill -9 of Redis",
            Kind::SleepHolder => "the router that moves it sleeps longer than its lease",
            Kind::RouterClocks => "the routers' clocks jump by an hour",
            Kind::StrangeClock => "a router comes back with a clock an hour off",
            Kind::RedisClock => "Redis' clock jumps by an hour",
            Kind::EditFlag => "bare edit of a flag",
            Kind::EditShare => "bare edit of a share",
        }
    }
}

/// How far a rollout is: its two steps, baking, over.
pub(crate) const STAGES: usize = 4;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// The stage that has to be reached first; [`STAGES`] - 1 is the end of the rollout.
    pub(crate) stage: usize,
    /// So much later.
    pub(crate) after: Duration,
    /// How long it lasts, where it ends.
    pub(crate) lasts: Duration,
    /// Of a clock, in seconds.
    pub(crate) jump: i64,
    /// Whether the clock is set right again.
    pub(crate) goes_back: bool,
    /// Which router, where any will do.
    pub(crate) which: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, stage, after, lasts, jump, goes_back, which } = self;
        write!(f, "{} at stage {stage} + {after:?}", kind.label())?;
        match kind {
            Kind::RouterClocks | Kind::RedisClock if *goes_back => write!(f, ", {jump:+} s for {lasts:?}"),
            Kind::RouterClocks | Kind::RedisClock => write!(f, ", {jump:+} s"),
            Kind::StrangeClock => write!(f, ", router {which}, {jump:+} s"),
            Kind::KillRouter => write!(f, ", router {which}, for {lasts:?}"),
            Kind::KillHolder | Kind::KillRedis | Kind::SleepHolder => write!(f, ", for {lasts:?}"),
            Kind::EditFlag | Kind::EditShare => Ok(()),
        }
    }
}

/// What happens in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The candidate answers as it should; else it fails every other query, and has to be rolled back.
    pub(crate) is_good: bool,
    pub(crate) routers: usize,
    /// The receiver of notifications leaves some tries unanswered.
    pub(crate) is_deaf: bool,
    /// In the order of time.
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    /// The kinds come in turn. Half of the runs have a second fault of any kind.
    pub(crate) fn of(seed: u64) -> Plan {
        let mut dice = Dice(seed);
        let kinds = Kind::ALL.len() as u64;
        let main = Kind::ALL[(seed % kinds) as usize];
        let is_good = (seed / kinds) % 4 != 3;
        let routers = if dice.up_to(3) == 0 { 3 } else { 2 };
        let mut faults = Vec::new();
        if main == Kind::KillHolder && is_good && dice.up_to(2) == 0 {
            // At every transition.
            faults
                .extend((0..STAGES).map(|stage| Fault { after: Duration::from_millis(dice.up_to(150)), ..fault(main, stage, &mut dice) }));
        } else {
            let stage = if is_good { dice.up_to(last_stage(main)) as usize } else { 0 };
            faults.push(fault(main, stage, &mut dice));
            if dice.up_to(2) == 0 {
                let kind = Kind::ALL[dice.up_to(kinds) as usize];
                let stage = if is_good { dice.up_to(last_stage(kind)) as usize } else { 0 };
                faults.push(fault(kind, stage, &mut dice));
            }
        }
        faults.sort_by_key(|fault| (fault.stage, fault.after));
        Plan { seed, is_good, routers, is_deaf: dice.up_to(3) == 0, faults }
    }
}

/// What matters to the rollout alone comes before its end.
fn last_stage(kind: Kind) -> u64 {
    match kind {
        Kind::SleepHolder | Kind::EditShare => 3,
        _ => 4,
    }
}

fn fault(kind: Kind, stage: usize, dice: &mut Dice) -> Fault {
    let lasts = match kind {
        Kind::SleepHolder => 3_500 + dice.up_to(2_500),
        Kind::KillRedis => 200 + dice.up_to(3_000),
        _ => 300 + dice.up_to(4_000),
    };
    Fault {
        kind,
        stage,
        after: Duration::from_millis(if dice.up_to(3) == 0 { 0 } else { dice.up_to(2_000) }),
        lasts: Duration::from_millis(lasts),
        // On both sides of what the routers once took for a clock.
        jump: (if dice.up_to(2) == 0 { 1 } else { -1 }) * if dice.up_to(3) == 0 { 3_600 } else { 3_595 },
        goes_back: dice.up_to(2) == 0,
        which: dice.up_to(3) as usize,
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    /// From 0, below `end`.
    fn up_to(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
