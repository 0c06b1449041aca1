//! Moving artifacts between nodes: the shell around [`crate::swarm`], [`crate::store`] and [`crate::codec`].
//!
//! A [`Node`] serves what its store has and what is on its way there, and fetches from as many others as have an artifact.

mod accepted;
mod buffers;
mod coders;
mod connect;
mod draw;
mod fetch;
mod find;
mod form;
mod held;
mod import;
mod limits;
mod links;
mod node;
mod path;
mod pull;
mod push;
mod relay;
mod sending;
mod service;
mod sums;
#[cfg(test)]
mod tests;
mod token;
mod trial;
mod window;

pub use fetch::Progress;
pub use find::Wanted;
pub use import::Import;
pub use node::{Node, NodeOptions};
pub use path::{check_fetched, is_fetched};
pub use relay::{Relay, relayed, relayed_worker};
pub use sums::{Cohort, Exchange, Stopped};
pub use token::PeerToken;
pub use window::Seen;
