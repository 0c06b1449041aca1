//! Prometheus text on the metrics port: Triton's `nv_inference_*` names, and `orion_*` for what Triton has not.
//!
//! Rendered by hand: the client libraries append `_total` to every counter, and Triton's names have none.

use std::fmt::Write;

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};

use crate::{core::ModelView, front::Front, process};

/// The metrics port's routes; `access` is laid over them by the caller.
pub fn router(front: Front) -> Router {
    let render = move || {
        let text = render(&front);
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response() }
    };
    Router::new().route("/metrics", get(render))
}

/// One metric of every model: its name, kind and help, and how a model gives it.
type ModelMetric = (&'static str, &'static str, &'static str, fn(&ModelView) -> u64);

const MODEL_METRICS: [ModelMetric; 12] = [
    ("nv_inference_request_success", "counter", "Number of successful inference requests", |m| m.statistics.succeeded),
    ("nv_inference_request_failure", "counter", "Number of failed inference requests", |m| m.statistics.failed),
    ("nv_inference_count", "counter", "Number of inferences performed (rows)", |m| m.statistics.rows),
    ("nv_inference_exec_count", "counter", "Number of model executions performed (batches)", |m| m.statistics.batches),
    ("nv_inference_request_duration_us", "counter", "Cumulative request duration", |m| {
        m.statistics.succeeded_ns / 1000
    }),
    ("nv_inference_queue_duration_us", "counter", "Cumulative queuing duration", |m| m.statistics.queue_ns / 1000),
    ("nv_inference_compute_input_duration_us", "counter", "Cumulative time between scheduler and device", |m| {
        m.statistics.carriage_ns / 1000
    }),
    ("nv_inference_compute_infer_duration_us", "counter", "Cumulative time on the device", |m| {
        m.statistics.compute_ns / 1000
    }),
    ("nv_inference_compute_output_duration_us", "counter", "Counted in compute_input", |_| 0),
    ("nv_inference_pending_request_count", "gauge", "Requests that wait for a device", |m| m.queued),
    ("orion_model_requests_refused_total", "counter", "Requests that were not admitted", |m| m.statistics.refused),
    ("orion_model_replicas", "gauge", "Replicas that can answer", |m| u64::from(m.ready_replicas)),
];

fn render(front: &Front) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let models: Vec<ModelView> = front.models().into_iter().filter(|model| model.spec.is_some()).collect();
    for (name, kind, help, value) in MODEL_METRICS {
        head(&mut text, name, kind, help);
        for model in &models {
            let version = model.spec.as_ref().map_or("", |spec| &spec.version);
            line(&mut text, name, &[("model", &model.name), ("version", version)], value(model) as f64);
        }
    }
    totals(&mut text, front);
    nodes(&mut text, front);
    text
}

fn totals(text: &mut String, front: &Front) {
    let totals = front.totals();
    for (name, kind, help, value) in [
        ("orion_requests_running", "gauge", "Requests that a device has", totals.running as f64),
        ("orion_requests_queued", "gauge", "Requests that wait for a device", totals.queued as f64),
        ("orion_requests_cancelled_total", "counter", "Requests whose client went away", totals.cancelled as f64),
        ("orion_attempts_retried_total", "counter", "Attempts that were made again elsewhere", totals.retried as f64),
        (
            "orion_results_dropped_total",
            "counter",
            "Results that came too late to count",
            totals.results_dropped as f64,
        ),
        ("orion_batches_bisected_total", "counter", "Batches that failed and were halved", totals.bisected as f64),
        ("orion_batches_hedged_total", "counter", "Batches that straggled and were run again", totals.hedged as f64),
        (
            "orion_relayed_bytes_total",
            "counter",
            "Bytes of models relayed between workers",
            front.relayed().bytes() as f64,
        ),
        (
            "orion_relayed_connections",
            "gauge",
            "Connections between workers that are relayed",
            front.relayed().connections() as f64,
        ),
        ("orion_uptime_seconds", "gauge", "Seconds since the scheduler started", front.uptime_seconds()),
        ("process_cpu_seconds_total", "counter", "CPU seconds of the scheduler's process", process::cpu_seconds()),
        ("process_resident_memory_bytes", "gauge", "Memory of that process", process::resident_bytes() as f64),
    ] {
        head(text, name, kind, help);
        line(text, name, &[], value);
    }
}

fn nodes(text: &mut String, front: &Front) {
    let nodes = front.nodes();
    head(text, "orion_node_up", "gauge", "Whether the node takes work");
    for node in &nodes {
        let up = f64::from(u8::from(node.state == "ready"));
        line(text, "orion_node_up", &[("node", &node.name), ("state", &node.state)], up);
    }
    head(text, "orion_node_batches_total", "counter", "Batches that the node has done");
    for node in &nodes {
        line(text, "orion_node_batches_total", &[("node", &node.name)], node.batches_done as f64);
    }
    head(text, "orion_node_round_trip_seconds", "gauge", "Round trip to the node");
    for node in &nodes {
        let telemetry = node.telemetry.clone().unwrap_or_default();
        let trips = [("0.5", telemetry.round_trip_p50_seconds), ("0.99", telemetry.round_trip_p99_seconds)];
        for (quantile, seconds) in trips {
            line(text, "orion_node_round_trip_seconds", &[("node", &node.name), ("quantile", quantile)], seconds);
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    text.push_str(name);
    for (index, (label, of)) in labels.iter().enumerate() {
        let open = if index == 0 { '{' } else { ',' };
        let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{open}{label}=\"{of}\"");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}
