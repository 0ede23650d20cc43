//! The judge over a model: a store that can lose its writes, people who edit by hand, and routers that act on what they read earlier.
//!
//! Every interleaving of reads and writes is allowed; what must hold at every step and when all is quiet is stated once, at the end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::judge::{Judge, Mine, Settled, Stored, Verdict, Write, settle, without_epoch};
use super::ledger::Kind;
use super::{Fields, seal};

const ROUTERS: usize = 3;

/// What Redis does, in memory: the semantics of read.lua and write.lua.
#[derive(Debug, Clone, Default)]
struct Store {
    flags: Fields,
    sealed: Fields,
    ledger: Vec<(u64, Kind)>,
}

impl Store {
    fn read(&self) -> Stored {
        let content = if self.flags.is_empty() { String::new() } else { seal(&self.flags) };
        let is_sealed = self.flags.get("seal") == Some(&content);
        let base = if is_sealed { Fields::new() } else { self.sealed.clone() };
        Stored { fields: self.flags.clone(), content, base, is_oversized: false }
    }

    fn write(&mut self, write: &Write) -> bool {
        let now = self.read();
        let is_sealed = now.fields.get("seal").is_some_and(|seal| *seal == now.content);
        if now.content != write.expected_content || is_sealed != write.expected_sealed {
            return false;
        }
        self.flags = write.fields.clone();
        self.flags.insert("epoch".to_owned(), write.epoch.to_string());
        self.flags.insert("seal".to_owned(), seal(&self.flags));
        self.sealed = self.flags.clone();
        self.ledger.push((write.epoch, write.kind));
        true
    }
}

#[derive(Debug, Clone, Default)]
struct Router {
    mine: Mine,
    /// Read, and not acted on yet.
    read: Option<Stored>,
}

/// What the router makes of a sealed hash or of an obeyed edit; values are always good here.
fn put_in_force(mine: &mut Mine, fields: &Fields) {
    mine.in_force = without_epoch(fields);
    if let Some(seal) = fields.get("seal") {
        mine.epoch = fields["epoch"].parse().unwrap();
        mine.seal = seal.clone();
        mine.sealed = mine.in_force.clone();
    }
}

impl Router {
    fn act(&mut self, store: &mut Store) {
        let Some(stored) = self.read.take() else { return };
        let judge = Judge { me: "router", colours: &["blue", "green"], fresh_salt: "0123456789abcdef" };
        let verdict = match judge.judge(&stored, &self.mine) {
            Verdict::Tie => match settle(store.ledger.last().map(|(_, kind)| *kind)) {
                Settled::TheirsWins => Verdict::Apply,
                Settled::OursWins => Verdict::Reseed(judge.put_back(&stored, &self.mine)),
            },
            verdict => verdict,
        };
        let write = match verdict {
            Verdict::Apply | Verdict::Tie => return put_in_force(&mut self.mine, &stored.fields),
            Verdict::Obey { fields, adoption } => {
                put_in_force(&mut self.mine, &without_epoch(&fields));
                adoption.unwrap()
            }
            Verdict::Reseed(write) => write,
        };
        assert!(write.epoch > self.mine.epoch, "{write:?}");
        if store.write(&write) {
            put_in_force(&mut self.mine, &store.flags);
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Read(usize),
    Act(usize),
    /// HSET by a person.
    Edit(Fields),
    /// HDEL by a person.
    Remove(&'static str),
    /// The store is empty.
    Lose,
    /// The store saves itself, and later comes back like that.
    Save,
    Restore,
    /// A router's own change, on what it read last.
    Change(usize, Fields),
}

fn edit() -> impl Strategy<Value = Fields> {
    let live = prop_oneof!["blue", "green"].prop_map(|value: String| ("live".to_owned(), value));
    let share = "(1|5|25)".prop_map(|value: String| ("canary_percent".to_owned(), value));
    let free = "[a-c]{1,2}".prop_map(|value: String| ("flag.x".to_owned(), value));
    let meta = prop_oneof![
        "(0|7|99|soon)".prop_map(|value: String| ("epoch".to_owned(), value)),
        "[0-9a-f]{4}".prop_map(|value: String| ("seal".to_owned(), value))
    ];
    proptest::collection::btree_map(prop_oneof![3 => live, 3 => share, 3 => free, 1 => meta], 1..3, 1..3)
        .prop_map(|nested| nested.into_keys().collect())
}

fn event() -> impl Strategy<Value = Event> {
    let router = 0..ROUTERS;
    prop_oneof![
        8 => router.clone().prop_map(Event::Read),
        8 => router.clone().prop_map(Event::Act),
        4 => edit().prop_map(Event::Edit),
        1 => prop_oneof![Just("live"), Just("salt"), Just("flag.x"), Just("epoch"), Just("seal")].prop_map(Event::Remove),
        1 => Just(Event::Lose),
        1 => Just(Event::Save),
        1 => Just(Event::Restore),
        2 => (router, edit()).prop_map(|(router, edit)| Event::Change(router, edit)),
    ]
}

struct World {
    store: Store,
    saved: Store,
    routers: Vec<Router>,
}

impl World {
    fn new() -> World {
        let initial: Fields = [("live", "blue"), ("canary_percent", "0")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mine = Mine { sealed: initial.clone(), in_force: initial, ..Mine::default() };
        let routers = vec![Router { mine, read: None }; ROUTERS];
        World { store: Store::default(), saved: Store::default(), routers }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Read(router) => self.routers[*router].read = Some(self.store.read()),
            Event::Act(router) => self.routers[*router].act(&mut self.store),
            Event::Edit(fields) => self.store.flags.extend(fields.clone()),
            Event::Remove(field) => drop(self.store.flags.remove(*field)),
            Event::Lose => self.store = Store::default(),
            Event::Save => self.saved = self.store.clone(),
            Event::Restore => self.store = self.saved.clone(),
            Event::Change(router, edit) => self.change(*router, edit),
        }
    }

    /// As `redis::step::change`: only on flags that are sealed and in force here.
    fn change(&mut self, router: usize, edit: &Fields) {
        let Some(stored) = self.routers[router].read.take() else { return };
        let mine = &self.routers[router].mine;
        let Some(epoch) = stored.sealed_epoch().filter(|epoch| *epoch == mine.epoch && stored.fields["seal"] == mine.seal) else { return };
        let mut fields = without_epoch(&stored.fields);
        fields.extend(without_epoch(edit));
        let (expected_content, expected_sealed) = (stored.content, true);
        let (kind, who, why) = (Kind::Change, "alice".to_owned(), String::new());
        let write = Write { expected_content, expected_sealed, fields, epoch: epoch + 1, kind, who, why, what: Vec::new(), grounds: None };
        if self.store.write(&write) {
            put_in_force(&mut self.routers[router].mine, &self.store.flags.clone());
        }
    }

    /// Everybody reads and acts until nothing changes any more.
    fn settle_down(&mut self) -> Result<(), TestCaseError> {
        for router in &mut self.routers {
            router.read = None;
        }
        for _ in 0..4 {
            let before = self.store.ledger.len();
            for router in 0..ROUTERS {
                self.happen(&Event::Read(router));
                self.happen(&Event::Act(router));
            }
            if self.store.ledger.len() == before {
                return Ok(());
            }
        }
        Err(TestCaseError::fail(format!("never quiet: {:?}", self.store)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_router_goes_back_and_all_end_on_one_epoch(events in proptest::collection::vec(event(), 0..60)) {
        let mut world = World::new();
        for event in &events {
            let epochs: Vec<u64> = world.routers.iter().map(|router| router.mine.epoch).collect();
            world.happen(event);
            for (router, before) in world.routers.iter().zip(epochs) {
                prop_assert!(router.mine.epoch >= before, "back from {} by {:?}", before, event);
            }
        }
        world.settle_down()?;
        let stored = world.store.read();
        let epoch = stored.sealed_epoch();
        for router in &world.routers {
            prop_assert_eq!(Some(router.mine.epoch), epoch);
            prop_assert_eq!(&router.mine.seal, &stored.content);
            prop_assert_eq!(&router.mine.in_force, &without_epoch(&stored.fields));
        }
        prop_assert!(stored.fields["salt"].len() >= 8);
    }

    #[test]
    fn what_people_wrote_last_is_obeyed_and_adopted_once(
        events in proptest::collection::vec(event(), 0..40),
        live in prop_oneof!["blue", "green"],
        late in proptest::collection::vec(0..ROUTERS * 2, 0..20),
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        world.settle_down()?;
        let (flags, entries) = (world.store.flags.clone(), world.store.ledger.len());
        world.happen(&Event::Edit([("live".to_owned(), live.clone()), ("flag.y".to_owned(), entries.to_string())].into()));
        // Any interleaving of the routers' reads and acts from here on.
        for step in late {
            let router = step / 2;
            world.happen(&if step % 2 == 0 { Event::Read(router) } else { Event::Act(router) });
        }
        world.settle_down()?;
        prop_assert_eq!(&world.store.ledger[entries..], &[(flags["epoch"].parse::<u64>().unwrap() + 1, Kind::ExternalEdit)]);
        prop_assert_eq!(&world.store.flags["live"], &live);
        let is_flip = flags.get("live") != Some(&live);
        let share = if is_flip { Some("0") } else { flags.get("canary_percent").map(String::as_str) };
        prop_assert_eq!(world.store.flags.get("canary_percent").map(String::as_str), share);
        prop_assert_eq!(&world.store.flags["salt"], &flags["salt"], "units stay on their side");
    }

    #[test]
    fn a_store_that_lost_everything_gets_back_the_newest_flags_that_any_router_applied(events in proptest::collection::vec(event(), 0..40)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        world.settle_down()?;
        let (before, router) = (world.store.flags.clone(), world.routers[0].clone());
        // One router alone hears of a last change, and the store loses everything.
        world.happen(&Event::Read(0));
        world.happen(&Event::Change(0, [("flag.last".to_owned(), "kept".to_owned())].into()));
        prop_assert_eq!(world.routers[0].mine.epoch, router.mine.epoch + 1);
        world.happen(&Event::Lose);
        // The others come first: they had not heard of it.
        world.routers.reverse();
        world.settle_down()?;
        prop_assert_eq!(&world.store.flags["flag.last"], "kept");
        prop_assert_eq!(world.store.flags.get("live"), before.get("live"));
        prop_assert!(world.store.read().sealed_epoch().unwrap() > router.mine.epoch + 1);
    }
}

#[test]
fn an_edit_is_obeyed_even_when_it_cannot_be_adopted() {
    let judge = Judge { me: "router", colours: &["blue", "green"], fresh_salt: "0123456789abcdef" };
    let fields: Fields = [("live", "green"), ("canary_percent", "25")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mine = Mine { epoch: 4, in_force: [("live".to_owned(), "blue".to_owned())].into(), ..Mine::default() };
    let stored = Stored { fields, is_oversized: true, ..Stored::default() };
    let Verdict::Obey { fields, adoption: None } = judge.judge(&stored, &mine) else { panic!("not obeyed") };
    assert_eq!((fields["live"].as_str(), fields["canary_percent"].as_str()), ("green", "0"));
}

fn hash(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A store that was sealed at epoch 12, and then edited by hand to hold these fields.
fn edited(fields: Fields) -> Stored {
    let base = hash(&[("live", "blue"), ("canary_percent", "25"), ("pin", "green"), ("salt", "s12345678"), ("epoch", "12"), ("seal", "x")]);
    let content = if fields.is_empty() { String::new() } else { seal(&fields) };
    Stored { fields, content, base, is_oversized: false }
}

fn adopted(fields: Fields) -> (Fields, u64) {
    let judge = Judge { me: "router", colours: &["blue", "green"], fresh_salt: "fresh-salt" };
    match judge.judge(&edited(fields), &Mine { epoch: 12, ..Mine::default() }) {
        Verdict::Obey { fields, adoption: Some(write) } => {
            assert_eq!(fields, write.fields, "what is obeyed is what is adopted");
            (fields, write.epoch)
        }
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn a_flip_by_hand_zeroes_the_shares_also_when_it_sets_them() {
    let flip = [("live", "green"), ("canary_percent", "50"), ("holdback_percent", "5"), ("salt", "s12345678"), ("epoch", "12")];
    let expected = [("live", "green"), ("canary_percent", "0"), ("holdback_percent", "0"), ("salt", "s12345678")];
    assert_eq!(adopted(hash(&flip)), (hash(&expected), 13));
    let no_flip = [("live", "purple"), ("canary_percent", "50"), ("salt", "s12345678"), ("epoch", "12")];
    assert_eq!(adopted(hash(&no_flip)), (hash(&no_flip[..3]), 13));
}

#[test]
fn a_deleted_field_is_deleted_but_live_and_salt_stay() {
    assert_eq!(
        adopted(hash(&[("canary_percent", "25"), ("epoch", "12")])),
        (hash(&[("live", "blue"), ("canary_percent", "25"), ("salt", "s12345678")]), 13)
    );
}

#[test]
fn a_hash_made_anew_by_hand_says_what_it_says_and_the_rest_stays() {
    let expected = hash(&[("live", "blue"), ("canary_percent", "5"), ("pin", "green"), ("salt", "s12345678")]);
    assert_eq!(adopted(hash(&[("canary_percent", "5")])), (expected, 13));
}

#[test]
fn a_deleted_hash_comes_back_as_it_was_last_sealed_even_by_a_router_that_never_knew_it() {
    let judge = Judge { me: "router", colours: &["blue", "green"], fresh_salt: "fresh-salt" };
    let initial = hash(&[("live", "green"), ("canary_percent", "0")]);
    let new_router = Mine { sealed: initial.clone(), in_force: initial.clone(), ..Mine::default() };
    let stored = edited(Fields::new());
    let Verdict::Reseed(write) = judge.judge(&stored, &new_router) else { panic!("not written back") };
    assert_eq!((write.fields, write.epoch), (without_epoch(&stored.base), 13));

    let Verdict::Reseed(write) = judge.judge(&Stored::default(), &new_router) else { panic!("not seeded") };
    let seeded = hash(&[("live", "green"), ("canary_percent", "0"), ("salt", "fresh-salt")]);
    assert_eq!((write.fields, write.epoch, write.why.as_str()), (seeded, 1, "first start: the store had no flags for this route"));
}
