//! Which responses' bodies are heard, and the copy of one on its way: see [`crate::quality::signals`]. What a copied query was answered is heard beside
//! that: [`super::pair`].

use std::cell::Cell;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::response::Parts;

use super::pair::LiveHalf;
use super::routes::RouteWorker;
use super::split::Chosen;
use crate::config::Signals;
use crate::quality::events;
use crate::quality::signals::{Heard, Hearing, Packing, SignalsDesk};
use crate::quality::{route_id, version_id};
use crate::vocabulary::{PoolIndex, Ppm};

/// One worker's ear for one route's responses.
pub(crate) struct Ear {
    signals: Arc<Signals>,
    desk: SignalsDesk,
    route: u32,
    /// By pool.
    versions: Vec<u32>,
    /// The state of a generator: which responses are sampled.
    random: Cell<u64>,
}

/// A copy of a body, and where it is handed in: of a sampled one, of one that is compared with another, or of both.
pub(crate) struct BodyCopy {
    heard: Option<(Heard, SignalsDesk)>,
    half: Option<LiveHalf>,
}

impl Ear {
    pub(crate) fn new(route: &crate::config::Route, desk: &SignalsDesk) -> Option<Ear> {
        let signals = route.signals.clone().filter(|signals| signals.sample > Ppm::ZERO)?;
        let versions = route.pools.iter().map(|pool| version_id(&pool.name, &pool.version)).collect();
        Some(Ear { signals, desk: desk.clone(), route: route_id(&route.name), versions, random: Cell::new(rand::random::<u64>() | 1) })
    }

    /// Of a query that counts and got a good answer in JSON, if it is sampled.
    #[cold]
    pub(crate) fn hear(&self, head: &Parts, route: &RouteWorker, pool: PoolIndex, chosen: &Chosen) -> Option<Box<BodyCopy>> {
        let counts = chosen.counts.as_ref();
        let counted = counts.filter(|_| pool == chosen.pool && head.status.is_success() && self.is_sampled())?;
        let packing = packing(&head.headers)?;
        let version = match &counted.arm {
            None => self.versions.get(pool.get()).copied()?,
            Some(arm) => arm.id(),
        };
        let cell = events::Cell { window: route.quarter().window(), route: self.route, version };
        let heard = self.desk.hear(Hearing { cell, group: counted.group, packing }, &self.signals);
        Some(Box::new(BodyCopy { heard: Some((heard, self.desk.clone())), half: None }))
    }

    /// xorshift64*, its upper 32 bits.
    fn is_sampled(&self) -> bool {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        let position = ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) * u64::from(Ppm::ALL.get())) >> 32;
        position < u64::from(self.signals.sample.get())
    }
}

impl BodyCopy {
    /// For what `copy` is for, and to be compared.
    pub(crate) fn and(copy: Option<Box<BodyCopy>>, half: LiveHalf) -> Box<BodyCopy> {
        let mut copy = copy.unwrap_or_else(|| Box::new(BodyCopy { heard: None, half: None }));
        copy.half = Some(half);
        copy
    }

    pub(crate) fn pass(&mut self, piece: &[u8]) {
        if let Some((heard, _)) = &mut self.heard {
            heard.pass(piece);
        }
        if let Some(half) = &mut self.half {
            half.pass(piece);
        }
    }

    pub(crate) fn deliver(self) {
        if let Some((heard, desk)) = self.heard {
            desk.deliver(heard);
        }
        if let Some(half) = self.half {
            half.deliver();
        }
    }
}

/// How a body in JSON is packed; `None` for another kind of body, or another packing.
pub(crate) fn packing(headers: &HeaderMap) -> Option<Packing> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    let is_json = kind.eq_ignore_ascii_case("application/json") || kind.len() > 5 && kind.to_ascii_lowercase().ends_with("+json");
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let packing = match (codings.next().map(|coding| coding.to_str().unwrap_or_default().trim()), codings.next()) {
        (None | Some("identity"), None) => Packing::None,
        (Some("gzip" | "x-gzip"), None) => Packing::Gzip,
        _ => return None,
    };
    is_json.then_some(packing)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn json_is_heard_as_it_is_or_packed_with_gzip() {
        let of = |fields: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_static(value));
            }
            packing(&headers)
        };
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/hal+json"] {
            assert_eq!(of(&[(CONTENT_TYPE, kind)]), Some(Packing::None), "{kind}");
            assert_eq!(of(&[(CONTENT_TYPE, kind), (CONTENT_ENCODING, "gzip")]), Some(Packing::Gzip), "{kind}");
        }
        for fields in [
            &[(CONTENT_TYPE, "text/html")][..],
            &[(CONTENT_TYPE, "+json")],
            &[],
            &[(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "br")],
            &[(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip"), (CONTENT_ENCODING, "gzip")],
        ] {
            assert_eq!(of(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn the_sample_is_as_large_as_it_should_be() {
        let text = "listen = { traffic = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }\n[[route]]\nname = \"search\"\n\
                    signals = { sample_percent = \"2.5\", results = \"/a\" }\n[route.pools.blue]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        let config = crate::config::parse("test", text).unwrap();
        let ear = Ear::new(&config.routes[0], &SignalsDesk::open().unwrap()).unwrap();
        let sampled = (0..200_000).filter(|_| ear.is_sampled()).count();
        assert!((4_700..5_300).contains(&sampled), "{sampled}");
    }
}
