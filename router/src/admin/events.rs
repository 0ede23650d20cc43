//! `/api/v1/events`: changes of flags as they are applied here, as server-sent events.
//!
//! A stream begins with one event for each route as it is, so that a client that reconnects misses no state, and goes on with
//! one for each change of what is obeyed or not obeyed. After a reload it says again how each route is. Changes in quick succession may come as one: the newest.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef as _, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::access::Viewer;
use super::error::ApiError;
use super::{AdminState, Live, Shared, routes, view};
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
    State(live): State<Live>,
    Query(query): Query<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    if let Some(name) = &query.route {
        routes::find(&Shared::from_ref(&live), name)?;
    }
    let room = live.streams.clone().try_acquire_owned().map_err(|_| ApiError::TooManyStreams)?;
    let mut stopping = live.stopping.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    // One stream for each config that is in force meanwhile, one after the other.
    let states = live.states.clone();
    let generations = WatchStream::new(live.states).map(move |state| of_one_config(state, &states, query.route.clone(), caller.role));
    let events = generations.flatten().take_until(Box::pin(stopped)).inspect(move |_| {
        // Given back with the stream.
        let _ = &room;
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Events until another config is in force than that of `state`.
fn of_one_config(
    state: Arc<AdminState>,
    states: &watch::Receiver<Arc<AdminState>>,
    only: Option<String>,
    role: Role,
) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let generation = state.generation;
    let mut states = states.clone();
    let is_replaced = async move {
        let _ = states.wait_for(|newest| newest.generation > generation).await;
    };
    let watched: Vec<(RouteIndex, Route)> = state
        .routes()
        .filter(|(_, route)| only.as_ref().is_none_or(|only| *only == route.name))
        .map(|(index, route)| (index, route.clone()))
        .collect();
    let streams = watched.into_iter().map(|(index, route)| {
        let state = state.clone();
        let flags = WatchStream::new(state.flags.watch_stored(index)).map(drop);
        let reads = WatchStream::new(state.flags.watch_reads(index)).map(drop);
        let mut last = None;
        let news = stream::select(flags, reads).filter_map(move |()| {
            let view = state.flags.view(index);
            let now = Some((view.flags.clone(), view.faults.clone()));
            let is_news = now != last;
            last = now;
            std::future::ready(is_news.then(|| Ok(event(&state, index, &route, &view, role))))
        });
        news.boxed()
    });
    // A stream without routes must wait for the next config, not end.
    let streams: Vec<_> = streams.collect();
    stream::select_all(streams).chain(stream::pending()).take_until(Box::pin(is_replaced))
}

/// `event: flags`, its id the epoch, its data the flags in force and the fields that are not obeyed.
fn event(state: &AdminState, index: RouteIndex, route: &Route, view: &View, role: Role) -> Event {
    let mut data = view::flags_part(state, index, route, &view.flags);
    data.insert("faults".to_owned(), json!(view::faults(view, role)));
    Event::default().event("flags").id(view.flags.epoch.to_string()).data(Value::Object(data).to_string())
}
