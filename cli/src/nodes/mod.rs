//! `orion nodes`: the machines that joined, what they are and measured, and taking them out of service and back.

mod cordon;
mod detail;
mod json;

use std::{io::Write, time::Duration};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use orion_proto::cluster::{Node, NodesRequest};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    infer::positive_seconds,
    table::{Format, figure, state, table, write, write_json, write_table},
    units::{bytes, seconds},
};

/// List the machines that joined, show one, or take it out of service
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion nodes
  orion nodes show edge-1
  orion nodes drain edge-1 && orion nodes uncordon edge-1
  orion nodes -o json")]
pub(crate) struct NodesArguments {
    #[command(subcommand)]
    command: Option<NodesCommand>,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Subcommand, Debug)]
enum NodesCommand {
    /// Show what a node is, what it measured, its models and what happened to it
    #[command(after_help = "Examples:\n  orion nodes show edge-1\n  orion nodes show edge-1 -o json")]
    Show {
        /// The node's name
        name: String,
    },
    /// Give a node no more models; it keeps what it holds and goes on working
    #[command(after_help = "Examples:\n  orion nodes cordon edge-1")]
    Cordon {
        /// The node's name
        name: String,
    },
    /// Move a node's work and models elsewhere and wait until it runs nothing
    #[command(after_help = "\
Examples:
  orion nodes drain edge-1
  orion nodes drain edge-1 --timeout 300
  orion nodes drain edge-1 --no-wait

What it runs is finished, nothing new is given to it, and what only it holds is loaded on another node. The exit status is 1 \
when it still runs something at the end of --timeout; it goes on draining.")]
    Drain {
        /// The node's name
        name: String,
        /// Seconds to wait until it is drained
        #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive_seconds)]
        timeout: Duration,
        /// Return at once
        #[arg(long, conflicts_with = "timeout")]
        no_wait: bool,
    },
    /// Take a cordoned or drained node back into service
    #[command(after_help = "Examples:\n  orion nodes uncordon edge-1")]
    Uncordon {
        /// The node's name
        name: String,
    },
}

pub(crate) fn run(arguments: &NodesArguments, out: &mut dyn Write) -> Result<(), Failure> {
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let (client, format) = (&mut client, arguments.server.output);
        match &arguments.command {
            None => list(client, format, out).await,
            Some(NodesCommand::Show { name }) => show(client, name, format, out).await,
            Some(NodesCommand::Cordon { name }) => cordon::set(client, name, "cordon", None, format, out).await,
            Some(NodesCommand::Uncordon { name }) => cordon::set(client, name, "uncordon", None, format, out).await,
            Some(NodesCommand::Drain { name, timeout, no_wait }) => {
                cordon::set(client, name, "drain", (!no_wait).then_some(*timeout), format, out).await
            }
        }
    })
}

async fn nodes(client: &mut Client, name: &str) -> Result<Vec<Node>, Failure> {
    Ok(client.cluster.nodes(NodesRequest { name: name.to_owned() }).await?.into_inner().nodes)
}

/// The node of this name.
async fn one(client: &mut Client, name: &str) -> Result<Node, Failure> {
    if let Some(node) = nodes(client, name).await?.into_iter().find(|node| node.name == name) {
        return Ok(node);
    }
    let all = nodes(client, "").await?;
    let known: Vec<&str> = all.iter().map(|node| node.name.as_str()).collect();
    Err(Failure::new(format!("node '{name}' is unknown, the server's nodes are: {}", known.join(", "))))
}

/// A node's state, and what an operator made of it.
fn state_of(node: &Node) -> String {
    match node.cordon.as_str() {
        "" => node.state.clone(),
        cordon => format!("{}, {cordon}", node.state),
    }
}

/// When a node was last heard of; one that is absent was not since the scheduler was started.
fn last_seen(node: &Node) -> String {
    match node.state.as_str() {
        "absent" => "-".into(),
        _ => format!("{} ago", seconds(node.silent_seconds)),
    }
}

async fn list(client: &mut Client, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let nodes = nodes(client, "").await?;
    if format == Format::Json {
        return write_json(out, &nodes.iter().map(json::node).collect::<Vec<_>>());
    }
    let headings = [
        "name",
        "state",
        "devices",
        "cores (threads)",
        "memory free / total",
        "models ready",
        "batches done",
        "link",
        "last seen",
    ];
    let mut table = table(&headings);
    for node in &nodes {
        let capability = node.capability.clone().unwrap_or_default();
        let free = node.telemetry.as_ref().map(|telemetry| bytes(telemetry.memory_free_bytes));
        let devices: Vec<&str> = capability.devices.iter().map(|device| device.name.as_str()).collect();
        table.add_row([
            Cell::new(&node.name),
            state(&state_of(node)),
            Cell::new(devices.join(" ")),
            figure(format!("{} ({})", capability.physical_cores, capability.logical_cores)),
            figure(format!("{} / {}", free.as_deref().unwrap_or("-"), bytes(capability.memory_bytes))),
            figure(node.models.iter().filter(|model| model.state.eq_ignore_ascii_case("ready")).count()),
            figure(node.batches_done),
            state(node.link.as_ref().map_or("", |link| &link.grade)),
            figure(last_seen(node)),
        ]);
    }
    write_table(out, table)
}

async fn show(client: &mut Client, name: &str, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let node = one(client, name).await?;
    match format {
        Format::Json => write_json(out, &json::node(&node)),
        Format::Table => write(out, &detail::text(&node)),
    }
}
