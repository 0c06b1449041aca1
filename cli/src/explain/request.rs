//! A request's explanation for people: its stages, and its device beside the next best.

use comfy_table::Cell;
use orion_proto::cluster::{PlaceCost, RequestExplanation};
use orion_scheduler::api::explanation::stages;

use super::{columns, terms};
use crate::{
    table::{facts, figure, render, table},
    units::seconds,
};

pub(super) fn text(request: &RequestExplanation) -> String {
    let batch = match request.batch_requests {
        0 => String::new(),
        requests => format!("{requests} requests, {} rows", request.batch_rows),
    };
    let deadline = if request.deadline_seconds > 0.0 { seconds(request.deadline_seconds) } else { String::new() };
    let head = facts([
        ("request", request.id.clone()),
        ("model", request.model.clone()),
        ("outcome", outcome(request)),
        ("rows", request.rows.to_string()),
        ("priority", priority(request.priority)),
        ("tenant", request.tenant.clone()),
        ("deadline", deadline),
        ("attempts", request.attempts.to_string()),
        ("batch", batch),
        ("prompt", prompt(request)),
    ]);
    let places = places(request).map(|places| format!("\n{places}")).unwrap_or_default();
    format!("{head}\n{}{places}\nwhy: {}\n", stage_table(request), why(request))
}

/// What was predicted of a generation's prompt where it went.
fn prompt(request: &RequestExplanation) -> String {
    let Some(prompt) = &request.prompt else { return String::new() };
    let (tokens, cached, saved) = (prompt.tokens, prompt.cached_tokens, seconds(prompt.saved_seconds));
    format!("about {tokens} tokens, {cached} predicted as cached: {saved} of prefill saved")
}

/// A priority as the wire has it, 1 to 5, with its name.
fn priority(number: u32) -> String {
    let names = ["realtime", "critical", "high", "normal", "low"];
    let name = number.checked_sub(1).and_then(|at| names.get(at as usize));
    name.map_or_else(|| number.to_string(), |name| format!("{name} ({number})"))
}

fn outcome(request: &RequestExplanation) -> String {
    match request.age_seconds {
        0.0 => request.outcome.clone(),
        age => format!("{}, {} ago", request.outcome, seconds(age)),
    }
}

fn stage_table(request: &RequestExplanation) -> String {
    let total = request.total_seconds;
    let mut table = table(&["stage", "time", "share"]);
    for (stage, time) in stages(request).into_iter().chain([("total", total)]) {
        let share = if total > 0.0 { format!("{:.0} %", 100.0 * time / total) } else { "-".into() };
        table.add_row([Cell::new(stage), figure(seconds(time)), figure(share)]);
    }
    render(table)
}

/// The chosen device's predicted cost beside the next best's; nothing before there is one.
fn places(request: &RequestExplanation) -> Option<String> {
    let generation = request.prompt.is_some();
    let mut table = table(&columns(&["predicted for", "worker", "device"], generation));
    let mut row = |name: &str, place: &PlaceCost| {
        let mut cells = vec![Cell::new(name), Cell::new(&place.worker), Cell::new(&place.device)];
        cells.extend(terms(&place.cost.unwrap_or_default(), generation).into_iter().map(|(_, term)| figure(term)));
        table.add_row(cells);
    };
    row("chosen", request.chosen.as_ref()?);
    if let Some(next) = &request.next_best {
        row("next best", next);
    }
    Some(render(table))
}

fn why(request: &RequestExplanation) -> String {
    match request.other_replicas {
        0 => request.why.clone(),
        others => format!("{} (other replicas: {others})", request.why),
    }
}
