//! A request's head on its way through the router.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

use super::http1::Lines;
use super::replay::RequestBody;

/// The head. It goes through many hands, and is boxed: moving it a dozen times costs more than that.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

/// A request that is to be sent to a backend.
pub(crate) struct Outgoing {
    pub(crate) head: Box<Head>,
    pub(crate) body: RequestBody,
}

/// A head's fields. Those of nearly all queries pass as they came, and only the few that somebody asks for are looked at: no map is made of them.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// As they came in HTTP/1, as long as none had to be changed.
    lines: Option<Lines>,
    /// All of them, where there are no lines.
    map: HeaderMap,
}

impl Head {
    /// As HTTP/2 has it.
    pub(crate) fn of(parts: Parts) -> Head {
        Head { method: parts.method, uri: parts.uri, version: parts.version, fields: Fields { lines: None, map: parts.headers } }
    }
}

impl From<Request<RequestBody>> for Outgoing {
    fn from(request: Request<RequestBody>) -> Outgoing {
        let (head, body) = request.into_parts();
        Outgoing { head: Box::new(Head::of(head)), body }
    }
}

impl From<Outgoing> for Request<RequestBody> {
    fn from(outgoing: Outgoing) -> Request<RequestBody> {
        let Outgoing { head, body } = outgoing;
        let Head { method, uri, version, mut fields } = *head;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (method, uri, version);
        *request.headers_mut() = std::mem::take(fields.map());
        request
    }
}

impl From<Lines> for Fields {
    fn from(lines: Lines) -> Fields {
        Fields { lines: Some(lines), map: HeaderMap::new() }
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Fields {
        Fields { lines: None, map }
    }
}

impl Fields {
    /// The value of the first with this name.
    #[inline]
    pub(crate) fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        match &self.lines {
            Some(lines) => lines.get(name.as_str()),
            None => self.map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// The same by its name in lower case.
    #[inline]
    pub(crate) fn named(&self, name: &str) -> Option<&[u8]> {
        match &self.lines {
            Some(lines) => lines.get(name),
            None => self.map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// The values of all with this name (lower case), in their order.
    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines.iter().flat_map(move |lines| lines.all(name));
        lines.chain(self.map.get_all(name).iter().map(HeaderValue::as_bytes))
    }

    /// As a map, to be changed.
    pub(crate) fn map(&mut self) -> &mut HeaderMap {
        if let Some(lines) = self.lines.take() {
            self.map = lines.to_map();
        }
        &mut self.map
    }

    /// Where there are no lines.
    pub(crate) fn as_map(&self) -> &HeaderMap {
        &self.map
    }

    /// As they came, as long as none had to be changed.
    pub(crate) fn lines(&self) -> Option<&Lines> {
        self.lines.as_ref()
    }

    /// The same, for lines to be put behind them.
    pub(crate) fn lines_mut(&mut self) -> Option<&mut Lines> {
        self.lines.as_mut()
    }

    /// The whole head that they came in.
    pub(crate) fn raw(&self) -> Option<Bytes> {
        self.lines.as_ref().map(|lines| lines.head().clone())
    }
}
