//! The smallest rollback policy: it never has enough evidence. It shows the interface without the SDK.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "rollback-policy",
});

use exports::switchback::policy::rollback::{Guest, Outcome, Window};
use switchback::policy::rollback_types::Verdict;

struct AlwaysHold;

impl Guest for AlwaysHold {
    fn evaluate(_config: String, state: Vec<u8>, window: Window) -> Result<Outcome, String> {
        let is_empty = window.candidate_requests == 0 || window.control_requests == 0;
        let verdict = if is_empty { Verdict::NoData } else { Verdict::Hold };
        Ok(Outcome { verdict, summary: "this policy never decides".to_owned(), evidence: Vec::new(), state })
    }
}

export!(AlwaysHold);
