//! Rollouts whose servers are started anew meanwhile, and serve another version than their pool runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::scene::Scene;
use super::*;
use crate::config::Route;
use crate::flags::{CopiesSeen, Hurry, Phase};
use crate::vocabulary::{Copies, Ppm};

/// Blue runs search:1 and is live; green and canary run search:2, and somebody else brought it there.
fn route(more: &str) -> Route {
    let before = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[registry]\nurl = \"file:///tmp/models\"\n\
                  [[route]]\nname = \"search\"\n[route.loading]\nmodel = \"search\"\n";
    let pools = "[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\nversion = \"search:1\"\n\
                [route.pools.green]\nendpoints = [\"http://127.0.0.1:2\"]\nversion = \"search:2\"\n\
                [route.pools.canary]\nendpoints = [\"http://127.0.0.1:3\"]\nversion = \"search:2\"\n";
    crate::config::parse("test", &format!("{before}{more}{pools}")).unwrap().routes.remove(0)
}

/// In its first step.
fn scene(more: &str) -> Scene {
    let mut scene = Scene::quiet(route(more));
    let begun = scene.begin(Some("search:2")).unwrap();
    scene.write(&begun);
    assert_eq!((scene.rollout().phase, scene.shares().1.as_str()), (Phase::Canary, "1 on canary"));
    scene
}

/// That so many requests of the candidate are well, an hour later.
fn judge_well(scene: &mut Scene, requests: u64) {
    scene.judge("advance", requests);
    let evidence = scene.evidence.as_mut().unwrap();
    (evidence.candidate.version, evidence.control.version) = ("search:2".to_owned(), "search:1".to_owned());
}

/// What it waits for; told, as it takes an hour already.
fn waits(scene: &Scene) -> String {
    match scene.next() {
        Next::Wait(what) => what,
        Next::Go(told) if told.event == Event::Stalled => told.rollout.why,
        other => panic!("{other:?}"),
    }
}

fn nobody_asked() -> Option<ServersSeen> {
    Some(ServersSeen::default())
}

/// A server of this pool serves another version, and did so in this step.
fn strays(pool: &str) -> Option<ServersSeen> {
    let strays = BTreeMap::from([(pool.to_owned(), "http://127.0.0.1:9 (search:7)".to_owned())]);
    Some(ServersSeen { strays, ..had(pool).unwrap() })
}

/// A server of this pool did so in this step.
fn had(pool: &str) -> Option<ServersSeen> {
    Some(ServersSeen { had: BTreeSet::from([pool.to_owned()]), ..ServersSeen::default() })
}

fn looks(event: Event, pools: &[(&str, &str)]) -> Next {
    Next::Look { event, pools: pools.iter().map(|(pool, version)| ((*pool).to_owned(), (*version).to_owned())).collect() }
}

const CANARY: (&str, &str) = ("canary", "search:2");
const GREEN: (&str, &str) = ("green", "search:2");
const BLUE: (&str, &str) = ("blue", "search:1");

#[test]
fn servers_are_asked_before_each_step_and_gates_before_them() {
    let mut scene = scene("");
    judge_well(&mut scene, 1_000);
    scene.servers = nobody_asked();
    assert_eq!(scene.next(), looks(Event::StepBegan, &[CANARY, BLUE]));
    assert_eq!(scene.next().gated(&scene.rollout()), Some(Event::StepBegan));
    scene.gate = Some("gate g says no");
    assert!(waits(&scene).contains("gate g says no"), "{}", waits(&scene));
    (scene.gate, scene.servers) = (None, None);
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "5 on canary"));
    judge_well(&mut scene, 2_000);
    scene.servers = nobody_asked();
    assert_eq!(scene.next(), looks(Event::StepBegan, &[CANARY, BLUE, GREEN]));
    // Those of the pool that comes next alone.
    scene.servers = strays("green");
    let waits_for = waits(&scene);
    assert!(waits_for.ends_with("servers of pool green serve another version: http://127.0.0.1:9 (search:7)"), "{waits_for}");
    scene.servers = had("green");
    assert_eq!(scene.next(), looks(Event::StepBegan, &[CANARY, BLUE, GREEN]), "nobody was judged there");
    for _ in 0..2 {
        scene.servers = None;
        assert_eq!(scene.go(), Event::StepBegan);
        judge_well(&mut scene, 3_000);
    }
    scene.servers = nobody_asked();
    assert_eq!(scene.next(), looks(Event::Switched, &[GREEN, BLUE]));
    scene.servers = None;
    assert_eq!(scene.go(), Event::Switched);
    judge_well(&mut scene, 4_000);
    scene.servers = nobody_asked();
    assert_eq!(scene.next(), looks(Event::Done, &[GREEN, BLUE]));
    scene.servers = None;
    assert_eq!(scene.go(), Event::Done);
}

#[test]
fn a_step_whose_servers_lost_their_version_begins_anew_when_they_have_it_again() {
    for pool in ["canary", "blue"] {
        let mut scene = scene("");
        judge_well(&mut scene, 1_000);
        let before = scene.rollout();
        scene.servers = strays(pool);
        let waits_for = waits(&scene);
        let what = format!("servers of pool {pool} serve another version: http://127.0.0.1:9 (search:7)");
        assert!(waits_for.ends_with(&what), "{waits_for}");
        scene.servers = had(pool);
        let Next::Go(anew) = scene.next() else { panic!("{:?}", scene.next()) };
        assert_eq!(Next::Go(anew.clone()).gated(&before), None, "nobody is sent anywhere by it");
        assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "1 on canary"));
        let after = scene.rollout();
        assert_eq!((after.phase, after.step, after.moves), (before.phase, before.step, before.moves + 1));
        assert_eq!((after.since_ms, after.samples_before), (scene.now_ms, 1_000));
        let version = if pool == "blue" { "search:1" } else { "search:2" };
        assert_eq!(after.why, format!("servers of pool {pool} had lost {version} and have it again: this step begins anew"));
        // Whoever looks knows of none in the step that began.
        scene.servers = None;
        assert!(waits(&scene).ends_with("no window of this step was judged yet"), "{}", waits(&scene));
        judge_well(&mut scene, 2_000);
        assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "5 on canary"));
    }
}

#[test]
fn a_step_that_begins_again_and_again_is_told_as_stalled_once() {
    let mut scene = scene("");
    let began_ms = scene.rollout().since_ms;
    let most_ms = scene.rollout().plan.max_step_ms;
    for nth in 1..=3 {
        scene.now_ms = began_ms + nth * most_ms / 3;
        scene.servers = had("canary");
        assert_eq!(scene.go(), Event::StepBegan);
        assert_eq!((scene.rollout().since_ms, scene.rollout().first_began_ms), (scene.now_ms, Some(began_ms)));
        scene.servers = strays("canary");
        assert!(scene.waits_for().starts_with("servers of pool canary"), "{}", scene.waits_for());
    }
    scene.now_ms += 1;
    assert_eq!((scene.go(), scene.rollout().is_stalled), (Event::Stalled, true));
    scene.servers = had("canary");
    assert_eq!((scene.go(), scene.rollout().is_stalled), (Event::StepBegan, true), "told once");
    scene.servers = strays("canary");
    assert!(scene.waits_for().starts_with("servers of pool canary"), "{}", scene.waits_for());
    scene.servers = None;
    judge_well(&mut scene, 1_000);
    assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "5 on canary"));
    assert_eq!((scene.rollout().first_began_ms, scene.rollout().is_stalled), (None, false));
}

/// A tenth of the queries is copied to its candidate.
fn mirroring() -> Scene {
    let mut scene = Scene::quiet(route(""));
    (scene.route.rollout.mirror, scene.route.rollout.mirror_for) = (Ppm::from_percent("10").unwrap(), Duration::from_secs(60));
    let begun = scene.begin(Some("search:2")).unwrap();
    scene.write(&begun);
    scene
}

#[test]
fn copies_and_bakes_begin_anew_as_well() {
    let mut scene = mirroring();
    hears(&mut scene, Copies { sent: 500, compared: 500, ..Copies::default() });
    scene.servers = had("canary");
    scene.now_ms += 1_000;
    assert_eq!((scene.go(), scene.rollout().phase), (Event::StepBegan, Phase::Mirroring));
    assert_eq!((scene.rollout().since_ms, scene.fields["mirror_percent"].as_str()), (scene.now_ms, "10"));
    assert_eq!(copies_of(&scene.rollout(), &scene.routers), Some(Copies::default()), "they were another model's");
    hears(&mut scene, Copies { sent: 507, failed: 1, compared: 503, ..Copies::default() });
    let since = Copies { sent: 7, failed: 1, compared: 3, ..Copies::default() };
    assert_eq!(copies_of(&scene.rollout(), &scene.routers), Some(since));
    scene.servers = None;
    scene.now_ms += 60_000;
    assert_eq!(scene.waits_for(), "7 of 100 copies are over");

    let mut scene = self::scene("");
    assert_eq!(scene.order(Order::PromoteFully), Ok(Event::Switched));
    scene.now_ms += 1_000;
    scene.servers = strays("green");
    assert!(waits(&scene).starts_with("servers of pool green serve another version"), "{}", waits(&scene));
    scene.servers = had("green");
    assert_eq!((scene.go(), scene.rollout().phase, scene.shares().0.as_str()), (Event::StepBegan, Phase::Baking, "green"));
    assert_eq!(scene.rollout().since_ms, scene.now_ms);
}

#[test]
fn copies_that_speak_against_it_may_be_those_of_another_model() {
    let mut scene = mirroring();
    hears(&mut scene, Copies { sent: 400, failed: 400, ..Copies::default() });
    scene.servers = nobody_asked();
    assert_eq!(scene.next(), looks(Event::Aborted, &[CANARY, BLUE]));
    scene.servers = strays("canary");
    assert!(waits(&scene).starts_with("servers of pool canary serve another version"), "{}", waits(&scene));
    scene.servers = None;
    assert_eq!((scene.go(), scene.rollout().phase), (Event::Aborted, Phase::Aborted));
}

fn hears(scene: &mut Scene, copies: Copies) {
    let rollout = scene.rollout().id;
    scene.routers[0].copies = Some(CopiesSeen { rollout, copies });
}

#[test]
fn whoever_promotes_waits_for_a_look_and_for_no_evidence() {
    let mut scene = scene("");
    scene.servers = nobody_asked();
    assert_eq!(scene.order(Order::Promote), Ok(Event::Promoted));
    assert_eq!(
        (scene.rollout().hurry, scene.next()),
        (Some(Hurry::Next), looks(Event::StepBegan, &[CANARY])),
        "control is not judged any more"
    );
    assert!(scene.order(Order::Promote).unwrap_err().starts_with("it is promoted already"));
    scene.servers = strays("canary");
    assert!(waits(&scene).starts_with("servers of pool canary serve another version"), "{}", waits(&scene));
    scene.servers = strays("blue");
    assert_eq!(scene.next(), looks(Event::StepBegan, &[CANARY]), "and holds nobody up");
    scene.servers = Some(ServersSeen {
        asked: [CANARY, BLUE].map(|(pool, version)| (pool.to_owned(), version.to_owned())).to_vec(),
        ..had("canary").unwrap()
    });
    assert_eq!((scene.go(), scene.shares().1.as_str(), scene.rollout().hurry), (Event::StepBegan, "5 on canary", None));
}

#[test]
fn what_is_held_stays_held_and_what_cannot_be_told_holds_nothing() {
    let mut scene = scene("");
    assert_eq!(scene.order(Order::Pause), Ok(Event::Paused));
    scene.servers = had("canary");
    assert_eq!(scene.waits_for(), "paused: alice");
    for more in [
        "check_every = \"0s\"\n",
        "protocol = \"hooks\"\nload_url = \"http://127.0.0.1:9/load\"\nready_url = \"http://127.0.0.1:9/{version}\"\n",
    ] {
        let mut scene = self::scene(more);
        judge_well(&mut scene, 1_000);
        scene.servers = nobody_asked();
        assert_eq!((scene.go(), scene.shares().1.as_str()), (Event::StepBegan, "5 on canary"));
    }
}

#[test]
fn a_way_back_whose_servers_lost_their_version_is_loaded_first() {
    let mut scene = Scene::quiet(route(""));
    let asked = Begin {
        candidate: Some("search:2".to_owned()),
        at_once: true,
        id: "cd".repeat(16),
        salt: "0123456789".to_owned(),
        who: "alice".to_owned(),
        why: "it ranks worse".to_owned(),
        ..Begin::default()
    };
    let begin = |asked: &Begin, scene: &Scene| begin(asked, &scene.flags(), &scene.route, &scene.healthy, scene.now_ms).unwrap();
    assert_eq!(begin(&asked, &scene).event, Event::Switched, "as long as nobody says otherwise");
    let lost = Begin { strays: Some("http://127.0.0.1:9 (search:7)".to_owned()), ..asked };
    let begun = begin(&lost, &scene);
    scene.write(&begun);
    scene.servers = nobody_asked();
    let rollout = scene.rollout();
    assert_eq!((begun.event, rollout.phase, rollout.hurry), (Event::Started, Phase::Loading, Some(Hurry::Live)));
    let says =
        "alice: it ranks worse; servers of pool green serve another version: http://127.0.0.1:9 (search:7): it is loaded there first";
    assert_eq!((rollout.why.as_str(), scene.shares().0.as_str()), (says, "blue"));
    let Next::Load(ToLoad { pool, version, .. }) = scene.next() else { panic!("{:?}", scene.next()) };
    assert_eq!((pool.as_str(), version.as_str()), ("green", "search:2"));
    scene.load = Some(LoadSeen { pool, version, state: LoadState::Loaded { what: "2 servers".to_owned(), took_ms: 1_500 } });
    assert_eq!((scene.go(), scene.go(), scene.shares().0.as_str()), (Event::Loaded, Event::Switched, "green"));
    assert_eq!(scene.go(), Event::Done, "whoever goes back waits for no look");
}
