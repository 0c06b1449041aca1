//! `orion cache`: what this machine's store holds.

use std::{io::Write, sync::Arc};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use orion_net::{
    store::{Reference, Store, Stored},
    transfer::Node,
};
use serde_json::{Value, json};

use crate::{
    Failure,
    client::block_on,
    peer::{PeerAccess, listen},
    progress,
    small_pages::take_small_pages,
    store::StoreArguments,
    table::{Format, figure, state, table, write, write_json, write_table},
    units::bytes,
};

/// List, check and remove the models in this machine's store
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion cache ls
  orion cache verify
  orion cache rm minilm@1 && orion cache gc")]
pub(crate) struct CacheArguments {
    #[command(subcommand)]
    command: CacheCommand,
    #[command(flatten)]
    store: StoreArguments,
    /// How to print what was found
    #[arg(short, long, global = true, env = "ORION_OUTPUT", value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Subcommand, Debug)]
enum CacheCommand {
    /// List what is there
    #[command(after_help = "Examples:\n  orion cache ls\n  orion cache ls -o json")]
    Ls,
    /// Remove leftovers, what is past its time, and what the quota has no room for
    #[command(after_help = "Examples:\n  orion cache gc\n  orion cache gc --store-bytes 200GB")]
    Gc,
    /// Read every chunk and compare it with its hash
    #[command(after_help = "\
Examples:
  orion cache verify
  orion cache verify minilm@2

The exit status is 1 when something is damaged. What is damaged is never served; pulling the model again mends it.")]
    Verify {
        /// Only this one
        #[arg(value_name = "NAME[@VERSION]")]
        model: Option<Reference>,
    },
    /// Let other nodes fetch what is there, and bring more
    #[command(after_help = "\
Examples:
  orion cache serve 127.0.0.1:8004
  orion cache serve 0.0.0.0:8004 --token-file token --accept-uploads --trust publisher.pub

It runs until it is ended; port 0: the system picks. Other machines are let in with a token, or with --insecure.")]
    Serve {
        /// Where to listen
        #[arg(value_name = "ADDR")]
        address: std::net::SocketAddr,
        /// Let others bring models: orion push --to
        #[arg(long)]
        accept_uploads: bool,
        /// Let other machines in without a token
        #[arg(long, env = "ORION_INSECURE")]
        insecure: bool,
        #[command(flatten)]
        access: PeerAccess,
    },
    /// Remove a model
    #[command(after_help = "Examples:\n  orion cache rm minilm@1")]
    Rm {
        /// The model; without a version, its last
        #[arg(value_name = "NAME[@VERSION]")]
        model: Reference,
    },
}

pub(crate) fn run(arguments: &CacheArguments, out: &mut dyn Write) -> Result<(), Failure> {
    take_small_pages();
    let (store, format) = (arguments.store.open()?, arguments.output);
    match &arguments.command {
        CacheCommand::Ls => list(&store, format, out),
        CacheCommand::Gc => collect(&store, format, out),
        CacheCommand::Verify { model } => verify(&store, model.as_ref(), format, out),
        CacheCommand::Serve { address, accept_uploads, insecure, access } => {
            serve(store, *address, access, (*accept_uploads, *insecure), out)
        }
        CacheCommand::Rm { model } => {
            let root = store.find(&model.name, model.version.as_deref())?;
            let name = full_name(store.get(&root)?.as_ref());
            store.remove(&root)?;
            match format {
                Format::Json => write_json(out, &json!({ "removed": name })),
                Format::Table => write(out, &format!("{name} removed\n")),
            }
        }
    }
}

fn serve(
    store: Store,
    address: std::net::SocketAddr,
    access: &PeerAccess,
    (accepts_uploads, insecure): (bool, bool),
    out: &mut dyn Write,
) -> Result<(), Failure> {
    block_on(async {
        let listener = listen(address, access.has_token(), insecure).await?;
        let bound = listener.local_addr().unwrap_or(address);
        let address = bound.to_string();
        // Any address of this machine is none that others could be told.
        let told = if bound.ip().is_unspecified() { String::new() } else { address.clone() };
        let node = Node::new(Arc::new(store), access.options(told, accepts_uploads)?);
        tokio::spawn(node.clone().tick());
        write(out, &format!("serving on {address}\n"))?;
        // Whoever ends this process loses nothing: what was on its way goes on where it was.
        Ok(node.serve(listener, std::future::pending()).await?)
    })
}

fn full_name(stored: &Stored) -> String {
    format!("{}@{}", stored.artifact.manifest.name, stored.artifact.manifest.version)
}

fn list(store: &Store, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let entries = store.list();
    if format == Format::Json {
        let entries = entries.iter().map(|entry| {
            let artifact = &entry.stored.artifact;
            json!({
                "name": artifact.manifest.name.as_str(),
                "version": artifact.manifest.version.as_str(),
                "root": artifact.root.to_string(),
                "signed": artifact.signed.is_some(),
                "chunks": entry.stored.pieces.len(),
                "bytes": artifact.manifest.bytes(),
                "disk_bytes": entry.disk_bytes,
                "in_use": entry.pinned,
                "folder": store.folder(&artifact.root),
            })
        });
        let used = store.used_bytes();
        return write_json(out, &json!({ "used_bytes": used, "artifacts": entries.collect::<Vec<Value>>() }));
    }
    let mut rows = table(&["name", "version", "root", "files", "chunks", "size", "on disk", "signed", "in use"]);
    let yes = |is: bool| Cell::new(if is { "yes" } else { "" });
    for entry in &entries {
        let artifact = &entry.stored.artifact;
        rows.add_row([
            Cell::new(&artifact.manifest.name),
            Cell::new(&artifact.manifest.version),
            Cell::new(&artifact.root.to_hex()[..12]),
            figure(artifact.manifest.files.len()),
            figure(entry.stored.pieces.len()),
            figure(bytes(artifact.manifest.bytes())),
            figure(bytes(entry.disk_bytes)),
            yes(artifact.signed.is_some()),
            yes(entry.pinned),
        ]);
    }
    write_table(out, rows)?;
    write(out, &format!("{} on the disk, in {}\n", bytes(store.used_bytes()), store.path().display()))
}

fn collect(store: &Store, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let removed = store.collect()?;
    match format {
        Format::Json => write_json(out, &json!({ "removed": removed.artifacts, "freed_bytes": removed.bytes })),
        Format::Table => {
            let names = removed.artifacts.iter().map(|name| format!("{name} removed\n"));
            write(out, &format!("{}{} freed\n", names.collect::<String>(), bytes(removed.bytes)))
        }
    }
}

fn verify(store: &Store, model: Option<&Reference>, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let chosen: Vec<Arc<Stored>> = match model {
        Some(model) => vec![store.get(&store.find(&model.name, model.version.as_deref())?)?],
        None => store.list().into_iter().map(|entry| entry.stored).collect(),
    };
    let total = chosen.iter().map(|stored| stored.artifact.manifest.bytes()).sum();
    let bar = progress::bytes(total, "verifying");
    let found: Vec<_> = chosen.iter().map(|stored| (stored, store.verify(stored, &|bytes| bar.inc(bytes)))).collect();
    bar.finish_and_clear();
    if format == Format::Json {
        let one = |(stored, damage): &(&Arc<Stored>, Option<orion_net::store::Damage>)| {
            let files = damage.iter().flat_map(|damage| &damage.files);
            let files = files.map(|(path, chunks)| json!({ "path": path, "damaged_chunks": chunks }));
            json!({
                "name": stored.artifact.manifest.name.as_str(),
                "version": stored.artifact.manifest.version.as_str(),
                "damaged": files.collect::<Vec<Value>>(),
            })
        };
        write_json(out, &found.iter().map(one).collect::<Vec<Value>>())?;
    } else {
        let mut rows = table(&["name", "state", "damaged"]);
        for (stored, damage) in &found {
            let files = damage.iter().flat_map(|damage| &damage.files);
            let files: Vec<String> = files.map(|(path, chunks)| format!("{path}: {chunks} chunks")).collect();
            let word = if damage.is_some() { "failed" } else { "good" };
            rows.add_row([Cell::new(full_name(stored)), state(word), Cell::new(files.join(", "))]);
        }
        write_table(out, rows)?;
    }
    match found.iter().filter(|(_, damage)| damage.is_some()).map(|(stored, _)| full_name(stored)).collect::<Vec<_>>() {
        damaged if damaged.is_empty() => Ok(()),
        damaged => Err(Failure::new(format!("damaged: {}", damaged.join(", "))).hint("pull them again to mend them")),
    }
}
