//! What copies of queries let a rollout do.

use super::scene::{Scene, router};
use super::*;
use crate::config::Route;
use crate::flags::{CopiesSeen, Phase, Rollout};
use crate::vocabulary::{Copies, Ppm};

/// Blue runs v1 and is live; green and canary run v2; everything is copied for a minute. `more` is more of the route.
fn route(more: &str) -> Route {
    let before = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[[route]]\nname = \"search\"\n";
    let plan = "[route.rollout]\nmirror_percent = \"100\"\nmirror = \"60s\"\n";
    let pool = |(name, version, port): (&str, &str, u16)| {
        format!("[route.pools.{name}]\nendpoints = [\"http://127.0.0.1:{port}\"]\nversion = {version:?}\n")
    };
    let pools: String = [("blue", "v1", 1), ("green", "v2", 2), ("canary", "v2", 3)].map(pool).concat();
    crate::config::parse("test", &format!("{before}{more}{plan}{pools}")).unwrap().routes.remove(0)
}

const LISTS: &str = "signals = { ids = \"/hits/*/id\" }\n";

/// It mirrors, and its time is over.
fn scene(more: &str) -> Scene {
    let mut scene = Scene::quiet(route(more));
    let begun = scene.begin(None).unwrap();
    scene.write(&begun);
    assert_eq!((scene.rollout().phase, scene.flags().mirror), (Phase::Mirroring, Ppm::ALL));
    scene.now_ms += 60_000;
    scene
}

fn copies(sent: u64, failed: u64, compared: u64, top1_changed: u64) -> Copies {
    Copies { sent, failed, compared, top1_changed, jaccard_micros: compared * 940_000, unread: 0 }
}

impl Scene {
    /// What became of copies, as one of the routers says.
    fn hears(&mut self, index: usize, copies: Copies) {
        let rollout = self.rollout().id;
        self.routers[index].copies = Some(CopiesSeen { rollout, copies });
    }

    /// It goes on, and why.
    fn goes_on(&mut self) -> String {
        assert_eq!(self.go(), Event::StepBegan);
        assert_eq!((self.rollout().phase, self.shares().1.as_str(), self.flags().mirror), (Phase::Canary, "1 on canary", Ppm::ZERO));
        self.rollout().why
    }

    /// It ends, and why.
    fn ends(&mut self) -> String {
        assert_eq!(self.go(), Event::Aborted);
        assert_eq!((self.shares().0.as_str(), self.flags().mirror, self.flags().candidate.share), ("blue", Ppm::ZERO, Ppm::ZERO));
        assert_eq!((self.rollout().phase, self.next()), (Phase::Aborted, Next::Rest));
        self.rollout().why
    }
}

#[test]
fn without_copies_nothing_goes_on_and_operators_are_told() {
    let mut scene = scene("");
    assert_eq!(scene.waits_for(), "0 of 100 copies are over");
    scene.hears(0, copies(99, 0, 0, 0));
    assert_eq!(scene.waits_for(), "99 of 100 copies are over");
    scene.now_ms += 1_800_000;
    assert_eq!(scene.go(), Event::Stalled);
    assert_eq!(scene.waits_for(), "99 of 100 copies are over");
    // However badly they did: so few may be chance.
    scene.hears(0, copies(99, 99, 0, 0));
    assert_eq!(scene.waits_for(), "99 of 100 copies are over");
    scene.hears(0, copies(100, 0, 0, 0));
    assert_eq!(scene.goes_on(), "the time for copies is over: 0 of 100 copies failed, no lists were compared");
}

#[test]
fn good_copies_let_it_go_on_when_their_time_is_over() {
    let mut scene = scene(LISTS);
    scene.hears(0, copies(412, 4, 405, 13));
    scene.now_ms -= 1_000;
    assert_eq!(scene.waits_for(), "queries are copied: 59 of 60 s");
    scene.now_ms += 1_000;
    assert_eq!(
        scene.goes_on(),
        "the time for copies is over: 4 of 412 copies failed, another first result for 3.2 % of 405 lists, Jaccard@10 0.94"
    );
}

#[test]
fn copies_that_fail_end_it_before_the_time_is_over() {
    let mut scene = scene(LISTS);
    scene.now_ms -= 50_000;
    scene.hears(0, copies(400, 50, 0, 0));
    assert_eq!(scene.ends(), "the copies speak against it: of 400 copies 12.5 % failed (at most 1 %)");
    // As soon as there are enough of them.
    let mut scene = self::scene("");
    scene.now_ms -= 50_000;
    scene.hears(0, copies(100, 100, 0, 0));
    assert_eq!(scene.ends(), "the copies speak against it: of 100 copies 100.0 % failed (at most 1 %)");
}

#[test]
fn what_may_be_chance_neither_ends_it_nor_lets_it_go_on() {
    let mut scene = scene("");
    scene.hears(0, copies(100, 2, 0, 0));
    assert_eq!(scene.waits_for(), "of 100 copies 2.0 % failed (at most 1 %): more copies tell whether that is chance");
    scene.hears(0, copies(10_000, 200, 0, 0));
    assert_eq!(scene.ends(), "the copies speak against it: of 10000 copies 2.0 % failed (at most 1 %)");
    let mut scene = self::scene("");
    scene.hears(0, copies(200, 2, 0, 0));
    assert_eq!(scene.goes_on(), "the time for copies is over: 2 of 200 copies failed, no lists were compared");
}

#[test]
fn lists_that_are_too_far_from_the_live_ones_end_it() {
    let mut scene = scene(LISTS);
    scene.hears(0, Copies { jaccard_micros: 400 * 210_000, ..copies(400, 0, 400, 340) });
    assert_eq!(
        scene.ends(),
        "the copies speak against it: of 400 compared lists 85.0 % have another first result (at most 70 %), Jaccard@10 0.21"
    );
    let mut scene = self::scene(LISTS);
    scene.hears(0, copies(100, 0, 100, 73));
    let waits = "of 100 compared lists 73.0 % have another first result (at most 70 %): more copies tell whether that is chance";
    assert_eq!(scene.waits_for(), waits);
    scene.hears(0, copies(200, 0, 200, 140));
    assert!(scene.goes_on().contains("another first result for 70.0 % of 200 lists"));
}

#[test]
fn lists_that_cannot_be_read_are_waited_for_where_the_route_says_that_there_are_some() {
    for (lists, goes_on) in
        [(LISTS, false), ("signals = { scores = \"/hits/*/score\" }\n", false), ("signals = { results = \"/n\" }\n", true)]
    {
        let mut scene = scene(lists);
        scene.hears(0, Copies { unread: 380, ..copies(400, 0, 20, 0) });
        if goes_on {
            assert!(scene.goes_on().starts_with("the time for copies is over: 0 of 400 copies failed"));
        } else {
            assert_eq!(scene.waits_for(), "20 of 100 lists are compared, and 380 could not be read");
        }
    }
}

#[test]
fn the_copies_of_all_routers_that_are_heard_of_count_for_their_rollout_alone() {
    let mut scene = scene("");
    scene.routers.push(router("silent"));
    scene.hears(0, copies(60, 0, 0, 0));
    scene.hears(1, copies(30, 0, 0, 0));
    scene.hears(2, copies(500, 500, 0, 0));
    scene.routers[2].is_known = false;
    assert_eq!(scene.waits_for(), "90 of 100 copies are over");
    scene.hears(1, copies(45, 1, 0, 0));
    assert_eq!(scene.seen(|seen| copies_before(seen.flags, seen.routers)), Some(copies(105, 1, 0, 0)));
    scene.routers[1].copies.as_mut().unwrap().rollout = "cd".repeat(16);
    assert_eq!(scene.waits_for(), "60 of 100 copies are over");
    scene.hears(1, copies(45, 1, 0, 0));
    assert_eq!(scene.goes_on(), "the time for copies is over: 1 of 105 copies failed, no lists were compared");
    assert_eq!(scene.seen(|seen| copies_before(seen.flags, seen.routers)), None, "the next transition does not stand on them");
    assert_eq!(scene.seen(|seen| copies_of(seen.rollout, seen.routers)), Some(copies(105, 1, 0, 0)));
    assert_eq!(scene.seen(|seen| copies_of(seen.rollout, &[])), None);
}

#[test]
fn operators_have_the_last_word() {
    let mut scene = scene("");
    assert_eq!(scene.order(Order::Promote), Ok(Event::StepBegan));
    assert_eq!(scene.shares().1, "1 on canary");
    // What somebody holds up is not ended either.
    let mut scene = self::scene("");
    scene.hears(0, copies(400, 400, 0, 0));
    for (field, value) in [("freeze", "true"), ("pin", "blue")] {
        scene.fields.insert(field.to_owned(), value.to_owned());
        assert!(matches!(scene.next(), Next::Wait(_)), "{field}");
        scene.fields.remove(field);
    }
    assert_eq!(scene.order(Order::Pause), Ok(Event::Paused));
    assert_eq!(scene.waits_for(), "paused: alice");
    assert_eq!(scene.order(Order::PromoteFully), Ok(Event::Switched));
    assert_eq!((scene.shares().0.as_str(), scene.flags().mirror), ("green", Ppm::ZERO));
    // And it can be taken back.
    let mut scene = self::scene("");
    scene.hears(0, copies(100, 0, 0, 0));
    let back = scene.seen(|seen| crate::release::rollback(seen.flags, seen.route, 0, "alice")).unwrap();
    assert!(back.fields["rollout"].as_ref().unwrap().contains("rolled_back"));
}

#[test]
fn a_plan_that_judges_no_copies_goes_by_the_time_alone() {
    let mut scene = scene("");
    let record = scene.rollout().render();
    let gate = r#","mirror_gate":{"min_samples":100,"max_failing":"1","max_top1_change":"70"}"#;
    assert!(record.contains(gate), "{record}");
    // As a router of a version before wrote it.
    let old = Rollout::parse(&record.replace(gate, "")).unwrap();
    assert_eq!(old.plan.mirror_gate, None);
    scene.fields.insert("rollout".to_owned(), old.render());
    assert_eq!(scene.goes_on(), "the time for copies is over");
    // As the config wants it, and as one that mirrors nothing has it.
    for (mirror, min_samples) in [(Ppm::ALL, 0), (Ppm::ZERO, 100)] {
        let mut scene = Scene::quiet(route(""));
        (scene.route.rollout.mirror, scene.route.rollout.mirror_min_samples) = (mirror, min_samples);
        let begun = scene.begin(None).unwrap();
        assert!(!begun.rollout.render().contains("mirror_gate"), "{mirror} {min_samples}");
    }
}

#[test]
fn nothing_but_a_limit_of_all_lets_everything_fail() {
    for (most, failed, ends) in [(Ppm::ZERO, 1, true), (Ppm::ZERO, 0, false), (Ppm::ALL, 100, false)] {
        let mut scene = Scene::quiet(route(""));
        scene.route.rollout.mirror_max_failing = most;
        let begun = scene.begin(None).unwrap();
        scene.write(&begun);
        scene.now_ms += 60_000;
        scene.hears(0, copies(100, failed, 0, 0));
        if ends {
            assert_eq!(scene.ends(), "the copies speak against it: of 100 copies 1.0 % failed (at most 0 %)");
        } else {
            assert!(scene.goes_on().contains(&format!("{failed} of 100 copies failed")));
        }
    }
}
