//! `orion push`: a model taken into this machine's store, and to another node.

use std::{io::Write, path::PathBuf, str::FromStr, sync::Arc};

use clap::Args;
use orion_net::{
    artifact::{Artifact, Form, Piece, Pieces, Signer},
    codec::Codec,
    store::{Publication, Reference, Store},
    transfer::{Node, NodeOptions},
};
use orion_proto::ModelName;
use serde_json::json;

use crate::{
    Failure,
    client::block_on,
    origins::OriginFlags,
    peer::PeerAccess,
    progress,
    small_pages::take_small_pages,
    store::StoreArguments,
    table::{Format, facts, write, write_json},
    units::bytes,
};

/// Publish a model: cut, hash and encode it once
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion push models/minilm
  orion push models/minilm --as minilm@2 --base minilm@1 --sign publisher.pem
  orion push models/minilm --to 10.0.0.5:8004
  orion push models/minilm --to s3://models,/mnt/shared/models

What is pushed is in this machine's store (orion cache ls). A version is sent as a difference against its base to whoever has \
that; without --base it is the last version of the same name, if there is one here.")]
pub(crate) struct PushArguments {
    /// The model: a file, or a folder with all that is in it but names that begin with a dot
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// What it is called [default: the name of the file or folder, and a version told by its contents]
    #[arg(long = "as", value_name = "NAME[@VERSION]")]
    reference: Option<Reference>,
    /// The version that differences are made against
    #[arg(long, value_name = "NAME[@VERSION]", conflicts_with = "no_base")]
    base: Option<Reference>,
    /// Make no differences
    #[arg(long)]
    no_base: bool,
    /// How all chunks are encoded [default: chosen for each by its entropy]
    #[arg(long, value_name = "CODEC", value_parser = Codec::from_str,
          long_help = "How all chunks are encoded: none, gzip, deflate, brotli, lz4, zstd or weights (our own, for \
                       floating-point numbers) [default: chosen for each by its entropy]")]
    codec: Option<Codec>,
    /// File with the publisher's private key: openssl genpkey -algorithm ed25519
    #[arg(long, env = "ORION_SIGN", value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Nodes to hand it to as well (orion cache serve --accept-uploads, orion worker --peer), and buckets or folders
    #[arg(long, value_name = "ADDR|URL[,…]", value_delimiter = ',')]
    to: Vec<String>,
    #[command(flatten)]
    origins: OriginFlags,
    #[command(flatten)]
    access: PeerAccess,
    #[command(flatten)]
    store: StoreArguments,
    /// How to print what was published
    #[arg(short, long, env = "ORION_OUTPUT", value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(crate) fn run(arguments: &PushArguments, out: &mut dyn Write) -> Result<(), Failure> {
    take_small_pages();
    let store = Arc::new(arguments.store.open()?);
    let artifact = publish(arguments, &store)?;
    hand_over(arguments, &store, &artifact)?;
    let pieces = Pieces::of(&artifact.manifest);
    let manifest = &artifact.manifest;
    let sent = |forms: &[Form], known: Option<&Pieces>| -> u64 {
        let missing =
            pieces.iter().filter(|piece| known.is_none_or(|known| known.find(&piece.chunk.address).is_none()));
        let shortest = |piece: &Piece| forms.iter().find_map(|form| piece.wire(*form));
        missing.filter_map(shortest).map(|(bytes, _)| u64::from(bytes)).sum()
    };
    let encoded = sent(&[Form::Encoded, Form::Raw], None);
    // What goes to whoever has the base.
    let base = manifest.base.and_then(|base| store.get(&base).ok());
    let difference = base.map(|base| sent(&[Form::Difference, Form::Encoded, Form::Raw], Some(&base.pieces)));
    match arguments.output {
        Format::Json => write_json(
            out,
            &json!({
                "name": manifest.name.as_str(),
                "version": manifest.version.as_str(),
                "root": artifact.root.to_string(),
                "base": manifest.base.map(|base| base.to_string()),
                "signed": artifact.signed.is_some(),
                "files": manifest.files.len(),
                "chunks": pieces.len(),
                "bytes": manifest.bytes(),
                "encoded_bytes": encoded,
                "difference_bytes": difference,
            }),
        ),
        Format::Table => {
            let ratio =
                |sent: u64| format!("{}, ratio {:.2}", bytes(sent), manifest.bytes() as f64 / sent.max(1) as f64);
            write(
                out,
                &facts([
                    ("name", manifest.name.to_string()),
                    ("version", manifest.version.to_string()),
                    ("root", artifact.root.to_string()),
                    (
                        "files",
                        format!("{} in {} chunks, {}", manifest.files.len(), pieces.len(), bytes(manifest.bytes())),
                    ),
                    ("encoded", ratio(encoded)),
                    ("difference", difference.map(ratio).unwrap_or_default()),
                    ("store", store.folder(&artifact.root).display().to_string()),
                ]),
            )
        }
    }
}

fn publish(arguments: &PushArguments, store: &Store) -> Result<Artifact, Failure> {
    let name = match &arguments.reference {
        Some(reference) => ModelName::new(&reference.name)?,
        None => name_of(&arguments.path)?,
    };
    let version = arguments.reference.as_ref().and_then(|reference| reference.version.as_ref());
    let version = version.map(ModelName::new).transpose()?;
    let signer = arguments.sign.as_deref().map(Signer::from_file).transpose()?;
    let base = match &arguments.base {
        Some(base) => Some(store.find(&base.name, base.version.as_deref())?),
        None if arguments.no_base => None,
        None => store.find(name.as_str(), None).ok(),
    };
    let publication = Publication {
        source: &arguments.path,
        name,
        version,
        base,
        codec: arguments.codec,
        signer: signer.as_ref(),
        is_own: false,
    };
    let bar = progress::bytes(0, format!("publishing {}", publication.name));
    let published = store.publish(&publication, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(published?)
}

/// Hands it to all nodes at once.
fn hand_over(arguments: &PushArguments, store: &Arc<Store>, artifact: &Artifact) -> Result<(), Failure> {
    if arguments.to.is_empty() {
        return Ok(());
    }
    let options = arguments.access.options(String::new(), false)?;
    let options = NodeOptions { origins: arguments.origins.read()?, ..options };
    let spinner = progress::spinner(format!("pushing to {}", arguments.to.join(", ")));
    let failures = block_on(async {
        let node = Node::new(store.clone(), options);
        tokio::spawn(node.clone().tick());
        let pushed = arguments.to.iter().map(|address| node.push(&artifact.root, address));
        let pushed = futures::future::join_all(pushed).await;
        Ok(pushed.into_iter().filter_map(Result::err).map(|error| error.message).collect::<Vec<String>>())
    })?;
    spinner.finish_and_clear();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(failures.join("\nerror: "))),
    }
}

/// What a file or folder calls its model: a file's name without its ending.
fn name_of(path: &std::path::Path) -> Result<ModelName, Failure> {
    let real = std::fs::canonicalize(path)
        .map_err(|error| Failure::new(format!("'{}' cannot be read: {error}", path.display())))?;
    let name = if real.is_dir() { real.file_name() } else { real.file_stem() };
    let name = ModelName::new(name.unwrap_or_default().to_string_lossy());
    name.map_err(|error| Failure::from(error).hint("give one with --as NAME"))
}
