//! `orion explain`.

use serde_json::{Value, json};

use super::{Server, orion};

/// The line of a table that begins with `name`, in words.
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no line {name} in\n{text}")).split_whitespace().collect()
}

#[test]
fn a_model_is_explained_by_its_devices_costs_and_refusals() {
    let server = Server::start();
    let ran = server.orion(&["explain", "minilm"]);
    let text = ran.done();
    assert_eq!(
        line(text, "here"),
        "here cpu0 READY 40.0 ms 0 1.00 ms 2.00 ms 0 42.0 ms".split(' ').collect::<Vec<_>>()
    );
    assert!(text.contains("edge cpu0: the model needs 80 bytes, the device has 8 in all\n"), "{text}");
    for fact in ["3 requests, the last begins in 30.0 ms", "100 ms", "12.5/s", "predicted-completion", "90.0 MiB"] {
        assert!(text.contains(fact), "{fact} in\n{text}");
    }

    let json = server.orion(&["explain", "--model", "minilm", "-o", "json"]).json();
    assert_eq!((&json["name"], &json["queued"]), (&json!("minilm"), &json!(3)));
    assert_eq!(json["balancer"], "predicted-completion", "what the wire leaves empty");
    assert_eq!(json["places"][0]["cost"]["total_seconds"], 0.042);
    assert_eq!(json["places"][1]["cost"], Value::Null);
    assert_eq!(json["places"][1]["refusal"], "the model needs 80 bytes, the device has 8 in all");
}

#[test]
fn a_request_is_explained_by_its_stages_and_its_device() {
    let server = Server::start();
    let ran = server.orion(&["explain", "7"]);
    let text = ran.done();
    for (stage, rest) in [
        ("queue", "50.0 ms 50 %"),
        ("carriage", "10.0 ms 10 %"),
        ("service", "40.0 ms 40 %"),
        ("total", "100 ms 100 %"),
    ] {
        assert_eq!(line(text, stage)[1..].join(" "), rest);
    }
    assert_eq!(line(text, "chosen")[1..].join(" "), "here cpu0 0 0 1.00 ms 2.00 ms 0 3.00 ms");
    assert_eq!(line(text, "next best")[2..].join(" "), "edge cpu0 30.0 ms 0 1.00 ms 2.00 ms 0 32.0 ms");
    assert_eq!(line(text, "outcome").join(" "), "outcome ok, 3.00 s ago");
    assert!(text.contains("5 requests, 9 rows"), "{text}");
    assert!(text.ends_with("why: the lowest predicted seconds (other replicas: 1)\n"), "{text}");

    let json = server.orion(&["explain", "--request", "minilm", "-o", "json"]).json();
    assert_eq!(
        (&json["id"], &json["deadline_seconds"]),
        (&json!("minilm"), &Value::Null),
        "not the model of that name"
    );
    let stages: Vec<_> = json["stages"].as_array().unwrap().iter().map(|stage| &stage["stage"]).collect();
    assert_eq!(json!(stages), json!(["queue", "carriage", "worker queue", "service"]));
    assert_eq!(json["batch"], json!({ "requests": 5, "rows": 9 }));
    assert_eq!((&json["chosen"]["worker"], &json["next_best"]["worker"]), (&json!("here"), &json!("edge")));
}

#[test]
fn a_generation_is_explained_by_its_prompt_too() {
    let server = Server::start();
    let ran = server.orion(&["explain", "story"]);
    let text = ran.done();
    assert_eq!(
        line(text, "prompt").join(" "),
        "prompt about 812 tokens, 640 predicted as cached: 1.50 s of prefill saved"
    );
    assert_eq!(line(text, "predicted for")[5..].join(" "), "load carriage prefill service answer total");
    assert_eq!(line(text, "chosen")[1..].join(" "), "here cpu0 0 0 1.00 ms 250 ms 2.00 ms 0 3.00 ms");
    let json = server.orion(&["explain", "story", "-o", "json"]).json();
    assert_eq!(json["prompt"], json!({ "tokens": 812, "cached_tokens": 640, "saved_seconds": 1.5 }));
    assert_eq!(json["chosen"]["cost"]["prefill_seconds"], 0.25);
    assert_eq!(server.orion(&["explain", "7", "-o", "json"]).json()["prompt"], Value::Null);
}

#[test]
fn what_is_neither_a_model_nor_a_request_is_said_so() {
    let server = Server::start();
    let failed = |arguments: &[&str]| server.orion(&[&["explain"], arguments].concat()).failed(1).to_owned();
    let neither = failed(&["x"]);
    assert!(neither.starts_with("error: 'x' is no model that the server knows, and request 'x' is not"), "{neither}");
    assert!(neither.contains("hint: ") && neither.contains("--id"), "{neither}");
    assert_eq!(server.orion(&["explain", "a/7", "-o", "json"]).json()["id"], "a/7", "no model can be called so");
    assert_eq!(failed(&["--model", "a/7"]), "error: model name 'a/7' is not valid\n");
    assert_eq!(failed(&["--model", "7"]), "error: model '7' is unknown\n");
    assert_eq!(failed(&["--request", "8"]), "error: request '8' is not under way\n");
    assert!(orion(&["explain", "x", "--request", "--model"]).failed(1).contains("cannot be used with"));
}
