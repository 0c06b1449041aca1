//! Moving artifacts between nodes: the shell around [`crate::swarm`], [`crate::store`] and [`crate::codec`].
//!
//! A [`Node`] serves what its store has and what is on its way there, and fetches from as many others as have an artifact.

mod fetch;
mod form;
mod limits;
mod node;
mod pull;
mod push;
mod sending;
mod service;
#[cfg(test)]
mod tests;
mod token;
mod window;

pub use fetch::Progress;
pub use node::{Node, NodeOptions};
pub use pull::Wanted;
pub use token::PeerToken;
pub use window::Seen;
