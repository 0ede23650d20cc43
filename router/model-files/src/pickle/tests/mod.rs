//! Tests over whole files.

mod asm;
mod containers;
mod golden;
mod joblib;
mod malicious;
mod opaque;
mod properties;
mod rules;
mod skops;

use super::{Allowed, Examined, Limits, Unsafe, examine};

fn look(bytes: &[u8]) -> Result<Examined, Unsafe> {
    examine(bytes, &Allowed::default(), &Limits::default())
}

/// The message of a refusal.
fn refused(bytes: &[u8]) -> String {
    look(bytes).expect_err("it is accepted").to_string()
}

/// The globals that are refused.
fn refused_globals(bytes: &[u8]) -> Vec<String> {
    match look(bytes) {
        Err(Unsafe::Refused(refusals)) => refusals.into_iter().filter_map(|refusal| refusal.global).collect(),
        other => panic!("{other:?}"),
    }
}
