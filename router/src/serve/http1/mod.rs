//! The router's own HTTP/1.1, of clients and towards backends: no task for a query, no lock, and next to nothing kept for a connection that is idle.
//!
//! ```text
//! client -> bytes -> head (slices of them) -> answer -> head into a buffer that is used again, with the body's first slice -> client
//!           (io)     (request)   (server)               (reply)
//!                                   | Wire (client)
//! Request -> head into a buffer that is used again -> one write, with the body's first slice -> backend
//!            (out)
//! backend -> bytes -> head and body are slices of them -> Response, whose body gives the connection back
//!                     (response, chunks)  (download)
//! ```
//!
//! hyper's client is there for upgrades, where a backend's connection is another protocol's in the end. What a head or a body can be ambiguous in is refused,
//! from either side ([`request`], [`response`], [`chunks`]).

mod chunks;
mod client;
mod download;
mod draft;
mod fields;
mod io;
mod lines;
mod linger;
mod out;
mod reply;
mod request;
mod response;
mod server;
mod stream;
mod upload;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod server_tests;

pub(crate) use client::{Unanswered, Wire};
pub(crate) use download::{BackendBody, BackendBroke, PassedLines};
pub(crate) use draft::{Draft, Drafted};
pub(crate) use fields::{give_back, number};
pub(crate) use io::Upgraded;
pub(crate) use lines::{FIELDS, Lines};
pub(crate) use reply::date_now;
#[cfg(test)]
pub(crate) use request::{RequestHead, RequestReader};
pub(crate) use response::{HEAD_BYTES, passes_as_it_is};
pub(crate) use server::{Asked, Connection};
pub(crate) use stream::Stream;
#[cfg(test)]
pub(crate) use upload::read_body;
pub(crate) use upload::{ClientBody, ClientBroke};
