//! `orion models`: what is served, loading and unloading it, and converting files of weights.

use std::{io::Write, time::Duration};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use orion_proto::{
    cluster::{Model, ModelsRequest, NodesRequest},
    inference::{RepositoryModelLoadRequest, RepositoryModelUnloadRequest},
    session::TensorSpec,
};
use serde_json::{Value, json};

use crate::{
    Failure,
    client::{Client, ServerArguments, block_on},
    convert::{self, ConvertArguments},
    progress,
    table::{Format, facts, figure, state, table, write, write_json, write_table},
    units::bytes,
};

const POLL: Duration = Duration::from_millis(200);

/// List models, show, load, unload or convert one
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion models
  orion models show minilm
  orion models load minilm && orion models unload minilm")]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Subcommand, Debug)]
enum ModelsCommand {
    /// Show a model's inputs, outputs and figures
    #[command(after_help = "Examples:\n  orion models show minilm\n  orion models show minilm -o json")]
    Show {
        /// The model's name
        name: String,
    },
    /// Load a model and wait until it is ready
    #[command(after_help = "Examples:\n  orion models load minilm")]
    Load {
        /// The model's name in the server's repository
        name: String,
    },
    /// Unload a model everywhere
    #[command(after_help = "Examples:\n  orion models unload minilm")]
    Unload {
        /// The model's name
        name: String,
    },
    Convert(ConvertArguments),
}

pub(crate) fn run(arguments: &ModelsArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let (server, format) = (&arguments.server, arguments.server.output);
    match &arguments.command {
        Some(ModelsCommand::Convert(conversion)) => convert::run(conversion, format, out),
        None => block_on(async { list(&mut server.connect().await?, format, out).await }),
        Some(ModelsCommand::Show { name }) => {
            block_on(async { show(&mut server.connect().await?, name, format, out).await })
        }
        Some(ModelsCommand::Load { name }) => block_on(async {
            let mut client = server.connect().await?;
            load(&client, name).await?;
            show_change(&mut client, name, "loaded", format, out).await
        }),
        Some(ModelsCommand::Unload { name }) => block_on(async {
            let mut client = server.connect().await?;
            let spinner = progress::spinner(format!("unloading {name}"));
            let request = RepositoryModelUnloadRequest { model_name: name.clone(), ..Default::default() };
            let done = client.inference.repository_model_unload(request).await;
            spinner.finish_and_clear();
            done?;
            show_change(&mut client, name, "unloaded", format, out).await
        }),
    }
}

async fn models(client: &mut Client) -> Result<Vec<Model>, Failure> {
    Ok(client.cluster.models(ModelsRequest {}).await?.into_inner().models)
}

async fn list(client: &mut Client, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let models = models(client).await?;
    if format == Format::Json {
        return write_json(out, &models.iter().map(as_json).collect::<Vec<_>>());
    }
    let mut table = table(&["name", "version", "family", "state", "replicas", "memory", "requests", "reason"]);
    for model in &models {
        table.add_row([
            Cell::new(&model.name),
            Cell::new(&model.version),
            Cell::new(&model.family),
            state(&model.state),
            figure(model.replicas),
            figure(bytes(model.memory_bytes)),
            figure(model.requests),
            Cell::new(&model.reason),
        ]);
    }
    write_table(out, table)
}

async fn show(client: &mut Client, name: &str, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let models = models(client).await?;
    let Some(model) = models.iter().find(|model| model.name == name) else {
        let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        return Err(Failure::new(format!("model '{name}' is unknown, the server's models are: {}", known.join(", "))));
    };
    match format {
        Format::Json => write_json(out, &as_json(model)),
        Format::Table => write(out, &as_text(model)),
    }
}

/// Asks for the load and, on a terminal, draws how far the workers are.
async fn load(client: &Client, name: &str) -> Result<(), Failure> {
    let mut loading = client.inference.clone();
    let request = RepositoryModelLoadRequest { model_name: name.to_owned(), ..Default::default() };
    let bar = progress::bar(100, format!("loading {name}"));
    let done = tokio::select! {
        done = loading.repository_model_load(request) => done,
        never = draw(client.clone(), name, &bar), if !bar.is_hidden() => match never {},
    };
    bar.finish_and_clear();
    done?;
    Ok(())
}

/// Draws the share loaded of the device that is furthest behind, until it is dropped.
async fn draw(mut client: Client, name: &str, bar: &indicatif::ProgressBar) -> std::convert::Infallible {
    loop {
        // A failed poll only leaves the bar where it is: the load itself tells what went wrong.
        if let Ok(nodes) = client.cluster.nodes(NodesRequest::default()).await {
            let nodes = nodes.into_inner().nodes;
            let replicas = nodes.iter().flat_map(|node| &node.models).filter(|model| model.name == name);
            if let Some(share) = replicas.map(|model| model.progress).min_by(f32::total_cmp) {
                bar.set_position((share.clamp(0.0, 1.0) * 100.0) as u64);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn show_change(
    client: &mut Client,
    name: &str,
    change: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // An unloaded model may be gone from the list.
    let state = models(client).await?.into_iter().find(|model| model.name == name).map(|model| model.state);
    match format {
        Format::Json => write_json(out, &json!({ "name": name, "change": change, "state": state })),
        Format::Table => write(out, &format!("{name} {change}\n")),
    }
}

fn as_json(model: &Model) -> Value {
    let tensor = |t: &TensorSpec| match t.optional {
        false => json!({ "name": t.name, "datatype": t.datatype, "shape": t.shape }),
        true => json!({ "name": t.name, "datatype": t.datatype, "shape": t.shape, "optional": true }),
    };
    let tensors = |list: &[TensorSpec]| list.iter().map(tensor).collect::<Vec<Value>>();
    json!({
        "name": model.name,
        "version": model.version,
        "family": model.family,
        "state": model.state,
        "reason": model.reason,
        "path": model.path,
        "replicas": model.replicas,
        "memory_bytes": model.memory_bytes,
        "inputs": tensors(&model.inputs),
        "outputs": tensors(&model.outputs),
        "requests": model.requests,
        "rows": model.rows,
        "batches": model.batches,
        "queued": model.queued,
    })
}

fn as_text(model: &Model) -> String {
    let tensors = |list: &[TensorSpec]| {
        let shape = |t: &TensorSpec| if t.shape.is_empty() { "any shape".into() } else { format!("{:?}", t.shape) };
        let optional = |t: &TensorSpec| if t.optional { " (optional)" } else { "" };
        let one = |t: &TensorSpec| format!("{} {} {}{}", t.name, t.datatype, shape(t), optional(t));
        list.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    facts([
        ("name", model.name.clone()),
        ("version", model.version.clone()),
        ("family", model.family.clone()),
        ("state", model.state.clone()),
        ("reason", model.reason.clone()),
        ("path", model.path.clone()),
        ("inputs", tensors(&model.inputs)),
        ("outputs", tensors(&model.outputs)),
        ("replicas", model.replicas.to_string()),
        ("memory", bytes(model.memory_bytes)),
        ("requests", format!("{} ({} rows in {} batches)", model.requests, model.rows, model.batches)),
        ("queued", model.queued.to_string()),
    ])
}
