//! A node as JSON: the wire's fields, `null` for what has not been measured.

use orion_proto::{
    cluster::{DeviceLedger, Link, Node, NodeModel, PeerLink},
    session::{Device, GeneratorTelemetry, Measurement},
};
use serde_json::{Value, json};

use crate::units::known;

/// The whole node.
pub(crate) fn node(node: &Node) -> Value {
    let telemetry = node.telemetry.as_ref().map(|telemetry| {
        let device = |device: &orion_proto::session::DeviceTelemetry| {
            json!({
                "name": device.name,
                "memory_free_bytes": device.memory_free_bytes,
                "temperature_celsius": device.temperature_celsius,
                "power_watts": device.power_watts,
                "utilisation_percent": device.utilisation_percent,
                "generators": device.generators.iter().map(generator).collect::<Vec<_>>(),
            })
        };
        json!({
            "cpu_seconds": telemetry.cpu_seconds,
            "resident_bytes": telemetry.resident_bytes,
            "memory_free_bytes": telemetry.memory_free_bytes,
            "round_trip_p50_seconds": known(telemetry.round_trip_p50_seconds),
            "round_trip_p99_seconds": known(telemetry.round_trip_p99_seconds),
            "devices": telemetry.devices.iter().map(device).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": node.name,
        "state": node.state,
        "cordon": node.cordon,
        "carrier": node.carrier,
        "session": node.session,
        "sessions_opened": node.sessions_opened,
        "connected_seconds": node.connected_seconds,
        "silent_seconds": node.silent_seconds,
        "peer_address": node.peer_address,
        "batches_running": node.batches_running,
        "batches_done": node.batches_done,
        "capability": capability(node),
        "measurement": measurement(&node.measurement.unwrap_or_default()),
        "telemetry": telemetry,
        "link": node.link.as_ref().map(link),
        "peer_links": node.peer_links.iter().map(peer_link).collect::<Vec<_>>(),
        "ledgers": node.ledgers.iter().map(ledger).collect::<Vec<_>>(),
        "models": node.models.iter().map(model).collect::<Vec<_>>(),
        "events": node.events.iter().map(|event| json!({ "age_seconds": event.age_seconds, "text": event.text }))
            .collect::<Vec<_>>(),
    })
}

fn link(link: &Link) -> Value {
    json!({
        "grade": (!link.grade.is_empty()).then_some(&link.grade),
        "round_trip_seconds": known(link.round_trip_seconds),
        "jitter_seconds": known(link.jitter_seconds),
        "loss": link.loss,
        "bytes_per_second": known(link.bytes_per_second),
    })
}

fn peer_link(peer: &PeerLink) -> Value {
    json!({
        "worker": (!peer.worker.is_empty()).then_some(&peer.worker),
        "address": peer.address,
        "link": peer.link.as_ref().map(link),
    })
}

fn generator(of: &GeneratorTelemetry) -> Value {
    json!({
        "model": of.model,
        "running": of.running,
        "waiting": of.waiting,
        "cache_bytes": of.cache_bytes,
        "held_bytes": of.held_bytes,
        "kept_bytes": of.kept_bytes,
    })
}

fn capability(node: &Node) -> Option<Value> {
    node.capability.as_ref().map(|capability| {
        json!({
            "version": capability.version,
            "os": capability.os,
            "arch": capability.arch,
            "hostname": capability.hostname,
            "cpu": capability.cpu,
            "physical_cores": capability.physical_cores,
            "logical_cores": capability.logical_cores,
            "instruction_sets": capability.instruction_sets,
            "memory_bytes": capability.memory_bytes,
            "devices": capability.devices.iter().map(device).collect::<Vec<_>>(),
            "fingerprint": capability.fingerprint,
            "role": capability.role,
            "zone": capability.zone,
            "labels": capability.labels,
        })
    })
}

fn device(device: &Device) -> Value {
    json!({
        "name": device.name,
        "kind": device.kind,
        "model": device.model,
        "memory_total_bytes": device.memory_total_bytes,
        "memory_free_bytes": device.memory_free_bytes,
        "compute_capability": device.compute_capability,
        "mig": device.mig,
        "pcie_generation": device.pcie_generation,
        "pcie_width": device.pcie_width,
        "temperature_celsius": device.temperature_celsius,
        "power_watts": device.power_watts,
        "usable": device.usable,
        "note": device.note,
        "datatypes": device.datatypes,
    })
}

fn ledger(ledger: &DeviceLedger) -> Value {
    json!({
        "device": ledger.device,
        "capacity_bytes": ledger.capacity_bytes,
        "weights_bytes": ledger.weights_bytes,
        "activations_bytes": ledger.activations_bytes,
        "free_bytes": ledger.free_bytes,
        "booked_seconds": ledger.booked_seconds,
        "queued_seconds": ledger.queued_seconds,
    })
}

fn measurement(measured: &Measurement) -> Value {
    json!({
        "f32_flops": known(measured.f32_flops),
        "bf16_flops": known(measured.bf16_flops),
        "memory_bytes_per_second": known(measured.memory_bytes_per_second),
        "disk_read_bytes_per_second": known(measured.disk_read_bytes_per_second),
        "scheduler_round_trip_seconds": known(measured.scheduler_round_trip_seconds),
        "scheduler_bytes_per_second": known(measured.scheduler_bytes_per_second),
        "cached": measured.cached,
    })
}

fn model(model: &NodeModel) -> Value {
    json!({
        "name": model.name,
        "device": model.device,
        "state": model.state,
        "error": model.error,
        "progress": model.progress,
        "memory_bytes": model.memory_bytes,
        "curve": model.curve.map(|curve| json!({
            "base_seconds": curve.base_seconds,
            "per_row_seconds": curve.per_row_seconds,
        })),
    })
}
