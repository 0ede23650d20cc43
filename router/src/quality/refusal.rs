//! Why requests and connections are refused, and why overrides are ignored.

/// Why a request was refused before it became a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No route matches: 404.
    NoRoute,
    /// The framing could be read in two ways: 400.
    Framing,
    /// No host, several, or one that cannot be: 400.
    Host,
    /// Dot segments in the path, where routes are told apart by their paths: 400.
    Path,
    /// A method or version that is not passed on (CONNECT, TRACE, upgrades that are not allowed): 405 or 501.
    Method,
    /// The head did not parse: 400.
    Head,
    /// The head is too large or has too many fields: 431.
    HeadSize,
    /// The head, or a connection's first byte, took too long: 408, or closed where nothing came.
    HeadTime,
    /// The body is larger than the route allows: 413, or broken off.
    BodySize,
    /// The body paused for too long, or was not through in time: 408, or broken off.
    BodyTime,
    /// The whole query took too long: closed.
    QueryTime,
    /// The client takes nothing of its response: closed.
    SlowReader,
    /// A client of HTTP/2 reset too many streams before their responses: closed.
    Resets,
    /// A client of HTTP/2 broke the protocol, or one of its limits: closed.
    Http2,
    /// Over the limit of connections in all: closed.
    Connections,
    /// Over the limit of connections of one address: closed.
    Address,
    /// A TLS handshake that failed or took too long: closed.
    Handshake,
    /// TLS, spoken to the listener for plain HTTP: 400.
    Tls,
    /// No TLS, spoken to the listener for TLS: plain HTTP, most likely. Closed.
    NoTls,
}

impl Refusal {
    /// All of them, in the order of [`super::WorkerTotals::refusals`].
    pub const ALL: [Refusal; 19] = [
        Refusal::NoRoute,
        Refusal::Framing,
        Refusal::Host,
        Refusal::Path,
        Refusal::Method,
        Refusal::Head,
        Refusal::HeadSize,
        Refusal::HeadTime,
        Refusal::BodySize,
        Refusal::BodyTime,
        Refusal::QueryTime,
        Refusal::SlowReader,
        Refusal::Resets,
        Refusal::Http2,
        Refusal::Connections,
        Refusal::Address,
        Refusal::Handshake,
        Refusal::Tls,
        Refusal::NoTls,
    ];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refusal::NoRoute => "no_route",
            Refusal::Framing => "framing",
            Refusal::Host => "host",
            Refusal::Path => "path",
            Refusal::Method => "method",
            Refusal::Head => "head",
            Refusal::HeadSize => "head_size",
            Refusal::HeadTime => "head_time",
            Refusal::BodySize => "body_size",
            Refusal::BodyTime => "body_time",
            Refusal::QueryTime => "query_time",
            Refusal::SlowReader => "slow_reader",
            Refusal::Resets => "resets",
            Refusal::Http2 => "http2",
            Refusal::Connections => "connections",
            Refusal::Address => "address",
            Refusal::Handshake => "handshake",
            Refusal::Tls => "tls",
            Refusal::NoTls => "no_tls",
        }
    }
}

/// Why an override was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideFault {
    /// It is not `pool;expiry;signature`, or there are two.
    Malformed,
    /// No key made its signature, for this route.
    Signature,
    /// It has ended.
    Expired,
    /// It is good for longer than is allowed.
    TooLong,
    /// The route has no such pool.
    Pool,
}

impl OverrideFault {
    /// All of them, in the order of [`super::WorkerTotals::override_faults`].
    pub const ALL: [OverrideFault; 5] =
        [OverrideFault::Malformed, OverrideFault::Signature, OverrideFault::Expired, OverrideFault::TooLong, OverrideFault::Pool];

    /// The `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            OverrideFault::Malformed => "malformed",
            OverrideFault::Signature => "signature",
            OverrideFault::Expired => "expired",
            OverrideFault::TooLong => "too_long",
            OverrideFault::Pool => "pool",
        }
    }
}
