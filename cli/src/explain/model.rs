//! A model's explanation for people: its queue, and a line for each device.

use comfy_table::Cell;
use orion_proto::cluster::{ModelExplanation, PlaceCost};
use orion_scheduler::api::explanation::balancer;

use super::{columns, terms};
use crate::{
    table::{facts, figure, render, state, table},
    units::{bytes, measured_seconds, seconds},
};

pub(super) fn text(model: &ModelExplanation) -> String {
    let head = facts([
        ("model", model.name.clone()),
        ("state", model.state.clone()),
        ("reason", model.reason.clone()),
        ("memory", bytes(model.memory_bytes)),
        ("queued", queue(model)),
        ("work queued", seconds(model.queued_work_seconds)),
        ("objective", measured_seconds(model.objective_seconds)),
        ("arrivals", format!("{:.1}/s", model.arrivals_per_second)),
        ("balancer", balancer(model).to_owned()),
    ]);
    format!("{head}\n{}{}", costs(&model.places), refusals(&model.places))
}

fn queue(model: &ModelExplanation) -> String {
    match model.queued {
        0 => "nothing".into(),
        requests if model.places.iter().any(|place| place.replica.eq_ignore_ascii_case("ready")) => {
            format!("{requests} requests, the last begins in {}", seconds(model.drain_seconds))
        }
        // When a device makes room for it is not predicted.
        requests => {
            format!("{requests} requests, which wait for it to be loaded: {} at least", seconds(model.drain_seconds))
        }
    }
}

/// The devices that take it, the best first.
fn costs(places: &[PlaceCost]) -> String {
    let mut table = table(&columns(&["worker", "device", "replica"], false));
    for place in places {
        let Some(cost) = &place.cost else { continue };
        let replica = if place.replica.is_empty() { Cell::new("none") } else { state(&place.replica) };
        let mut cells = vec![Cell::new(&place.worker), Cell::new(&place.device), replica];
        cells.extend(terms(cost, false).into_iter().map(|(_, term)| figure(term)));
        table.add_row(cells);
    }
    if table.is_empty() { "no device takes it\n".into() } else { render(table) }
}

/// Why the others do not, as text: in a column of the table it would squeeze the figures.
fn refusals(places: &[PlaceCost]) -> String {
    let refused = places.iter().filter(|place| place.cost.is_none());
    refused.map(|place| format!("{} {}: {}\n", place.worker, place.device, place.refusal)).collect()
}
