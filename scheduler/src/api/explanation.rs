//! Explanations as JSON: over HTTP, and from `orion explain -o json`.

use orion_proto::cluster::{Cost, ModelExplanation, PlaceCost, PromptPrediction, RequestExplanation};
use serde_json::{Value, json};

/// A model: its queue, and each device's predicted cost or refusal.
pub fn model(of: &ModelExplanation) -> Value {
    json!({
        "name": of.name,
        "state": of.state,
        "reason": of.reason,
        "memory_bytes": of.memory_bytes,
        "queued": of.queued,
        "queued_work_seconds": of.queued_work_seconds,
        "drain_seconds": of.drain_seconds,
        "objective_seconds": of.objective_seconds,
        "arrivals_per_second": of.arrivals_per_second,
        "balancer": balancer(of),
        "places": of.places.iter().map(place).collect::<Vec<_>>(),
    })
}

/// The name of a model's balancer; on the wire the default has none.
pub fn balancer(of: &ModelExplanation) -> &str {
    if of.balancer.is_empty() { "predicted-completion" } else { &of.balancer }
}

/// A request: its stages in order, and why its device. `deadline_seconds` is `null` where there is none.
pub fn request(of: &RequestExplanation) -> Value {
    let stage = |(name, seconds): (&str, f64)| json!({ "stage": name, "seconds": seconds });
    json!({
        "id": of.id,
        "model": of.model,
        "outcome": of.outcome,
        "priority": of.priority,
        "tenant": of.tenant,
        "rows": of.rows,
        "attempts": of.attempts,
        "deadline_seconds": (of.deadline_seconds > 0.0).then_some(of.deadline_seconds),
        "stages": stages(of).into_iter().map(stage).collect::<Vec<_>>(),
        "total_seconds": of.total_seconds,
        "batch": { "requests": of.batch_requests, "rows": of.batch_rows },
        "chosen": of.chosen.as_ref().map(chosen),
        "next_best": of.next_best.as_ref().map(chosen),
        "prompt": of.prompt.as_ref().map(prompt),
        "other_replicas": of.other_replicas,
        "why": of.why,
        "age_seconds": of.age_seconds,
    })
}

/// The stages of a request in order; together they are its total. Two are left out where they took no time.
pub fn stages(of: &RequestExplanation) -> Vec<(&'static str, f64)> {
    let all = [
        ("queue", of.queued_seconds),
        (EARLIER, of.earlier_seconds),
        (UNDERWAY, of.underway_seconds),
        ("carriage", of.carriage_seconds),
        ("worker queue", of.worker_queue_seconds),
        ("service", of.service_seconds),
    ];
    all.into_iter().filter(|(stage, seconds)| *seconds > 0.0 || ![EARLIER, UNDERWAY].contains(stage)).collect()
}

/// With devices that failed, or were late until it ran elsewhere.
const EARLIER: &str = "earlier attempts";
/// With a device that has said nothing of it: what follows is not known apart.
const UNDERWAY: &str = "under way";

fn place(of: &PlaceCost) -> Value {
    json!({
        "worker": of.worker,
        "device": of.device,
        "replica": of.replica,
        "refusal": of.refusal,
        "cost": of.cost.as_ref().map(cost),
        "memory_free_bytes": of.memory_free_bytes,
        "memory_weights_bytes": of.memory_weights_bytes,
        "memory_activations_bytes": of.memory_activations_bytes,
        "inflation": of.inflation,
    })
}

/// Of a request only the device and its cost are remembered.
fn chosen(of: &PlaceCost) -> Value {
    json!({ "worker": of.worker, "device": of.device, "cost": of.cost.as_ref().map(cost) })
}

/// What was predicted of a generation's prompt where it went.
fn prompt(of: &PromptPrediction) -> Value {
    json!({ "tokens": of.tokens, "cached_tokens": of.cached_tokens, "saved_seconds": of.saved_seconds })
}

fn cost(of: &Cost) -> Value {
    json!({
        "work_seconds": of.work_seconds,
        "load_seconds": of.load_seconds,
        "carriage_seconds": of.carriage_seconds,
        "prefill_seconds": of.prefill_seconds,
        "service_seconds": of.service_seconds,
        "answer_seconds": of.answer_seconds,
        "total_seconds": of.total_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_few_requests_have_are_left_out_of_the_others() {
        let names = |of: &RequestExplanation| stages(of).iter().map(|(stage, _)| *stage).collect::<Vec<_>>();
        let usual = RequestExplanation { service_seconds: 1.0, ..Default::default() };
        assert_eq!(names(&usual), ["queue", "carriage", "worker queue", "service"]);
        let retried = RequestExplanation { earlier_seconds: 1.0, underway_seconds: 2.0, ..Default::default() };
        assert_eq!(names(&retried)[1..3], ["earlier attempts", "under way"]);
    }
}
