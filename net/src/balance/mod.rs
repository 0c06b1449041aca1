//! Which replica a request goes to: load balancing as pure decisions over a time that is passed in.
//!
//! [`Strategy`] names the eight ways and makes a [`Balancer`] of each. Times are nanoseconds of any one clock that does
//! not go back. A replica that fails fast looks idle; wherever that would attract work, a [`Penalty`] keeps it away.

mod draws;
mod hash;
mod least;
mod penalty;
mod response;
mod strategy;
#[cfg(test)]
mod tests;
mod turns;

use std::fmt::Debug;

pub use penalty::{Penalty, PenaltyPolicy};
pub use strategy::Strategy;

/// One replica as a balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Number of the device, stable while it lives.
    pub id: u64,
    /// Requests sent to it and not answered yet.
    pub outstanding: u32,
    /// Rows a second that its measured curve promises; not finite or not positive counts as none.
    pub weight: f64,
    /// Nanoseconds until a request sent now would be answered.
    pub predicted: u64,
}

/// A way to choose among replicas, with what it has to remember.
pub trait Balancer: Send + Debug {
    /// The place in `endpoints` of the one to send to; `None` if there is none. Requests of one `key` want one replica.
    fn pick(&mut self, now: u64, endpoints: &[Endpoint], key: Option<u64>) -> Option<usize>;

    /// A request was sent to `id`. Each is finished exactly once, whether it was answered, failed or was given up.
    fn started(&mut self, _now: u64, _id: u64) {}

    /// A request to `id` ended, `latency` nanoseconds after it was sent; `ok` is false if the replica failed it.
    fn finished(&mut self, _now: u64, _id: u64, _latency: u64, _ok: bool) {}

    /// A request that `id` had answered as the request's own failure ran elsewhere: `id` had failed it.
    fn failed(&mut self, _now: u64, _id: u64) {}

    /// `id` is gone for good: its memory is freed.
    fn forget(&mut self, _id: u64) {}
}
