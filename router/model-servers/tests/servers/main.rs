//! Versions are brought up on servers made by hand: as Triton is, as `MLServer` is, with hooks, and hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod by_name;
mod ended;
mod fakes;
mod hooks;
mod hostile;
mod http;
mod specific;

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use model_servers::{Golden, Progress, Protocol, Settings, Wanted, WarmUp};

/// A client as the router has it.
fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn settings() -> Settings {
    Settings {
        protocol: Protocol::V2,
        model: "m".to_owned(),
        config: serde_json::Map::new(),
        request_timeout: Duration::from_secs(5),
        load_timeout: Duration::from_secs(20),
        poll_every: Duration::from_millis(10),
        warm_up: WarmUp { timeout: Duration::from_secs(20), latency: None, rounds: 2, tolerance: 0.001 },
        parallel: 4,
    }
}

/// Two queries with what version 3 of the fakes says of them.
fn golden() -> Golden {
    let lines = [
        r#"{"query": "a", "documents": [{"id": "x", "features": [1, 2], "score": 5}, {"id": "y", "features": [3, 4], "score": 13}]}"#,
        r#"{"query": "b", "documents": [{"id": "z", "features": [0, 0.5], "score": 0.5}]}"#,
    ];
    Golden::read(lines.join("\n").as_bytes()).unwrap()
}

fn wanted(golden: Option<&Golden>) -> Wanted<'_> {
    Wanted { version: 3, previous: None, golden, input: None, pool: "blue", route: "search" }
}

fn silent(_: Progress) {}

/// What was told, in order.
#[derive(Default, Clone)]
struct Told(Arc<Mutex<Vec<Progress>>>);

impl Told {
    fn hear(&self) -> impl Fn(Progress) + Sync + use<> {
        let told = self.clone();
        move |progress| told.0.lock().unwrap().push(progress)
    }
}

/// The router runs it on a thread of its own.
#[test]
fn it_may_move_between_threads() {
    fn moves<T: Send>(_: T) {}
    let (client, settings, wanted) = (client(), settings(), wanted(None));
    moves(model_servers::bring_up(&client, &settings, &[], &wanted, None, &silent));
    moves(model_servers::retire(&client, &settings, &[], &wanted, None));
}
