//! The state machine, transition by transition, and what holds of every way through it.

use proptest::prelude::*;

use super::scene::{Scene, evidence, router};
use super::*;
use crate::flags::{Phase, RouterSeen, TripSeen};
use crate::release::{other_way, rollback};
use crate::vocabulary::Ppm;

#[test]
fn a_good_candidate_goes_live_step_by_step() {
    let mut scene = Scene::start();
    let share = |percent: &str, pool: &str| ("blue".to_owned(), format!("{percent} on {pool}"), "0".to_owned());
    assert_eq!(scene.shares(), share("1", "canary"));
    assert_eq!(scene.fields["salt"], "0123456789");
    for (percent, pool) in [("5", "canary"), ("25", "green"), ("50", "green")] {
        scene.judge("advance", 1_000);
        assert_eq!(scene.go(), Event::StepBegan);
        assert_eq!(scene.shares(), share(percent, pool));
        assert_eq!(scene.waits_for(), "no window of this step was judged yet");
    }
    scene.judge("advance", 1_000);
    assert_eq!(scene.go(), Event::Switched);
    assert_eq!(scene.shares(), ("green".to_owned(), "0 on canary".to_owned(), "10".to_owned()));
    // While it bakes, a policy that holds is as good as one that lets on.
    scene.judge("hold", 1_000);
    assert_eq!(scene.go(), Event::Done);
    assert_eq!(scene.shares(), ("green".to_owned(), "0 on canary".to_owned(), "0".to_owned()));
    assert_eq!((scene.rollout().moves, scene.next()), (6, Next::Rest));
}

#[test]
fn no_data_never_decides() {
    let mut scene = Scene::start();
    assert_eq!(scene.waits_for(), "nothing was judged yet");
    for verdict in ["no_data", "hold", "roll_back"] {
        scene.judge(verdict, 1_000);
        // It takes long, and that is told once.
        if !scene.rollout().is_stalled {
            assert_eq!(scene.go(), Event::Stalled);
        }
        assert_eq!(scene.waits_for(), format!("{verdict}: so says the policy"));
        assert_eq!(scene.shares().1, "1 on canary");
    }
    // Evidence that nobody renews, and evidence on somebody else.
    scene.judge("advance", 1_000);
    scene.now_ms += 60_000;
    assert_eq!(scene.waits_for(), "nothing was judged for 60 s");
    scene.judge("advance", 1_000);
    scene.evidence.as_mut().unwrap().candidate.version = "v3".to_owned();
    assert_eq!(scene.waits_for(), "nothing was judged yet");
    // Baking needs data too.
    scene.judge("advance", 1_000);
    assert_eq!(scene.order(Order::PromoteFully), Ok(Event::Switched));
    scene.judge("no_data", 1_000);
    assert_eq!(scene.waits_for(), "no_data: so says the policy");
}

/// Both fail alike, so nothing speaks against the candidate; and nothing for letting more users have it.
#[test]
fn an_outage_is_no_time_to_go_on() {
    let mut scene = Scene::start();
    scene.judge("advance", 1_000);
    let failing = |scene: &mut Scene, share| scene.evidence.as_mut().unwrap().candidate_failing = share;
    failing(&mut scene, Some(0.98));
    scene.now_ms = scene.rollout().since_ms + 3_000;
    scene.evidence.as_mut().unwrap().judged_unix_ms = scene.now_ms;
    assert_eq!(scene.waits_for(), "98 % of the candidate's requests fail (1 % of control's): nothing goes on in an outage");
    failing(&mut scene, None);
    assert_eq!(scene.go(), Event::StepBegan);
    scene.order(Order::PromoteFully).unwrap();
    scene.judge("hold", 1_000);
    failing(&mut scene, Some(0.5));
    assert!(scene.waits_for().ends_with("nothing goes on in an outage"), "nor while it bakes");
}

/// With the holdback, the evidence would end.
#[test]
fn a_bake_does_not_end_while_harm_is_being_found_out() {
    let mut scene = Scene::start();
    scene.order(Order::PromoteFully).unwrap();
    scene.judge("hold", 1_000);
    let harm = |scene: &mut Scene, log| {
        (scene.evidence.as_mut().unwrap().log_harm, scene.evidence.as_mut().unwrap().threshold_log) = (Some(log), Some(4.6))
    };
    harm(&mut scene, 2.4);
    assert_eq!(scene.waits_for(), "it bakes on: evidence of harm 2.4 of 4.6");
    harm(&mut scene, 1.0);
    assert_eq!(scene.go(), Event::Done);
}

/// A plan without a holdback has nobody to compare with while it bakes, and an operator may take it away.
#[test]
fn what_bakes_without_a_holdback_can_be_taken_back() {
    use crate::release::rollback;
    let mut scene = Scene::start();
    scene.order(Order::PromoteFully).unwrap();
    scene.fields.insert("holdback_percent".to_owned(), "0".to_owned());
    let back = rollback(&scene.flags(), &scene.route, scene.now_ms, "alice").unwrap();
    assert_eq!((back.candidate.as_str(), back.target.as_str()), ("v2", "blue"));
    assert_eq!(scene.order(Order::Abort), Ok(Event::Aborted));
    assert_eq!(scene.shares(), ("blue".to_owned(), "0 on canary".to_owned(), "0".to_owned()));
    // Nobody has it yet: its end is all there is to write.
    let mut scene = Scene::start();
    scene.fields.insert("canary_percent".to_owned(), "0".to_owned());
    let back = rollback(&scene.flags(), &scene.route, scene.now_ms, "alice").unwrap();
    assert!(back.fields["rollout"].as_ref().unwrap().contains("rolled_back"));
}

#[test]
fn what_the_plan_asks_for_comes_first() {
    let mut scene = Scene::start();
    let mut rollout = scene.rollout();
    rollout.plan.steps[0].dwell_ms = 5_400_000;
    rollout.plan.steps[0].min_samples = 700;
    rollout.plan.steps[0].approval = true;
    rollout.plan.max_step_ms = u64::MAX;
    scene.fields.insert("rollout".to_owned(), rollout.render());
    scene.judge("advance", 600);
    assert_eq!(scene.waits_for(), "this step takes its time: 3600 of 5400 s");
    scene.judge("advance", 600);
    assert_eq!(scene.waits_for(), "600 of 700 requests of the candidate in this step");
    scene.judge("advance", 700);
    assert_eq!(scene.go(), Event::ApprovalNeeded);
    assert_eq!(scene.waits_for(), "an operator has to approve: switchback rollout approve");
    assert_eq!(scene.order(Order::Approve), Ok(Event::Approved));
    assert!(scene.order(Order::Approve).unwrap_err().starts_with("this step is approved already"));
    assert_eq!(scene.go(), Event::StepBegan);
    assert!(scene.order(Order::Approve).unwrap_err().starts_with("this step needs no approval"));
}

#[test]
fn nothing_goes_on_while_something_is_wrong() {
    let mut scene = Scene::start();
    scene.judge("advance", 1_000);
    let good = scene.fields.clone();
    let mut waits = |change: &dyn Fn(&mut Scene), what: &str| {
        change(&mut scene);
        // Long since over its time: told, and then waited for.
        let told = matches!(scene.next(), Next::Go(go) if go.event == Event::Stalled && go.rollout.why.contains(what));
        assert!(told || scene.waits_for().contains(what), "{what}: {:?}", scene.next());
        scene.fields = good.clone();
        (scene.routers, scene.healthy, scene.gate) = (vec![router("one"), router("other")], vec![2, 2, 2], None);
    };
    waits(&|scene| drop(scene.fields.insert("freeze".to_owned(), "true".to_owned())), "freeze is set");
    waits(&|scene| drop(scene.fields.insert("pin".to_owned(), "blue".to_owned())), "pinned");
    waits(&|scene| scene.routers[1].epoch = 6, "1 of 2 routers do not obey epoch 7 yet");
    let trip = TripSeen { version: "v2".to_owned(), since_unix_ms: 0, why: "errors".to_owned() };
    waits(&|scene| scene.healthy = vec![2, 2, 0], "pool canary has no healthy endpoint");
    waits(&|scene| scene.routers[1].down = vec!["canary".to_owned()], "pool canary has no healthy endpoint, as other sees it");
    waits(&|scene| scene.gate = Some("gate load-test says no"), "gate load-test says no");
    scene.routers[1].trip = Some(trip);
    assert_eq!(scene.go(), Event::BreakerTripped);
    scene.now_ms = scene.rollout().since_ms;
    assert_eq!(scene.waits_for(), "the breaker of other tripped: errors");
    scene.judge("advance", 1_000);
    // What an unknown router says is not waited for.
    scene.routers[1] = RouterSeen { epoch: 0, is_known: false, ..router("other") };
    assert_eq!(scene.go(), Event::StepBegan);
}

#[test]
fn what_people_change_by_hand_is_theirs() {
    let mut scene = Scene::start();
    scene.judge("advance", 1_000);
    scene.fields.insert("canary_percent".to_owned(), "3".to_owned());
    assert_eq!(scene.go(), Event::Paused);
    assert_eq!(scene.shares().1, "3 on canary", "it stays as it was set");
    assert_eq!(scene.waits_for(), "paused: changed by hand: canary_percent is 3 and not 1");
    assert_eq!(scene.order(Order::Resume), Ok(Event::Resumed));
    assert_eq!(scene.shares().1, "1 on canary");
    // Another version on the candidate's pool is another rollout.
    scene.route.pools[2].version = "v3".to_owned();
    assert_eq!(scene.go(), Event::Paused);
    assert_eq!(scene.waits_for(), "paused: changed by hand: the candidate is on canary, which runs v3 and not v2");
    scene.fields.insert("live".to_owned(), "green".to_owned());
    scene.fields.insert("canary_percent".to_owned(), "0".to_owned());
    assert_eq!(scene.go(), Event::Aborted);
    assert_eq!((scene.shares().0.as_str(), scene.next()), ("green", Next::Rest));
}

#[test]
fn a_record_that_is_removed_by_hand_ends_it() {
    let mut scene = Scene::start();
    let last = scene.rollout();
    scene.fields.remove("rollout");
    let (flags, evidence) = (scene.flags(), evidence("advance", 1_000, scene.now_ms));
    let Scene { route, routers, healthy, .. } = &scene;
    let (rollout, now_ms, evidence) = (&last, scene.now_ms, Some(&evidence));
    let Next::Go(go) =
        next(&Seen { route, flags: &flags, rollout, now_ms, evidence, routers, healthy, gate: None, load: None, servers: None })
    else {
        panic!()
    };
    assert_eq!((go.event, go.rollout.why.as_str()), (Event::Aborted, "changed by hand: the field rollout was removed"));
    assert_eq!(go.fields.keys().collect::<Vec<_>>(), ["rollout"], "the share stays as it is");
}

/// A plain rollback has nothing to do there; somebody may want to go back further.
#[test]
fn the_other_colour_is_a_way_back_unless_it_runs_what_just_failed() {
    let mut scene = Scene::quiet(crate::release::roles::tests::route(["search:3", "search:2", "search:2"]));
    let begun = scene.begin(Some("search:2")).unwrap();
    scene.write(&begun);
    assert_eq!(scene.order(Order::Abort), Ok(Event::Aborted));
    let other = |scene: &Scene| {
        let way = other_way(&scene.flags(), &scene.route);
        way.rsplit_once("--to ").map(|(_, version)| ("green".to_owned(), version.to_owned()))
    };
    assert_eq!(other(&scene), None, "green runs the candidate that was aborted");
    scene.route.pools[1].version = "search:1".to_owned();
    assert_eq!(other(&scene), Some(("green".to_owned(), "search:1".to_owned())));
    scene.route.pools[1].version = "search:3".to_owned();
    assert_eq!(other(&scene), None, "that is live");
    // It was rolled back one night, and another one on another pool was the last rollout's candidate.
    scene.route.pools[1].version = "search:4".to_owned();
    assert_eq!(other(&scene), None, "nobody goes back to a later version");
}

/// Two who roll back at the same moment mean the same; and nobody is given a pool that runs nothing.
#[test]
fn a_way_back_is_not_taken_back_by_a_plain_rollback_and_no_pool_that_runs_nothing_becomes_live() {
    let of = |versions: [&str; 3]| {
        let mut scene = Scene::quiet(crate::release::roles::tests::route(versions));
        let asked = Begin { candidate: Some("search:2".to_owned()), at_once: true, id: "cd".repeat(16), ..Begin::default() };
        let refused = scene.begin(None).map(|begun| begun.event).map_err(|refusal| refusal.0);
        let back = begin(&asked, &scene.flags(), &scene.route, &scene.healthy, scene.now_ms).unwrap();
        scene.write(&back);
        assert_eq!((back.event, scene.shares().0.as_str()), (Event::Switched, "green"));
        (refused, rollback(&scene.flags(), &scene.route, 0, ""), other_way(&scene.flags(), &scene.route))
    };
    let (_, back, way) = of(["search:3", "search:2", "search:2"]);
    let says = "search:2 was brought back over search:3; to make that live again: switchback rollback search --to search:3";
    assert_eq!((back, way.as_str()), (None, says));
    let (begun, back, way) = of(["none", "search:2", "search:2"]);
    assert_eq!((back, way.as_str()), (None, "to change who is live: switchback flag set search live=..."));
    let says = "blue is live and runs no version: there is nobody to compare search:2 with; switchback rollback search --to VERSION makes one live at once";
    assert_eq!(begun, Err(says.to_owned()));
    let (_, back, _) = of(["search:1", "search:2", "search:2"]);
    assert_eq!(back.map(|back| back.control).as_deref(), Some("search:1"), "a later version that came at once is taken back");
}

/// What the last rollout replaced or took back has to be named to come again.
#[test]
fn what_was_put_away_does_not_come_again_by_itself() {
    let mut scene = Scene::start();
    let mut back = scene.seen(|seen| rollback(seen.flags, seen.route, 0, "clicks")).unwrap();
    back.fields.insert("canary_percent".to_owned(), Some("0".to_owned()));
    scene.write(&Move { event: Event::RolledBack, rollout: scene.rollout(), fields: back.fields });
    assert!(!scene.fields.contains_key("candidate_pool"), "nothing of it is left");
    let refused = scene.begin(None).unwrap_err().0;
    assert!(refused.ends_with("v2 is what the last rollout took back; --candidate v2 starts it all the same"), "{refused}");
    let again = scene.begin(Some("v2")).unwrap();
    scene.write(&again);
    scene.order(Order::PromoteFully).unwrap();
    scene.order(Order::Promote).unwrap();
    let refused = scene.begin(None).unwrap_err().0;
    assert_eq!(
        refused,
        "there is no new version: canary runs v2, blue runs v1, and v1 is what the last rollout replaced; --candidate v1 starts it all the same"
    );
    assert_eq!(scene.begin(Some("v1")).unwrap().rollout.candidate, "v1");
    scene.route.pools[2].version = "v3".to_owned();
    assert_eq!(scene.begin(None).unwrap().rollout.candidate, "v3");
}

#[test]
fn experiments_leave_units_for_it() {
    let mut scene = Scene::start();
    let with = |percents: &[&str]| {
        let of = |(at, percent): (usize, &&str)| {
            let arms = r#"[{"name": "control", "pool": "live"}, {"name": "big", "pool": "canary"}]"#;
            let layer = ["ranking", "looks"][at];
            format!(r#"{{"name": "e{at}", "layer": "{layer}", "salt": "salt-of-e{at}", "percent": "{percent}", "arms": {arms}}}"#)
        };
        let all: Vec<String> = percents.iter().enumerate().map(of).collect();
        let layers = r#"[{"name": "ranking", "salt": "salt-of-ranking"}, {"name": "looks", "salt": "salt-of-looks"}]"#;
        format!(r#"{{"layers": {layers}, "experiments": [{}]}}"#, all.join(", "))
    };
    scene.fields.insert("experiments".to_owned(), with(&["60", "50"]));
    assert_eq!(scene.flags().experiments.unwrap().left_for_rollouts().to_string(), "20");
    scene.now_ms += 2_000;
    assert_eq!(scene.waits_for(), "nothing was judged yet; experiments leave 20 % of the units");
    assert_eq!(scene.order(Order::Abort), Ok(Event::Aborted));
    scene.fields.insert("experiments".to_owned(), with(&["95", "90"]));
    let refused = scene.begin(None).unwrap_err().0;
    assert!(refused.starts_with("experiments leave 0.5 % of the units, too few"), "{refused}");
}

#[test]
fn orders_are_carried_out_or_refused_with_a_reason() {
    let mut scene = Scene::start();
    assert!(scene.begin(None).unwrap_err().0.starts_with("a rollout is under way: v2 canary step 1 of 4 (1 %)"));
    assert_eq!(scene.order(Order::Pause), Ok(Event::Paused));
    scene.judge("advance", 1_000);
    assert_eq!(scene.waits_for(), "paused: alice");
    assert!(scene.order(Order::Pause).unwrap_err().starts_with("it is paused already"));
    // Whoever promotes does not want it paused any more.
    assert_eq!(scene.order(Order::Promote), Ok(Event::StepBegan));
    assert_eq!((scene.rollout().paused, scene.shares().1.as_str()), (None, "5 on canary"));
    assert!(scene.order(Order::Resume).unwrap_err().starts_with("it is not paused"));
    scene.fields.insert("freeze".to_owned(), "true".to_owned());
    assert!(scene.order(Order::Promote).unwrap_err().starts_with("freeze is set"));
    scene.fields.remove("freeze");
    scene.healthy = vec![2, 0, 2];
    assert_eq!(scene.order(Order::Promote), Err("pool green has no healthy endpoint (http://127.0.0.1:2)".to_owned()));
    scene.healthy = vec![2, 2, 2];
    assert_eq!(scene.order(Order::PromoteFully), Ok(Event::Switched));
    assert_eq!(scene.order(Order::Abort), Ok(Event::Aborted));
    assert_eq!(scene.shares(), ("blue".to_owned(), "0 on canary".to_owned(), "0".to_owned()));
    assert!(scene.order(Order::Abort).unwrap_err().starts_with("the last rollout is over: v2 aborted"));
    assert_eq!(scene.begin(Some("v9")).unwrap_err().0, "no pool runs v9: canary runs v2, green runs v2");
    assert_eq!(scene.begin(Some("v1")).unwrap_err().0, "v1 is live already");
    scene.fields.insert("canary_percent".to_owned(), "20".to_owned());
    assert!(scene.begin(None).unwrap_err().0.contains("has a share already"));
}

#[test]
fn copies_come_before_answers() {
    let mut scene = Scene::start();
    assert_eq!(scene.order(Order::Abort), Ok(Event::Aborted));
    (scene.route.rollout.mirror, scene.route.rollout.mirror_for) = (Ppm::ALL, std::time::Duration::from_secs(60));
    scene.route.rollout.mirror_min_samples = 0;
    let begun = scene.begin(None).unwrap();
    scene.write(&begun);
    assert_eq!((scene.flags().mirror, scene.flags().candidate.share), (Ppm::ALL, Ppm::ZERO));
    assert_eq!(scene.waits_for(), "queries are copied: 0 of 60 s");
    scene.now_ms += 60_000;
    assert_eq!(scene.go(), Event::StepBegan);
    assert_eq!((scene.flags().mirror, scene.shares().1.as_str()), (Ppm::ZERO, "1 on canary"));
}

#[test]
fn what_is_done_can_be_taken_back() {
    use crate::release::rollback;
    let mut scene = Scene::start();
    scene.order(Order::PromoteFully).unwrap();
    scene.order(Order::Promote).unwrap();
    assert_eq!(scene.rollout().phase, Phase::Done);
    let back = rollback(&scene.flags(), &scene.route, scene.now_ms, "alice: clicks fell").unwrap();
    assert_eq!((back.candidate.as_str(), back.target.as_str()), ("v2", "blue"));
    for (field, value) in back.fields {
        scene.fields.insert(field, value.unwrap_or_default());
    }
    assert_eq!((scene.rollout().phase, scene.shares().0.as_str()), (Phase::RolledBack, "blue"));
    assert_eq!(rollback(&scene.flags(), &scene.route, 0, ""), None, "once");
}

#[test]
fn the_document_has_every_transition() {
    let document = include_str!("../../../../docs/ROLLOUTS.md");
    let phases = [
        Phase::Loading,
        Phase::Pending,
        Phase::Mirroring,
        Phase::Canary,
        Phase::Baking,
        Phase::Done,
        Phase::RolledBack,
        Phase::Aborted,
        Phase::Retired,
    ];
    for label in phases.map(Phase::label).into_iter().chain(Event::ALL.map(Event::label)) {
        assert!(document.contains(&format!("| `{label}` |")), "{label} is in no table");
    }
}

proptest! {
    /// Whatever is seen: a step at a time, one move each, along the phases, never without the policy's word, and the flags are what the record says.
    #[test]
    fn it_never_leaves_its_way(turns in proptest::collection::vec((0_usize..6, 0_usize..8, 0_u64..4_000_000), 1..40)) {
        let mut scene = Scene::start();
        for (verdict, what, passes) in turns {
            let verdict = ["advance", "hold", "roll_back", "no_data", "advance", "advance"][verdict];
            scene.now_ms += passes;
            scene.evidence = Some(evidence(verdict, 1_000, scene.now_ms));
            scene.healthy = if what == 0 { vec![2, 0, 0] } else { vec![2, 2, 2] };
            let before = scene.rollout();
            let after = match what {
                1 => scene.order(Order::Pause).is_ok(),
                2 => scene.order(Order::Resume).is_ok(),
                _ => match scene.next() {
                    Next::Go(go) => {
                        let is_forward = matches!(go.event, Event::StepBegan | Event::Switched | Event::Done);
                        prop_assert!(!is_forward || verdict == "advance" || (verdict == "hold" && before.phase == Phase::Baking));
                        prop_assert!(!is_forward || before.paused.is_none());
                        scene.write(&go);
                        true
                    }
                    Next::Wait(_) | Next::Load(_) | Next::Look { .. } | Next::Rest => false,
                },
            };
            let now = scene.rollout();
            prop_assert_eq!(now.moves, before.moves + u64::from(after));
            prop_assert!(now.step == before.step || now.step == before.step + 1);
            let order = |phase: Phase| match phase {
                Phase::Loading | Phase::Pending | Phase::Mirroring => 0,
                Phase::Canary => 1,
                Phase::Baking => 2,
                Phase::Done => 3,
                Phase::RolledBack | Phase::Aborted | Phase::Retired => 9,
            };
            prop_assert!((order(before.phase)..=order(before.phase) + 1).contains(&order(now.phase)));
            let (live, share, held) = scene.shares();
            let percent = now.planned().unwrap().percent;
            let is_as_said = match now.phase {
                Phase::Canary => live == "blue" && share.starts_with(&format!("{percent} on ")) && held == "0",
                Phase::Baking => live == "green" && share.starts_with("0 on ") && held == "10",
                _ => live == "green" && share.starts_with("0 on ") && held == "0",
            };
            prop_assert!(is_as_said, "{:?}: {live} {share} {held}", now.phase);
        }
    }
}
