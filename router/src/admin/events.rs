//! `/api/v1/events`: changes of flags as they are applied here, as server-sent events.
//!
//! A stream begins with one event for each route as it is, so that a client that reconnects misses no state, and goes on with
//! one for each change of what is obeyed or not obeyed. Changes in quick succession may come as one: the newest.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::WatchStream;

use super::access::Viewer;
use super::error::ApiError;
use super::{AdminState, Shared, routes, view};
use crate::config::{Role, Route};
use crate::flags::View;
use crate::vocabulary::RouteIndex;

/// So that a client notices a dead connection, and a proxy between does not close a quiet one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    /// Only this route.
    route: Option<String>,
}

pub(super) async fn stream(
    Viewer(caller): Viewer,
    State(shared): State<Shared>,
    Query(query): Query<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let only = query.route.map(|name| routes::find(&shared, &name).map(|(index, _)| index)).transpose()?;
    let watched = shared.state.routes().filter(|(index, _)| only.is_none_or(|only| only == *index));
    let streams = watched.map(|(index, route)| {
        let (state, route) = (shared.state.clone(), route.clone());
        let flags = WatchStream::new(state.flags.watch(index)).map(drop);
        let reads = WatchStream::new(state.flags.watch_reads(index)).map(drop);
        let mut last = None;
        let news = stream::select(flags, reads).filter_map(move |()| {
            let view = state.flags.view(index);
            let now = Some((view.flags.clone(), view.faults.clone()));
            let is_news = now != last;
            last = now;
            std::future::ready(is_news.then(|| Ok(event(&state, index, &route, &view, caller.role))))
        });
        news.boxed()
    });
    let mut stopping = shared.stopping.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    let events = stream::select_all(streams).take_until(Box::pin(stopped));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// `event: flags`, its id the epoch, its data the flags in force and the fields that are not obeyed.
fn event(state: &AdminState, index: RouteIndex, route: &Route, view: &View, role: Role) -> Event {
    let mut data = view::flags_part(state, index, route, &view.flags);
    data.insert("faults".to_owned(), json!(view::faults(view, role)));
    Event::default().event("flags").id(view.flags.epoch.to_string()).data(Value::Object(data).to_string())
}
