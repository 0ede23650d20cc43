//! Rollouts of versions that no pool runs yet.

use proptest::prelude::*;

use super::scene::Scene;
use super::*;
use crate::config::{GateKind, Route};
use crate::flags::{Hurry, Phase};

/// Blue runs search:1 and is live; green runs search:0, canary v0, and both can load others.
fn route() -> Route {
    route_with("")
}

/// With more in `[route.loading]`.
fn route_with(more: &str) -> Route {
    let before = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\nurl = \"file:///tmp/models\"\n\
                  [[route]]\nname = \"search\"\n[route.loading]\nmodel = \"search\"\n";
    let pools = "[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"search:1\"\n\
                [route.pools.green]\nendpoints = [\"http://127.0.0.1:2\"]\nversion = \"search:0\"\n\
                [route.pools.canary]\nendpoints = [\"http://127.0.0.1:3\"]\nversion = \"v0\"\n";
    crate::config::parse("test", &format!("{before}{more}{pools}")).unwrap().routes.remove(0)
}

fn loaded() -> LoadState {
    LoadState::Loaded { what: "2 servers".to_owned(), took_ms: 1_500 }
}

fn scene() -> Scene {
    let mut scene = Scene::quiet(route());
    let begun = scene.begin(Some("search:2")).unwrap();
    scene.write(&begun);
    scene
}

impl Scene {
    fn to_load(&self) -> ToLoad {
        match self.next() {
            Next::Load(to_load) => to_load,
            other => panic!("{other:?}"),
        }
    }

    /// The servers do what they are asked to.
    fn load(&mut self, state: LoadState) {
        let ToLoad { pool, version, .. } = self.to_load();
        self.load = Some(LoadSeen { pool, version, state });
    }

    /// The servers have it, that is written, and the config follows.
    fn loads(&mut self) -> String {
        self.load(loaded());
        assert_eq!(self.go(), Event::Loaded);
        let pool = self.load.as_ref().unwrap().pool.clone();
        let waits = match self.next() {
            Next::Wait(what) => what,
            // An hour after the step began.
            Next::Go(told) if told.event == Event::Stalled => told.rollout.why,
            other => panic!("{other:?}"),
        };
        assert!(waits.contains("this router does not have search:2"), "{waits}");
        self.follow();
        pool
    }

    fn follow(&mut self) {
        for (pool, version) in self.flags().versions {
            self.route.pools[pool.get()].version = version;
        }
    }

    /// Of this version.
    fn judge_well(&mut self) {
        self.judge("advance", 1_000);
        let evidence = self.evidence.as_mut().unwrap();
        (evidence.candidate.version, evidence.control.version) = ("search:2".to_owned(), "search:1".to_owned());
    }
}

#[test]
fn a_version_is_loaded_before_anybody_sees_it_and_again_for_the_colour_that_becomes_live() {
    let mut scene = scene();
    assert_eq!((scene.rollout().phase, scene.shares().1.as_str()), (Phase::Loading, "0 on canary"));
    assert_eq!(scene.to_load(), ToLoad { pool: "canary".to_owned(), version: "search:2".to_owned(), number: 2, sha256: None });
    assert_eq!(scene.loads(), "canary");
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "1 on canary"));
    scene.judge_well();
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "5 on canary"));
    scene.judge_well();
    assert_eq!(scene.loads(), "green");
    assert_eq!((scene.rollout().phase, scene.rollout().step, scene.shares().1.as_str()), (Phase::Canary, 1, "5 on canary"));
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "25 on green"));
    scene.judge_well();
    assert_eq!(scene.go(), Event::StepBegan);
    scene.judge_well();
    assert_eq!(scene.go(), Event::Switched);
    scene.judge_well();
    assert_eq!((scene.go(), scene.shares().0.as_str()), (Event::Done, "green"));
    assert_eq!(scene.fields["version.green"], "search:2");
}

#[test]
fn gates_are_asked_of_a_version_that_is_loaded() {
    let mut scene = Scene::quiet(route());
    let text = "[[route.rollout.gate]]\nname = \"g\"\ntype = \"pre-rollout\"\nurl = \"http://127.0.0.1:9/\"\n";
    let config = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[[route]]\nname = \"search\"\n\
                  [route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    scene.route.rollout.gates = crate::config::parse("test", &format!("{config}{text}")).unwrap().routes.remove(0).rollout.gates;
    assert_eq!(scene.route.rollout.gates[0].kind, GateKind::PreRollout);
    let begun = scene.begin(Some("search:2")).unwrap();
    scene.write(&begun);
    assert_eq!(scene.rollout().phase, Phase::Loading);
    scene.loads();
    assert_eq!((scene.go(), scene.rollout().phase), (Event::StepBegan, Phase::Pending));
    scene.gate = Some("gate g says no");
    assert_eq!(scene.waits_for(), "gate g says no");
    scene.gate = None;
    assert_eq!((scene.go(), scene.rollout().phase), (Event::StepBegan, Phase::Canary));
}

#[test]
fn a_version_that_cannot_be_loaded_ends_the_rollout_and_one_that_is_late_is_waited_for() {
    let mut scene = scene();
    scene.load(LoadState::Underway("1 of 2 servers".to_owned()));
    assert_eq!(scene.to_load().pool, "canary");
    scene.now_ms += 3_600_000;
    let Next::Go(told) = scene.next() else { panic!() };
    assert!(told.event == Event::Stalled && told.rollout.why.ends_with("1 of 2 servers"), "{told:?}");
    scene.load = None;
    scene.load(LoadState::Refused("server one: scores are others".to_owned()));
    assert_eq!(scene.go(), Event::Aborted);
    assert_eq!(scene.rollout().why, "not loaded: server one: scores are others");
    assert_eq!((scene.next(), scene.shares().1.as_str()), (Next::Rest, "0 on canary"));
    // In the middle of it: the candidate's share goes.
    let mut scene = self::scene();
    scene.loads();
    scene.go();
    scene.judge_well();
    scene.go();
    scene.judge_well();
    scene.load = None;
    scene.load(LoadState::Refused("no memory".to_owned()));
    assert_eq!(scene.go(), Event::Aborted);
    assert_eq!(scene.shares(), ("blue".to_owned(), "0 on canary".to_owned(), "0".to_owned()));
}

#[test]
fn a_pool_without_a_healthy_server_is_not_begun_with_and_is_told_while_it_loads() {
    let dead = "pool canary has no healthy server (http://127.0.0.1:3)";
    let mut quiet = Scene::quiet(route());
    let could = |scene: &Scene, candidate: Option<&str>, at_once: bool| {
        let asked = Begin { candidate: candidate.map(str::to_owned), at_once, ..Begin::default() };
        could_begin(&asked, &scene.flags(), &scene.route, &scene.healthy, scene.now_ms).map_err(|refusal| refusal.0)
    };
    quiet.healthy = vec![1, 1, 0];
    assert_eq!(quiet.begin(Some("search:2")).unwrap_err().0, dead);
    for candidate in [Some("search:2"), None] {
        assert_eq!(could(&quiet, candidate, false), Err(dead.to_owned()), "whichever it is");
    }
    // The pool that comes later may be mended by then, and a load may bring one back that is wanted at once, or that has nothing.
    quiet.healthy = vec![1, 0, 1];
    assert_eq!((could(&quiet, Some("search:2"), false), could(&quiet, Some("search:2"), true)), (Ok(()), Ok(())));
    quiet.healthy = vec![1, 1, 0];
    quiet.route.pools[2].version = "none".to_owned();
    assert_eq!(could(&quiet, Some("search:2"), false), Ok(()));
    let mut scene = scene();
    scene.healthy = vec![1, 1, 0];
    scene.load(LoadState::Underway("search:2 is loaded on canary".to_owned()));
    let (to_load, says) = (scene.to_load(), format!("{dead}, so search:2 is not loaded there yet"));
    assert_eq!(scene.seen(|seen| seen.cannot_load(&to_load)), Some(says.clone()));
    scene.now_ms += 3_600_000;
    let Next::Go(told) = scene.next() else { panic!() };
    assert!(told.event == Event::Stalled && told.rollout.why.ends_with(&says), "{told:?}");
    scene.healthy = vec![1, 1, 1];
    assert_eq!(scene.seen(|seen| seen.cannot_load(&to_load)), None);
}

#[test]
fn nothing_is_loaded_while_somebody_holds_it_up() {
    let mut scene = scene();
    for (field, value) in [("freeze", "true"), ("pin", "blue")] {
        scene.fields.insert(field.to_owned(), value.to_owned());
        assert!(matches!(scene.next(), Next::Wait(_)), "{field}");
        scene.fields.remove(field);
    }
    assert_eq!(scene.order(Order::Pause), Ok(Event::Paused));
    assert_eq!(scene.waits_for(), "paused: alice");
    assert_eq!(scene.order(Order::Resume), Ok(Event::Resumed));
    assert_eq!(scene.to_load().pool, "canary");
    assert!(scene.order(Order::Retire).unwrap_err().starts_with("there is nothing to retire before a rollout is done"));
    assert_eq!(scene.order(Order::Abort), Ok(Event::Aborted));
}

#[test]
fn whoever_promotes_waits_for_the_servers_alone() {
    let mut scene = scene();
    assert_eq!(scene.order(Order::PromoteFully), Ok(Event::Promoted));
    assert_eq!((scene.rollout().hurry, scene.rollout().summary().as_str()), (Some(Hurry::Live), "search:2 loading, promoted to the end"));
    assert_eq!(scene.order(Order::PromoteFully), Err("pool green has to load search:2 first".to_owned()));
    assert_eq!(scene.loads(), "green");
    assert_eq!((scene.go(), scene.shares().0.as_str(), scene.rollout().hurry), (Event::Switched, "green", None));
    // A step alone, with no evidence at all.
    let mut scene = self::scene();
    scene.loads();
    scene.go();
    assert_eq!(scene.order(Order::Promote), Ok(Event::StepBegan));
    assert_eq!(scene.order(Order::Promote), Ok(Event::Promoted));
    assert_eq!((scene.loads(), scene.go()), ("green".to_owned(), Event::StepBegan));
    assert_eq!((scene.shares().1.as_str(), scene.rollout().hurry), ("25 on green", None));
    assert_eq!(scene.waits_for(), "nothing was judged yet");
}

#[test]
fn what_a_rollout_is_of_is_said_to_whoever_loads_it_on_each_pool() {
    let mut scene = Scene::quiet(route());
    let sha256 = Some("0a".repeat(32));
    let asked = Begin { candidate: Some("search:2".to_owned()), sha256: sha256.clone(), id: "cd".repeat(16), ..Begin::default() };
    let begun = begin(&asked, &scene.flags(), &scene.route, &scene.healthy, scene.now_ms).unwrap();
    scene.write(&begun);
    assert_eq!((scene.rollout().sha256, scene.to_load().sha256), (sha256.clone(), sha256.clone()));
    assert_eq!((scene.loads().as_str(), scene.go()), ("canary", Event::StepBegan));
    scene.judge_well();
    assert_eq!(scene.go(), Event::StepBegan);
    scene.judge_well();
    assert_eq!((scene.to_load().pool.as_str(), scene.to_load().sha256), ("green", sha256));
}

#[test]
fn a_version_that_is_known_comes_back_at_once() {
    let mut scene = Scene::quiet(route());
    let at_once = |scene: &Scene, candidate: &str| {
        let (id, salt, who) = ("cd".repeat(16), "0123456789".to_owned(), "alice".to_owned());
        let (candidate, why) = (Some(candidate.to_owned()), "it ranks worse".to_owned());
        let asked = Begin { candidate, at_once: true, id, salt, who, why, ..Begin::default() };
        begin(&asked, &scene.flags(), &scene.route, &[1, 1, 0], scene.now_ms)
    };
    let begun = at_once(&scene, "search:7").unwrap();
    scene.write(&begun);
    assert_eq!(scene.to_load().pool, "green", "whatever the canary does");
    let ToLoad { pool, version, .. } = scene.to_load();
    scene.load = Some(LoadSeen { pool, version, state: loaded() });
    assert_eq!(scene.go(), Event::Loaded);
    scene.follow();
    assert_eq!(scene.go(), Event::Switched);
    assert_eq!(scene.shares(), ("green".to_owned(), "0 on canary".to_owned(), "0".to_owned()));
    assert_eq!((scene.go(), scene.rollout().load_ms), (Event::Done, Some(1_500)));
    assert_eq!(
        scene.rollout().why,
        "alice: it ranks worse; 2 servers",
        "whoever looks sees the operator's reason, not that of the last step"
    );
    // What the other colour still has is one write.
    let begun = at_once(&scene, "search:1").unwrap();
    scene.write(&begun);
    assert_eq!(
        (begun.event, begun.rollout.phase, scene.shares().0.as_str(), scene.next()),
        (Event::Switched, Phase::Done, "blue", Next::Rest)
    );
    assert_eq!(scene.rollout().why, "alice: it ranks worse");
    assert_eq!(at_once(&scene, "search:1").unwrap_err().0, "search:1 is live already");
    // Until the other colour lets go of it.
    assert_eq!(scene.order(Order::Retire), Ok(Event::Retired));
    assert_eq!(at_once(&scene, "search:2").unwrap().rollout.phase, Phase::Loading, "also before the config in force follows");
    scene.follow();
    assert_eq!((scene.rollout().phase, scene.route.pools[1].version.as_str()), (Phase::Retired, "none"));
    assert_eq!(crate::release::rollback(&scene.flags(), &scene.route, 0, ""), None);
    assert_eq!(scene.order(Order::Retire), Ok(Event::Retired), "again, for servers that did not answer");
}

/// As a rollout before left them: servers may have been started anew since.
#[test]
fn servers_that_had_the_version_once_are_asked_before_anybody_is_sent_there() {
    let mut scene = Scene::quiet(route());
    for pool in ["canary", "green"] {
        scene.fields.insert(format!("version.{pool}"), "search:2".to_owned());
    }
    scene.follow();
    let mut late = Scene::quiet(scene.route.clone());
    late.fields.clone_from(&scene.fields);
    let begun = scene.begin(Some("search:2")).unwrap();
    scene.write(&begun);
    assert_eq!((scene.rollout().phase, scene.to_load().pool.as_str()), (Phase::Loading, "canary"));
    scene.load(loaded());
    assert_eq!((scene.go(), scene.go(), scene.shares().1.as_str()), (Event::Loaded, Event::StepBegan, "1 on canary"));
    scene.judge_well();
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "5 on canary"), "the same servers are asked once");
    scene.judge_well();
    assert_eq!(scene.to_load(), ToLoad { pool: "green".to_owned(), version: "search:2".to_owned(), number: 2, sha256: None });
    // Before anybody was sent to the colour, that it cannot have it ends the rollout.
    scene.load(LoadState::Refused("scores are others".to_owned()));
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::Aborted, "0 on canary"));
    // Whoever promotes waits for them; whoever goes back does not.
    let begun = late.begin(Some("search:2")).unwrap();
    let fields = late.fields.clone();
    late.write(&begun);
    assert_eq!((late.order(Order::PromoteFully), late.to_load().pool.as_str()), (Ok(Event::Promoted), "green"));
    late.fields = fields;
    let asked = Begin { candidate: Some("search:2".to_owned()), at_once: true, id: "cd".repeat(16), ..Begin::default() };
    let back = begin(&asked, &late.flags(), &late.route, &[1, 1, 1], late.now_ms).unwrap();
    assert_eq!((back.event, back.rollout.phase), (Event::Switched, Phase::Done));
    // Whom the config says it of are somebody else's, and hooks cannot tell.
    let text = "protocol = \"hooks\"\nload_url = \"http://127.0.0.1:9/load\"\nready_url = \"http://127.0.0.1:9/{version}\"\n";
    for (is_ours, hooks) in [(false, ""), (true, text)] {
        let mut scene = Scene::quiet(self::route_with(hooks));
        for pool in 1..3 {
            scene.route.pools[pool].version = "search:2".to_owned();
        }
        if is_ours {
            scene.fields.insert("version.canary".to_owned(), "search:2".to_owned());
        }
        assert_eq!(scene.begin(Some("search:2")).unwrap().rollout.phase, Phase::Canary);
    }
}

#[test]
fn only_versions_of_the_routes_model_can_be_loaded() {
    let scene = Scene::quiet(route());
    let refused = |candidate: &str| scene.begin(Some(candidate)).unwrap_err().0;
    assert!(refused("other:2").ends_with("it can be loaded as search:N"), "{}", refused("other:2"));
    assert_eq!(refused("search:1"), "search:1 is live already");
    assert!(refused("search:0x").starts_with("no pool runs search:0x"));
}

proptest! {
    /// Whatever becomes of loads: nobody is sent to a pool of another version.
    #[test]
    fn nobody_is_sent_to_a_pool_without_the_version(turns in proptest::collection::vec((0_usize..6, any::<bool>()), 1..60)) {
        let mut scene = scene();
        for (what, follows) in turns {
            scene.judge_well();
            match (what, scene.next()) {
                (0, Next::Load(ToLoad { pool, version, .. })) => {
                    scene.load = Some(LoadSeen { pool, version, state: LoadState::Underway("so far".to_owned()) });
                }
                (1..=3, Next::Load(ToLoad { pool, version, .. })) => {
                    scene.load = Some(LoadSeen { pool, version, state: loaded() });
                }
                (4, _) => drop(scene.order(Order::Promote)),
                (5, _) => drop(scene.order(Order::PromoteFully)),
                (_, Next::Go(go)) => scene.write(&go),
                _ => {}
            }
            if follows {
                scene.follow();
            }
            let flags = scene.flags();
            let versions = |index: crate::vocabulary::PoolIndex| flags.versions.get(&index).cloned().unwrap_or_else(|| scene.route.pools[index.get()].version.clone());
            let rollout = scene.rollout();
            if flags.candidate.share > crate::vocabulary::Ppm::ZERO {
                prop_assert_eq!(versions(flags.candidate.pool), "search:2");
            }
            if matches!(rollout.phase, Phase::Baking | Phase::Done) {
                prop_assert_eq!(versions(flags.live), "search:2");
            }
        }
    }
}
