//! Handing an artifact to a node that may not be able to reach this one.

use bytes::Bytes;
use orion_proto::{Code, Error, Result, peer as wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{limits::parts, node::Node, sending::Way};
use crate::{artifact::Hash, origin::Location};

impl Node {
    /// Sends an artifact of this node's store to another, which takes from other nodes too what they have of it; or puts it into
    /// a bucket.
    ///
    /// # Errors
    /// What the other node says; UNAVAILABLE where it left before it had all.
    pub async fn push(&self, root: &Hash, address: &str) -> Result<()> {
        let held = self.held(root)?;
        if Location::is_one(address) {
            let bucket = self.0.origins.bucket(&Location::parse(address)?)?;
            return bucket.put(self.0.store.chunks(held.chunks().stored())?).await;
        }
        let mut client = self.connect(address).await?;
        let (out, messages) = mpsc::unbounded_channel();
        let encoded = Bytes::from(held.chunks().stored().artifact.encode());
        let begin = self.sender_begins(&held);
        for artifact in parts(&encoded) {
            let begin = wire::Begin { artifact, artifact_bytes: encoded.len() as u64, ..begin.clone() };
            let _ = out.send(wire::FromSender { message: Some(wire::from_sender::Message::Begin(begin)) });
        }
        let said = |status: tonic::Status| {
            let error = Error::of_status(&status);
            Error::new(error.code, format!("peer {address}: {}", error.message))
        };
        let mut answers = client.upload(UnboundedReceiverStream::new(messages)).await.map_err(said)?.into_inner();
        let Some(wire::FromReceiver { message: Some(wire::from_receiver::Message::Begin(begin)) }) =
            answers.message().await.map_err(said)?
        else {
            return Err(Error::new(Code::Internal, format!("peer {address} did not say what it has")));
        };
        match self.send(held, Way { out, loss: None }, begin, answers, true).await {
            Ok(true) => Ok(()),
            Err(error) => Err(error),
            Ok(false) => {
                Err(Error::new(Code::Unavailable, format!("peer {address} left before it had all of the model")))
            }
        }
    }
}
