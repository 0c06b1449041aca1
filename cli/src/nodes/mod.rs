//! `orion nodes`: the machines that joined, what they are and what they measured.

mod detail;
mod json;

use std::io::Write;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use orion_proto::cluster::{Node, NodesRequest};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    table::{Format, figure, state, table, write, write_json, write_table},
    units::{bytes, seconds},
};

/// List the machines that joined, or show one
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion nodes
  orion nodes show edge-1
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
}

pub(crate) fn run(arguments: &NodesArguments, out: &mut dyn Write) -> Result<(), Failure> {
    block_on(async {
        let mut client = arguments.server.connect().await?;
        match &arguments.command {
            None => list(&mut client, arguments.server.output, out).await,
            Some(NodesCommand::Show { name }) => show(&mut client, name, arguments.server.output, out).await,
        }
    })
}

async fn nodes(client: &mut Client, name: &str) -> Result<Vec<Node>, Failure> {
    Ok(client.cluster.nodes(NodesRequest { name: name.to_owned() }).await?.into_inner().nodes)
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
        "last seen",
    ];
    let mut table = table(&headings);
    for node in &nodes {
        let capability = node.capability.clone().unwrap_or_default();
        let free = node.telemetry.as_ref().map(|telemetry| bytes(telemetry.memory_free_bytes));
        let devices: Vec<&str> = capability.devices.iter().map(|device| device.name.as_str()).collect();
        table.add_row([
            Cell::new(&node.name),
            state(&node.state),
            Cell::new(devices.join(" ")),
            figure(format!("{} ({})", capability.physical_cores, capability.logical_cores)),
            figure(format!("{} / {}", free.as_deref().unwrap_or("-"), bytes(capability.memory_bytes))),
            figure(node.models.iter().filter(|model| model.state.eq_ignore_ascii_case("ready")).count()),
            figure(node.batches_done),
            figure(format!("{} ago", seconds(node.silent_seconds))),
        ]);
    }
    write_table(out, table)
}

async fn show(client: &mut Client, name: &str, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let found = nodes(client, name).await?;
    let Some(node) = found.iter().find(|node| node.name == name) else {
        let all = nodes(client, "").await?;
        let known: Vec<&str> = all.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::new(format!("node '{name}' is unknown, the server's nodes are: {}", known.join(", "))));
    };
    match format {
        Format::Json => write_json(out, &json::node(node)),
        Format::Table => write(out, &detail::text(node)),
    }
}
