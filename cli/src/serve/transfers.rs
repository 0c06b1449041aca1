//! A worker's store among those of other nodes.

use std::{path::Path, sync::Arc};

use orion_net::transfer::{Node, NodeOptions, Relay, relayed};
use orion_scheduler::api::access::Token;
use orion_worker::Artifacts;
use tokio::runtime::{Builder, Runtime};

use super::arguments::NodeFlags;
use crate::{Failure, peer::listen_to_peers};

/// What moves a worker's models; it ends with this.
pub(super) struct Transfers {
    /// For the worker.
    pub(super) artifacts: Artifacts,
    /// Where it listens; empty: nowhere.
    pub(super) address: String,
    _runtime: Runtime,
}

impl Transfers {
    /// Opens the store and, where an address was given, listens there.
    pub(super) fn start(
        flags: &NodeFlags,
        name: &str,
        data_dir: &Path,
        token: Option<&Token>,
        insecure: bool,
    ) -> Result<Self, Failure> {
        // Its own threads: chunks must not be in the way of a heartbeat.
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("orion-transfer").enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("threads cannot be started: {error}")))?;
        let (listener, address) = match flags.peer {
            Some(peer) => {
                let (listener, told) = runtime.block_on(listen_to_peers(peer, token.is_some(), insecure))?;
                (Some(listener), told)
            }
            None => (None, String::new()),
        };
        let store = Arc::new(flags.store.open(data_dir)?);
        // Who listens nowhere is reached through the scheduler.
        let told = if address.is_empty() { relayed(name) } else { address.clone() };
        let options = flags.publishers.options(told, token, true)?;
        let relay = Some(Arc::new(Relay::new(options.token.clone())));
        let node = Node::new(store, NodeOptions { origins: flags.origins.read()?, relay, ..options });
        runtime.spawn(node.clone().tick());
        if let Some(listener) = listener {
            tracing::info!(peer = address, "peer_listening");
            runtime.spawn(node.clone().serve(listener, std::future::pending()));
        }
        let artifacts = Artifacts { node, runtime: runtime.handle().clone(), from: flags.from.clone() };
        Ok(Self { artifacts, address, _runtime: runtime })
    }
}
