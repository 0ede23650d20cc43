//! What operators order of a route: how it is read, and how it is written beside whoever else writes.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::{AdminState, routes};
use crate::flags::{Change, ChangeError, Flags};
use crate::vocabulary::{ONE_LINE_RULE, RouteIndex, not_one_line};

/// So often somebody else may be first.
pub(super) const TRIES: u32 = 8;

/// An order's body, which may be empty.
pub(super) fn read<T: Default + for<'de> Deserialize<'de>>(body: Result<Bytes, BytesRejection>, example: &str) -> Result<T, ApiError> {
    let body = routes::whole(body)?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| ApiError::BadRequest(format!("the body must be empty, or JSON like {example}: {error}")))
}

/// That a text which the ledger keeps, and terminals show, is one line. `field` is its place in the body.
pub(super) fn one_line(field: &str, text: &str) -> Result<(), ApiError> {
    not_one_line(text).map_or(Ok(()), |what| Err(ApiError::BadRequest(format!("{field}: {what}: {ONE_LINE_RULE}"))))
}

/// Writes what `make` makes of the flags, on the epoch of those flags. Where somebody was first, what they wrote is what the order is about.
pub(super) async fn write<T>(
    state: &AdminState,
    index: RouteIndex,
    make: impl Fn(&Flags) -> Result<(Change, T), ApiError>,
) -> Result<(u64, T), ApiError> {
    for _ in 0..TRIES {
        let flags = state.flags.stored(index);
        let (change, made) = make(&flags)?;
        // What somebody wrote there by hand, with a slip, is theirs to mend.
        let slip = state
            .flags
            .view(index)
            .faults
            .iter()
            .find(|fault| fault.field == "experiments" && change.fields.contains_key("experiments"))
            .cloned();
        if let Some(slip) = slip {
            let why = format!(
                "the field experiments in the store makes no sense, and would be overwritten: it must be {}; mend it, or delete it, first",
                slip.allowed
            );
            return Err(ApiError::Experiment(why));
        }
        match state.flags.change(index, Change { expected_epoch: Some(flags.epoch), ..change }).await {
            Ok(epoch) => return Ok((epoch, made)),
            Err(ChangeError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Busy)
}

/// An answer, and more about what was written.
pub(super) fn with<const N: usize>(mut answer: Value, more: [(&str, Value); N]) -> Value {
    if let Some(answer) = answer.as_object_mut() {
        answer.extend(more.map(|(key, value)| (key.to_owned(), value)));
    }
    answer
}
