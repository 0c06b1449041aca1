//! What a model's path names besides files of a machine.

use orion_proto::Result;

use crate::{origin::Location, store::Reference};

/// Whether a model's path names one that each worker fetches: `store:NAME@VERSION` or a URL. Else it is a path of its machine.
pub fn is_fetched(path: &str) -> bool {
    Reference::is_path(path) || Location::is_url(path)
}

/// Checks such a path.
///
/// # Errors
/// INVALID_ARGUMENT saying what it must be.
pub fn check_fetched(path: &str) -> Result<()> {
    match Reference::is_path(path) {
        true => Reference::of_path(path).map(drop),
        false => Location::parse(path).map(drop),
    }
}
