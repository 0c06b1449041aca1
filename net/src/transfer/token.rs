//! The token that nodes show each other.

use blake3::Hash;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

/// A bearer token that every node of a cluster has.
#[derive(Clone)]
pub struct PeerToken {
    shown: MetadataValue<Ascii>,
    hash: Hash,
}

impl std::fmt::Debug for PeerToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("PeerToken")
    }
}

impl PeerToken {
    /// Of its text; nothing if it cannot stand in a header.
    pub fn new(token: &str) -> Option<Self> {
        let mut shown = MetadataValue::try_from(format!("Bearer {token}")).ok()?;
        shown.set_sensitive(true);
        Some(Self { hash: blake3::hash(shown.as_bytes()), shown })
    }

    /// Whether a request shows it.
    pub(super) fn check(&self, request: &Request<()>) -> Result<(), Status> {
        match request.metadata().get("authorization") {
            // Hashes are compared in constant time.
            Some(shown) if blake3::hash(shown.as_bytes()) == self.hash => Ok(()),
            Some(_) => Err(Status::unauthenticated("the bearer token is wrong")),
            None => Err(Status::unauthenticated("a token is needed, give one with --token-file FILE")),
        }
    }
}

/// Shows the token, where there is one, with each request.
#[derive(Clone, Debug, Default)]
pub(super) struct Show(pub(super) Option<PeerToken>);

impl Interceptor for Show {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.shown.clone());
        }
        Ok(request)
    }
}
