//! `orion pull`: a model brought into this machine's store.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use orion_net::{
    store::Reference,
    transfer::{Node, Progress, Wanted},
};
use orion_proto::{Code, Error};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    Failure,
    client::block_on,
    peer::{PeerAccess, listen_to_peers},
    progress,
    store::StoreArguments,
    table::{Format, facts, write, write_json},
    units::{bytes, seconds},
};

/// Bring a model into this machine's store, from the nodes that have it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion pull minilm --from 10.0.0.5:8004
  orion pull minilm@2 --from 10.0.0.5:8004,10.0.0.6:8004 --trust publisher.pub
  orion pull minilm --from 10.0.0.5:8004 --peer 10.0.0.7:8004

What another model or version in the store has too is not fetched; a version is fetched as its difference to one that is here. \
What was cut off goes on where it was. With --peer others fetch from this machine what it has already.")]
pub(crate) struct PullArguments {
    /// The model; without a version, the last
    #[arg(value_name = "NAME[@VERSION]")]
    model: Reference,
    /// Nodes that have it: orion worker --peer, orion cache serve
    #[arg(long, env = "ORION_FROM", value_name = "ADDR[,ADDR…]", value_delimiter = ',', required = true)]
    from: Vec<String>,
    /// Serve to others meanwhile, under this address
    #[arg(long, env = "ORION_PEER", value_name = "ADDR")]
    peer: Option<std::net::SocketAddr>,
    /// Go on serving for so many seconds after all is here
    #[arg(long, value_name = "SECONDS", requires = "peer", default_value_t = 0)]
    linger: u32,
    /// Let other machines fetch without a token
    #[arg(long, env = "ORION_INSECURE")]
    insecure: bool,
    #[command(flatten)]
    access: PeerAccess,
    #[command(flatten)]
    store: StoreArguments,
    /// How to print what was fetched
    #[arg(short, long, env = "ORION_OUTPUT", value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(crate) fn run(arguments: &PullArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let store = Arc::new(arguments.store.open()?);
    let begun = Instant::now();
    let (artifact, progress, took) = block_on(async {
        let (listener, address) = match arguments.peer {
            Some(peer) => {
                let (listener, told) = listen_to_peers(peer, arguments.access.has_token(), arguments.insecure).await?;
                (Some(listener), told)
            }
            None => (None, String::new()),
        };
        let node = Node::new(store.clone(), arguments.access.options(address, false)?);
        tokio::spawn(node.clone().tick());
        if let Some(listener) = listener {
            tokio::spawn(node.clone().serve(listener, std::future::pending()));
        }
        let wanted = Wanted::Named(arguments.model.name.clone(), arguments.model.version.clone());
        let artifact = node.find(&wanted, &arguments.from).await?;
        let progress = node.fetch(artifact.clone(), &arguments.from).await?;
        let progress = follow(progress, &format!("pulling {}", arguments.model)).await?;
        let took = begun.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(arguments.linger.into())).await;
        Ok::<_, Failure>((artifact, progress, took))
    })?;
    let manifest = &artifact.manifest;
    let folder = store.folder(&artifact.root);
    match arguments.output {
        Format::Json => write_json(
            out,
            &json!({
                "name": manifest.name.as_str(),
                "version": manifest.version.as_str(),
                "root": artifact.root.to_string(),
                "signed": artifact.signed.is_some(),
                "folder": folder,
                "bytes": progress.bytes,
                "found_bytes": progress.found,
                "received_bytes": progress.received,
                "seconds": took,
            }),
        ),
        Format::Table => {
            let fetched = progress.bytes.saturating_sub(progress.found);
            let rate = bytes((fetched as f64 / took.max(1e-9)) as u64);
            write(
                out,
                &facts([
                    ("name", format!("{}@{}", manifest.name, manifest.version)),
                    ("root", artifact.root.to_string()),
                    ("size", bytes(progress.bytes)),
                    ("here before", bytes(progress.found)),
                    ("received", format!("{} in {}, {rate}/s of the model", bytes(progress.received), seconds(took))),
                    ("folder", folder.display().to_string()),
                ]),
            )
        }
    }
}

/// Draws a fetch until it ends.
pub(crate) async fn follow(mut progress: watch::Receiver<Progress>, message: &str) -> Result<Progress, Failure> {
    let bar = progress::bytes(progress.borrow().bytes, message);
    bar.set_position(progress.borrow().found);
    bar.reset_eta();
    let ended = loop {
        let now = progress.borrow_and_update().clone();
        bar.set_position(now.here);
        if now.outcome.is_some() {
            break now;
        }
        if progress.changed().await.is_err() {
            return Err(Error::new(Code::Internal, "the fetch ended unexpectedly").into());
        }
    };
    bar.finish_and_clear();
    match ended.outcome.clone() {
        Some(Err(error)) => Err(error.into()),
        _ => Ok(ended),
    }
}
