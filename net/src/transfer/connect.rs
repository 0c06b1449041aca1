//! Connections to other nodes: to their addresses, or through the scheduler.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use orion_proto::{Code, Error, Result, peer::peer_client::PeerClient};
use tonic::{
    codegen::http::Uri,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{
    limits::{MESSAGE_BYTES, STREAM_BYTES, tuned},
    node::Node,
    relay::{Relay, relayed_worker},
    token::Show,
};
use crate::root_cause;

pub(super) type Client = PeerClient<InterceptedService<Channel, Show>>;

impl Node {
    /// A client of another node.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the address is none, UNAVAILABLE where nobody answers.
    pub(super) async fn connect(&self, address: &str) -> Result<Client> {
        let worker = relayed_worker(address);
        // Its name is no host, and nothing looks at the host of a connection that is there.
        let host = if worker.is_some() { "relayed" } else { address };
        let endpoint = Endpoint::from_shared(format!("http://{host}"))
            .map_err(|_| Error::invalid(format!("peer address '{address}' is not valid, it must be HOST:PORT")))?;
        let endpoint = tuned(endpoint, STREAM_BYTES);
        let connected = match worker {
            None => endpoint.connect().await,
            Some(worker) => {
                let relay = self.0.relay.clone();
                let relay = relay.ok_or_else(|| Error::new(Code::Unavailable, "this node has joined no scheduler"))?;
                through(&endpoint, relay, worker.to_owned()).await
            }
        };
        let channel = connected.map_err(|error| {
            Error::new(Code::Unavailable, format!("peer {address} cannot be reached: {}", root_cause(&error)))
        })?;
        Ok(PeerClient::with_interceptor(channel, Show(self.0.token.clone())).max_decoding_message_size(MESSAGE_BYTES))
    }
}

async fn through(
    endpoint: &Endpoint,
    relay: Arc<Relay>,
    worker: String,
) -> std::result::Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: Uri| {
        let (relay, worker) = (relay.clone(), worker.clone());
        async move { relay.dial(&worker).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await
}
