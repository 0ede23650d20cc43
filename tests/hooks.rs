//! The promise: where model servers have URLs of their own to load, a pool answers with the version that it is said to run, also on the way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use switchback_tests::hooked::{Hooked, Serves};
use switchback_tests::model_pools::QUICK;
use switchback_tests::ranker::demo;
use switchback_tests::registry::Registry;
use switchback_tests::{Load, Router, Setup, eventually, http};

const SOON: Duration = Duration::from_secs(60);

/// Three pools of one server each, all with `search:1`, and a registry with three versions.
struct Site {
    registry: Registry,
    /// Blue, green, canary.
    servers: [Hooked; 3],
}

impl Site {
    fn start(serves: Serves) -> Site {
        let registry = Registry::in_folder();
        for (number, model) in [(1, "ranker_v1"), (2, "ranker_v2"), (3, "ranker_v1")] {
            registry.done(&["push", demo(&format!("models/{model}.onnx")).to_str().unwrap(), "--model", "search"]);
            registry.done(&["validate", &format!("search:{number}")]);
        }
        Site { registry, servers: [(); 3].map(|()| Hooked::start(serves)) }
    }

    fn router(&self, unload: &str) -> Router {
        self.router_on([0, 1, 2], unload)
    }

    /// With each pool on the server of this place.
    fn router_on(&self, places: [usize; 3], unload: &str) -> Router {
        let mut setup = Setup::default();
        for (pool, place) in ["blue", "green", "canary"].iter().zip(places) {
            setup = setup.pool_of(pool, &[self.servers[place].url()]).pool_keys("version = \"search:1\"");
        }
        let hooks = "load_url = \"{endpoint}/load/{version}\"\nready_url = \"{endpoint}/ready/{version}\"\n";
        let loading = format!("[route.loading]\nmodel = \"search\"\nprotocol = \"hooks\"\npoll_every = \"20ms\"\n{hooks}{unload}");
        let place = self.registry.path("registry");
        let top = format!("[registry]\nurl = \"file://{}\"\n[evidence]\ntraffic_seal = \"1500ms\"\nmaturity = \"2s\"", place.display());
        setup.workers(1).top(&top).route(&format!("{QUICK}\nexpose = [\"pool\"]\n{loading}")).start()
    }
}

fn done(router: &Router, arguments: &[&str]) -> String {
    let (code, said, error) = router.run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}{error}");
    said
}

/// An operator's rollout: nobody waits for evidence.
fn goes_live(router: &Router, candidate: &str) {
    done(router, &["rollout", "start", "search", "--candidate", candidate]);
    let is = |phase: &str| {
        let rollout = router.route()["rollout"].clone();
        (rollout["candidate"] == candidate && rollout["phase"] == phase).then_some(())
    };
    eventually("it is loaded", SOON, || is("canary"));
    done(router, &["rollout", "promote", "search", "--full"]);
    eventually("it is live", SOON, || is("done"));
}

/// The version that answers users.
fn answers(router: &Router, version: &str) {
    eventually("the version answers", SOON, || {
        let (status, body, _) = http::send(router.traffic, "POST", "/rank", &[], b"{}").unwrap();
        (status == 200 && body == version).then_some(())
    });
}

/// Two versions go live one after the other, and then somebody goes back to the first.
fn there_and_back(site: &Site, router: &Router) {
    let load = Load::new(router.traffic, 50).start();
    for (candidate, number) in [("search:2", "2"), ("search:3", "3")] {
        goes_live(router, candidate);
        answers(router, number);
    }
    assert_eq!(done(router, &["rollback", "search", "--to", "search:1"]), "rolled back: search:1 is live on search\n");
    answers(router, "1");
    let route = router.route();
    assert_eq!(
        (&route["live"], &route["pools"]["green"]["version"]),
        (&"green".into(), &"search:1".into()),
        "{:?}",
        site.servers[1].told()
    );
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}

#[test]
fn what_a_pool_ran_before_is_unloaded_so_that_its_newest_is_the_one_that_is_meant() {
    let site = Site::start(Serves::Newest);
    let router = site.router("unload_url = \"{endpoint}/unload/{version}\"\n");
    there_and_back(&site, &router);
    assert_eq!(site.servers[1].told(), ["load/2", "unload/1", "load/1", "unload/2"]);
    assert_eq!(site.servers[0].told(), ["load/3", "unload/1"]);
}

#[test]
fn where_nothing_is_unloaded_a_version_that_is_ready_is_loaded_again() {
    let site = Site::start(Serves::LastLoaded);
    let router = site.router("");
    there_and_back(&site, &router);
    assert_eq!(site.servers[1].told(), ["load/2", "load/1"], "it had kept the first");
}

/// Canary is on blue's server, which answers everybody.
#[test]
fn what_another_pool_runs_on_the_same_server_is_not_unloaded() {
    let site = Site::start(Serves::Newest);
    let router = site.router_on([0, 1, 0], "unload_url = \"{endpoint}/unload/{version}\"\n");
    // A bake ends with evidence.
    let load = Load::new(router.traffic, 50).start();
    goes_live(&router, "search:2");
    answers(&router, "2");
    assert_eq!(site.servers[0].told(), ["load/2"]);
    assert_eq!(site.servers[1].told(), ["load/2", "unload/1"]);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report:?}");
}
