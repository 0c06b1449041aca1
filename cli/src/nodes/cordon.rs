//! `orion nodes cordon | drain | uncordon`: what an operator makes of a node.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use orion_proto::cluster::{Node, SetNodeRequest};
use serde_json::json;

use super::{nodes, one, state_of};
use crate::{
    Failure,
    client::Client,
    progress,
    table::{Format, write, write_json},
};

const POLL: Duration = Duration::from_millis(100);
const DRAINED: &str = "drained";

/// Does `action` to a node and prints what it is then; with `wait` not before it is drained.
pub(super) async fn set(
    client: &mut Client,
    name: &str,
    action: &str,
    wait: Option<Duration>,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let request = SetNodeRequest { name: name.to_owned(), action: action.to_owned() };
    client.cluster.set_node(request).await?;
    if nodes(client, name).await?.is_empty() {
        // It was known from before the scheduler was started anew, and alone for what it is no more.
        return match format {
            Format::Json => write_json(out, &json!({ "name": name, "state": "absent", "cordon": "" })),
            Format::Table => write(out, &format!("{name} is absent\n")),
        };
    }
    let node = match wait {
        Some(limit) => drained(client, name, limit).await?,
        None => one(client, name).await?,
    };
    match format {
        Format::Json => write_json(out, &json!({ "name": node.name, "state": node.state, "cordon": node.cordon })),
        Format::Table => write(out, &format!("{name} is {}\n", state_of(&node))),
    }
}

/// The node once it runs nothing any more.
async fn drained(client: &mut Client, name: &str, limit: Duration) -> Result<Node, Failure> {
    let began = Instant::now();
    let spinner = progress::spinner(format!("draining {name}"));
    loop {
        let node = one(client, name).await?;
        if node.cordon == DRAINED {
            spinner.finish_and_clear();
            return Ok(node);
        }
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            spinner.finish_and_clear();
            let (state, running) = (state_of(&node), node.batches_running);
            let seconds = limit.as_secs_f64();
            return Err(Failure::new(format!(
                "node '{name}' is not drained after {seconds} s: it is {state} and runs {running} batches"
            ))
            .hint("it goes on draining; wait longer with --timeout, or take it back with: orion nodes uncordon"));
        }
        tokio::time::sleep(POLL.min(left)).await;
    }
}
