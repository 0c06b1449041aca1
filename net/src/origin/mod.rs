//! Where models come from besides Orion's own nodes: folders, hubs, buckets and web servers, read through `object_store`.
//!
//! [`Origins::list`] tells what files a model has there, [`Listing::download`] brings them; [`Bucket`] keeps artifacts, whose
//! chunks are then fetched one by one, from nodes as well.

mod bucket;
mod config;
mod connect;
mod download;
mod error;
mod hub;
mod listing;
mod location;
mod parts;
mod select;
mod sign;

pub(crate) use self::bucket::{packed_form, starts};
pub use self::{
    bucket::Bucket,
    config::Origins,
    download::Downloaded,
    listing::{Listing, RemoteFile},
    location::{Location, shown},
};
