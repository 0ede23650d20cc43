//! What the system tests stand on: real servers as child processes, on ports of their own.

pub mod flags;
pub mod redis;
