//! A policy for Envoy, for the benchmark: users who ask for the beta get the canary, and a tenth of the others, by a hash (FNV-1a) of their id. It
//! says so in `x-pool`, which Envoy's route goes by.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_http_context(|_, _| Box::new(Policy));
}}

struct Policy;

impl Context for Policy {}

impl HttpContext for Policy {
    fn on_http_request_headers(&mut self, _count: usize, _is_end: bool) -> Action {
        let pool = if self.get_http_request_header("x-beta").as_deref() == Some("1") || self.is_in_the_tenth() { "canary" } else { "blue" };
        self.set_http_request_header("x-pool", Some(pool));
        Action::Continue
    }
}

impl Policy {
    fn is_in_the_tenth(&self) -> bool {
        let user = self.get_http_request_header_bytes("x-user-id").unwrap_or_default();
        let hash = user.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        hash % 100 < 10
    }
}
