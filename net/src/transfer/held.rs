//! What a node has of an artifact that others take from it.

use std::sync::Arc;

use super::fetch::Fetch;
use crate::{
    store::{Chunks, Pin},
    swarm::Bitmap,
};

/// An artifact that can be sent: whole, or what is here of it.
#[derive(Debug)]
pub(super) enum Held {
    Whole(Chunks, #[expect(dead_code, reason = "it stays in the store for as long as it is sent")] Pin),
    Coming(Arc<Fetch>),
}

impl Held {
    pub(super) fn chunks(&self) -> &Chunks {
        match self {
            Self::Whole(chunks, _) => chunks,
            Self::Coming(fetch) => fetch.incoming().chunks(),
        }
    }

    pub(super) fn have(&self) -> Bitmap {
        match self {
            Self::Whole(chunks, _) => Bitmap::full(chunks.stored().pieces.len()),
            Self::Coming(fetch) => fetch.incoming().have(),
        }
    }
}
