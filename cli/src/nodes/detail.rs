//! A node in sections, for people.

use std::collections::HashMap;

use comfy_table::Cell;
use orion_proto::{
    cluster::{DeviceLedger, Link, Node, NodeModel, PeerLink},
    session::{Device, GeneratorTelemetry, Measurement},
};

use crate::{
    table::{facts, figure, render, state, table},
    units::{bit_rate, bytes, giga_rate, measured_seconds, seconds},
};

/// Everything about the node.
pub(crate) fn text(node: &Node) -> String {
    let mut sections = vec![identity(node), devices(node)];
    sections.extend(ledgers(&node.ledgers));
    sections.push(measured(&node.measurement.unwrap_or_default(), &node.carrier));
    sections.extend(telemetry(node));
    sections.extend(peers(&node.peer_links));
    sections.extend(models(&node.models));
    sections.extend(events(node));
    sections.join("\n")
}

fn identity(node: &Node) -> String {
    let capability = node.capability.clone().unwrap_or_default();
    facts([
        ("name", node.name.clone()),
        ("state", super::state_of(node)),
        (
            "session",
            format!(
                "{} over {}, connected {}, last seen {}, {} opened",
                node.session,
                node.carrier,
                seconds(node.connected_seconds),
                super::last_seen(node),
                node.sessions_opened
            ),
        ),
        ("role", capability.role),
        ("zone", capability.zone),
        ("labels", labels(&capability.labels)),
        ("peer address", node.peer_address.clone()),
        ("version", capability.version),
        ("host", format!("{} ({} {})", capability.hostname, capability.os, capability.arch)),
        ("CPU", capability.cpu),
        ("cores", format!("{} physical, {} logical", capability.physical_cores, capability.logical_cores)),
        ("instruction sets", capability.instruction_sets.join(" ")),
        ("memory", bytes(capability.memory_bytes)),
        ("batches", format!("{} running, {} done", node.batches_running, node.batches_done)),
    ])
}

fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort_unstable();
    pairs.join(" ")
}

fn devices(node: &Node) -> String {
    let mut table = table(&["device", "kind", "model", "memory free / total", "link", "usable"]);
    let capability = node.capability.clone().unwrap_or_default();
    for device in &capability.devices {
        table.add_row([
            Cell::new(&device.name),
            Cell::new(&device.kind),
            Cell::new(model_of(device)),
            figure(format!("{} / {}", bytes(device.memory_free_bytes), bytes(device.memory_total_bytes))),
            Cell::new(match device.pcie_generation {
                0 => "-".into(),
                generation => format!("PCIe {generation} x{}", device.pcie_width),
            }),
            Cell::new(match (device.usable, device.note.is_empty()) {
                (true, _) => "yes".into(),
                (false, true) => "no".into(),
                (false, false) => format!("no: {}", device.note),
            }),
        ]);
    }
    render(table)
}

/// Each device's memory and bookings as the scheduler keeps them.
fn ledgers(ledgers: &[DeviceLedger]) -> Option<String> {
    let mut table = table(&["scheduled on", "capacity", "weights", "activations", "free", "booked", "queued"]);
    for ledger in ledgers {
        // A device that does not say how much it has is not limited.
        let limit = |figure| if ledger.capacity_bytes == 0 { "-".into() } else { bytes(figure) };
        table.add_row([
            Cell::new(&ledger.device),
            figure(limit(ledger.capacity_bytes)),
            figure(bytes(ledger.weights_bytes)),
            figure(bytes(ledger.activations_bytes)),
            figure(limit(ledger.free_bytes)),
            figure(seconds(ledger.booked_seconds)),
            figure(seconds(ledger.queued_seconds)),
        ]);
    }
    (!ledgers.is_empty()).then(|| render(table))
}

fn model_of(device: &Device) -> String {
    let mut text = device.model.clone();
    if !device.compute_capability.is_empty() {
        text.push_str(&format!(", compute capability {}", device.compute_capability));
    }
    if device.mig {
        text.push_str(", MIG");
    }
    text
}

fn measured(measurement: &Measurement, carrier: &str) -> String {
    // Between threads of one process there is no link to measure.
    let link = |figure| if carrier == "in-process" { "none: in this process".to_owned() } else { figure };
    let origin = if measurement.cached { " (from an earlier run on this hardware)" } else { "" };
    let rows = facts([
        ("  f32 matrix rate", giga_rate(measurement.f32_flops, "FLOP")),
        ("  bf16 matrix rate", giga_rate(measurement.bf16_flops, "FLOP")),
        ("  memory", giga_rate(measurement.memory_bytes_per_second, "B")),
        ("  disk read", giga_rate(measurement.disk_read_bytes_per_second, "B")),
        ("  round trip to the scheduler", link(measured_seconds(measurement.scheduler_round_trip_seconds))),
        ("  bandwidth to the scheduler", link(bit_rate(measurement.scheduler_bytes_per_second))),
    ]);
    format!("measured{origin}\n{rows}")
}

/// A link in a word and its figures.
fn link_of(link: &Link) -> String {
    let loss = share(link.loss);
    let grade = if link.grade.is_empty() { "not measured yet" } else { &link.grade };
    let jitter =
        if link.round_trip_seconds > 0.0 { seconds(link.jitter_seconds) } else { "not measured yet".to_owned() };
    format!("{grade}, jitter {jitter}, loss {loss}, {} from the scheduler", bit_rate(link.bytes_per_second))
}

fn share(share: Option<f64>) -> String {
    share.map_or("not known".to_owned(), |share| format!("{:.3} %", share * 100.0))
}

/// Its links to other nodes.
fn peers(links: &[PeerLink]) -> Option<String> {
    let mut table = table(&["sent chunks to", "address", "link", "round trip", "jitter", "loss", "rate"]);
    for peer in links {
        let link = peer.link.clone().unwrap_or_default();
        table.add_row([
            Cell::new(if peer.worker.is_empty() { "-" } else { &peer.worker }),
            Cell::new(&peer.address),
            state(&link.grade),
            figure(measured_seconds(link.round_trip_seconds)),
            figure(seconds(link.jitter_seconds)),
            figure(share(link.loss)),
            figure(bit_rate(link.bytes_per_second)),
        ]);
    }
    (!links.is_empty()).then(|| render(table))
}

fn telemetry(node: &Node) -> Option<String> {
    let telemetry = node.telemetry.as_ref()?;
    let rows = facts([
        ("  CPU time", seconds(telemetry.cpu_seconds)),
        ("  resident memory", bytes(telemetry.resident_bytes)),
        ("  memory free", bytes(telemetry.memory_free_bytes)),
        ("  link to the scheduler", node.link.as_ref().map(link_of).unwrap_or_default()),
        (
            "  round trip p50 / p99",
            format!(
                "{} / {}",
                measured_seconds(telemetry.round_trip_p50_seconds),
                measured_seconds(telemetry.round_trip_p99_seconds)
            ),
        ),
    ]);
    let devices = telemetry.devices.iter().map(|device| {
        let mut parts = vec![format!("{} free", bytes(device.memory_free_bytes))];
        parts.push(format!("{} % used", device.utilisation_percent));
        parts.extend((device.temperature_celsius > 0).then(|| format!("{} °C", device.temperature_celsius)));
        parts.extend((device.power_watts > 0.0).then(|| format!("{:.0} W", device.power_watts)));
        let generators: String = device.generators.iter().map(|of| generator(&device.name, of)).collect();
        format!("  {}  {}\n{generators}", device.name, parts.join(", "))
    });
    Some(format!("telemetry\n{rows}{}", devices.collect::<String>()))
}

/// A generator's sequences, and its cache of keys and values.
fn generator(device: &str, of: &GeneratorTelemetry) -> String {
    let GeneratorTelemetry { model, running, waiting, .. } = of;
    let (held, kept, cache) = (bytes(of.held_bytes), bytes(of.kept_bytes), bytes(of.cache_bytes));
    format!(
        "  {device}  {model}: {running} run, {waiting} wait, cache {cache}: {held} in use, {kept} kept for prompts\n"
    )
}

fn models(models: &[NodeModel]) -> Option<String> {
    let mut table = table(&["model", "device", "state", "memory", "seconds for n rows", "error"]);
    for model in models {
        let shown = match model.state.eq_ignore_ascii_case("loading") {
            true => format!("{} {:.0} %", model.state, model.progress * 100.0),
            false => model.state.clone(),
        };
        table.add_row([
            Cell::new(&model.name),
            Cell::new(&model.device),
            state(&shown),
            figure(bytes(model.memory_bytes)),
            Cell::new(model.curve.map_or_else(
                || "not measured yet".into(),
                |curve| format!("{} + n × {}", seconds(curve.base_seconds), seconds(curve.per_row_seconds)),
            )),
            Cell::new(&model.error),
        ]);
    }
    (!models.is_empty()).then(|| render(table))
}

fn events(node: &Node) -> Option<String> {
    let lines = node.events.iter().map(|event| format!("  {} ago: {}\n", seconds(event.age_seconds), event.text));
    (!node.events.is_empty()).then(|| format!("events, the newest last\n{}", lines.collect::<String>()))
}
