//! `orion pull`: a model brought into this machine's store.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use orion_net::{
    artifact::Artifact,
    origin::Location,
    store::Reference,
    transfer::{Import, Node, NodeOptions, Progress, Wanted},
};
use orion_proto::{Code, Error};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    Failure,
    client::block_on,
    origins::OriginFlags,
    peer::{PeerAccess, listen_to_peers},
    progress,
    small_pages::take_small_pages,
    store::StoreArguments,
    table::{Format, facts, write, write_json},
    units::{bytes, seconds},
};

/// Bring a model into this machine's store, from nodes, buckets, a hub or a web server
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion pull minilm --from 10.0.0.5:8004
  orion pull minilm@2 --from 10.0.0.5:8004,s3://models --trust publisher.pub
  orion pull hf://sentence-transformers/all-MiniLM-L6-v2 --as minilm@1
  orion pull s3://bucket/models/minilm/
  orion pull https://example.com/smollm2.gguf

What another model or version in the store has too is not fetched; a version is fetched as its difference to one that is here. \
What was cut off goes on where it was. With --peer others fetch from this machine what it has already.

Of a hub's repository the files are taken that Orion loads; --include chooses others. HF_TOKEN and HF_ENDPOINT are respected, \
and what AWS_*, AZURE_* and GOOGLE_* say of buckets.")]
pub(crate) struct PullArguments {
    /// The model, without a version the last; or where its files are: hf://, s3://, gs://, az://, https:// or a path
    #[arg(value_name = "NAME[@VERSION]|URL")]
    model: String,
    /// Nodes that have it (orion worker --peer, orion cache serve), and buckets that it was pushed to
    #[arg(long, env = "ORION_FROM", value_name = "ADDR|URL[,…]", value_delimiter = ',')]
    from: Vec<String>,
    /// What a model from a URL is called here [default: as there, with a version told by its files]
    #[arg(long = "as", value_name = "NAME[@VERSION]")]
    reference: Option<Reference>,
    /// Take the files of a URL that match, such as '*Q4_K_M.gguf'; may be given again
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    #[command(flatten)]
    origins: OriginFlags,
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
    take_small_pages();
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
        let options = arguments.access.options(address, false)?;
        let node = Node::new(store.clone(), NodeOptions { origins: arguments.origins.read()?, ..options });
        tokio::spawn(node.clone().tick());
        if let Some(listener) = listener {
            tokio::spawn(node.clone().serve(listener, std::future::pending()));
        }
        let (artifact, progress) = match Location::is_one(&arguments.model) {
            true => import(arguments, &node).await?,
            false => fetch(arguments, &node).await?,
        };
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

/// Fetches an artifact's chunks.
async fn fetch(arguments: &PullArguments, node: &Node) -> Result<(Artifact, Progress), Failure> {
    let model: Reference = arguments.model.parse().map_err(|reason| {
        Failure::new(format!("'{}' must be {reason}; or a URL or path of a model", arguments.model.escape_debug()))
    })?;
    if arguments.from.is_empty() {
        return Err(Failure::new(format!("where '{model}' comes from must be said with --from ADDR|URL")));
    }
    if arguments.reference.is_some() || !arguments.include.is_empty() {
        return Err(Failure::new(format!("--as and --include are for URLs; '{model}' is fetched as it was published")));
    }
    let wanted = Wanted::Named(model.name.clone(), model.version.clone());
    let artifact = node.find(&wanted, &arguments.from).await?;
    let progress = node.fetch(artifact.clone(), &arguments.from).await?;
    Ok((artifact, follow(progress, &format!("pulling {model}")).await?))
}

/// Brings a model's files from their origin.
async fn import(arguments: &PullArguments, node: &Node) -> Result<(Artifact, Progress), Failure> {
    let location = Location::parse(&arguments.model)?;
    let message = format!("pulling {location}");
    let (reference, include, peers) = (arguments.reference.clone(), arguments.include.clone(), arguments.from.clone());
    let import = Import { location, reference, include, peers, accepts_known: false };
    let (told, progress) = watch::channel(Progress::default());
    let imported = async move { node.import(&import, &told).await };
    let (imported, followed) = tokio::join!(imported, follow(progress, &message));
    // What went wrong is known by who imports.
    Ok((imported?, followed?))
}

/// Draws a fetch until it ends.
pub(crate) async fn follow(mut progress: watch::Receiver<Progress>, message: &str) -> Result<Progress, Failure> {
    let bar = progress::bytes(progress.borrow().bytes, message);
    bar.set_position(progress.borrow().found);
    bar.reset_eta();
    let ended = loop {
        let now = progress.borrow_and_update().clone();
        bar.set_length(now.bytes);
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
