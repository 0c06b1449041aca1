//! What the server explains.

use orion_proto::cluster::{ModelExplanation, PlaceCost, PromptPrediction, RequestExplanation};

use super::place;

pub(super) fn explained_model() -> ModelExplanation {
    let refusal = "the model needs 80 bytes, the device has 8 in all".into();
    ModelExplanation {
        name: "minilm".into(),
        state: "READY".into(),
        memory_bytes: 90 << 20,
        queued: 3,
        objective_seconds: 0.1,
        arrivals_per_second: 12.5,
        drain_seconds: 0.03,
        places: vec![
            PlaceCost { replica: "READY".into(), ..place("here", 0.04) },
            PlaceCost { refusal, cost: None, ..place("edge", 0.0) },
        ],
        ..Default::default()
    }
}

pub(super) fn explained_request(id: &str) -> RequestExplanation {
    RequestExplanation {
        id: id.into(),
        model: "minilm".into(),
        outcome: "ok".into(),
        priority: 4,
        rows: 2,
        attempts: 1,
        queued_seconds: 0.05,
        carriage_seconds: 0.01,
        worker_queue_seconds: 0.0,
        service_seconds: 0.04,
        total_seconds: 0.1,
        batch_requests: 5,
        batch_rows: 9,
        chosen: Some(place("here", 0.0)),
        next_best: Some(place("edge", 0.03)),
        other_replicas: 1,
        why: "the lowest predicted seconds".into(),
        age_seconds: 3.0,
        ..Default::default()
    }
}

pub(super) fn explained_generation(id: &str) -> RequestExplanation {
    let mut chosen = place("here", 0.0);
    chosen.cost.iter_mut().for_each(|cost| cost.prefill_seconds = 0.25);
    let prompt = PromptPrediction { tokens: 812, cached_tokens: 640, saved_seconds: 1.5 };
    RequestExplanation { chosen: Some(chosen), prompt: Some(prompt), ..explained_request(id) }
}
