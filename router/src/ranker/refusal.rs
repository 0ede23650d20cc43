//! Why a request is not answered as asked: a status and a sentence that names what, where and what is allowed.

use std::marker::PhantomData;

use http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// An answer of `{"error": "..."}` with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// With 405: what is allowed.
    pub(super) allow: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), allow: None }
    }

    /// The request is at fault: 400.
    pub(super) fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such path, model or version: 404.
    pub(super) fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, message)
    }

    /// Another method is wanted: 405.
    pub(super) fn method(given: &http::Method, path: &str, allow: &'static str) -> Refusal {
        let message = format!("{given} {path}: only {allow} is answered here");
        Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }

    /// The body did not come in time: 408.
    pub(super) fn slow(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// Over the limit of the body: 413.
    pub(super) fn too_large(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// An encoding that is not read: 415.
    pub(super) fn media(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// Too much of it at once: 429.
    pub(super) fn too_many(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
    }

    /// The ranker or its model is at fault: 500.
    pub(super) fn fault(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Whether it passes by itself: 503.
    pub(super) fn is_unavailable(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Nothing is served now, or what is needed is away: 503.
    pub(super) fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// A list of objects. Serde alone would also take a list in an object's place, and read it by position.
pub(super) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects: Vec<Object<T>> = Vec::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|object| object.0).collect())
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        deserializer.deserialize_map(ReadObject(PhantomData)).map(Object)
    }
}

struct ReadObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ReadObject<T> {
    type Value = T;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

const NO_OBJECT: &str = "the body must be a JSON object: {...}";

/// Reads a JSON body, an object. The quick way first; where it fails, a second reading finds the path of what is wrong.
pub(super) fn read_json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let quick: serde_json::Error = match serde_json::from_slice(body) {
        Ok(value) if is_object => return Ok(value),
        // A list in an object's place would be read by position.
        Ok(_) => return Err(Refusal::bad(NO_OBJECT)),
        Err(error) => error,
    };
    if quick.is_syntax() || quick.is_eof() {
        return Err(Refusal::bad(format!("the body is not JSON: {quick} (NaN and Infinity are not JSON either)")));
    }
    if !is_object {
        return Err(Refusal::bad(NO_OBJECT));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(error) if error.path().to_string() != "." => Err(Refusal::bad(format!("{}: {}", error.path(), error.inner()))),
        _ => Err(Refusal::bad(format!("the body: {quick}"))),
    }
}
