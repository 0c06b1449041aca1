//! Finding an artifact among nodes and buckets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use orion_proto::{Code, Error, Result, peer::FindRequest};

use super::{node::Node, relay::relayed_worker};
use crate::{
    artifact::{Artifact, Hash, MOST_MANIFEST_BYTES},
    origin::{Location, shown},
};

/// The next is asked too when one has not answered for so long: it may be cut off.
const PATIENCE: Duration = Duration::from_secs(1);
/// Those that are reached through the scheduler are asked after so long, whoever is left before them.
const RELAY_PATIENCE: Duration = Duration::from_millis(2500);

/// Which artifact.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A name, and a version or the last.
    Named(String, Option<String>),
    /// Exactly this one.
    Root(Hash),
}

impl Node {
    /// Finds an artifact: what the first of these nodes that has it says, in their order but for those that do not answer.
    ///
    /// # Errors
    /// What each of them said.
    pub async fn find(&self, wanted: &Wanted, addresses: &[String]) -> Result<Artifact> {
        let is_asked =
            |(_, address): &(usize, &String)| matches!(wanted, Wanted::Named(..)) || !Location::is_one(address);
        let (relayed, direct): (Vec<_>, Vec<_>) =
            addresses.iter().enumerate().filter(is_asked).partition(|(_, address)| relayed_worker(address).is_some());
        let (mut relayed, mut direct) = (relayed.into_iter(), direct.into_iter());
        let (mut asked, mut refused, begun) = (FuturesUnordered::new(), BTreeMap::new(), Instant::now());
        loop {
            let until_relay = RELAY_PATIENCE.saturating_sub(begun.elapsed());
            let patience = match (direct.len(), relayed.len()) {
                (0, 0) => Duration::MAX,
                _ if asked.is_empty() => Duration::ZERO,
                (_, 0) => PATIENCE,
                (0, _) => until_relay,
                _ => PATIENCE.min(until_relay),
            };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(Some((_, Ok(artifact)))) => return Ok(artifact),
                Ok(Some((place, Err(error)))) => _ = refused.insert(place, error),
                // Those that were asked do not answer, or none was.
                Ok(None) | Err(_) => {
                    let relay_is_due = direct.len() == 0 || begun.elapsed() >= RELAY_PATIENCE;
                    let next = if relay_is_due { relayed.next().or_else(|| direct.next()) } else { direct.next() };
                    let Some((place, address)) = next else { break };
                    asked.push(async move { (place, self.find_at(wanted, address).await) });
                }
            }
        }
        let Some(last) = refused.values().next_back() else {
            return Err(Error::invalid("no peer was named to fetch from"));
        };
        let reasons: Vec<_> = refused.values().map(|error| error.message.as_str()).collect();
        Err(Error::new(last.code, reasons.join("; ")))
    }

    async fn find_at(&self, wanted: &Wanted, address: &str) -> Result<Artifact> {
        let artifact = match (Location::is_one(address), wanted) {
            (true, Wanted::Named(name, version)) => {
                let bucket = self.0.origins.bucket(&Location::parse(address)?)?;
                bucket.find(name, version.as_deref()).await?
            }
            _ => self.find_at_node(wanted, address).await?,
        };
        let trusted = self.0.trust.accepts(&artifact.root, artifact.signed.as_ref());
        trusted.map_err(|error| Error::new(error.code, format!("peer {}: {}", shown(address), error.message)))?;
        Ok(artifact)
    }

    /// The artifact that a node has under a name or root.
    async fn find_at_node(&self, wanted: &Wanted, address: &str) -> Result<Artifact> {
        let request = match wanted {
            Wanted::Named(name, version) => {
                FindRequest { name: name.clone(), version: version.clone().unwrap_or_default(), ..Default::default() }
            }
            Wanted::Root(root) => FindRequest { root: Bytes::copy_from_slice(root.as_bytes()), ..Default::default() },
        };
        let said = |status: tonic::Status| {
            let error = Error::of_status(&status);
            Error::new(error.code, format!("peer {address}: {}", error.message))
        };
        let mut parts = self.connect(address).await?.find(request).await.map_err(said)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part.map_err(said)?.bytes);
            if bytes.len() > MOST_MANIFEST_BYTES {
                return Err(Error::invalid(format!(
                    "peer {address}: its manifest is larger than {MOST_MANIFEST_BYTES} bytes"
                )));
            }
        }
        let artifact =
            Artifact::decode(&bytes).map_err(|error| Error::new(error.code, format!("peer {address}: {error}")))?;
        let (name, version) = (artifact.manifest.name.as_str(), artifact.manifest.version.as_str());
        let is_it = match wanted {
            Wanted::Named(own, None) => name == own,
            Wanted::Named(own, Some(wanted)) => name == own && version == wanted,
            Wanted::Root(root) => artifact.root == *root,
        };
        match is_it {
            true => Ok(artifact),
            false => Err(Error::new(
                Code::PermissionDenied,
                format!("peer {address} answered with another model, {name}@{version}"),
            )),
        }
    }
}
