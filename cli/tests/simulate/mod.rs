//! `orion bench sched`: no server takes part.

use serde_json::{Value, json};

use super::orion;

/// A trace with a request every 10 ms on a device that answers each in 3 ms.
fn workload_a(seed: u64) -> tempfile::NamedTempFile {
    let arrivals: Vec<(f64, usize)> = (0..100).map(|n| (f64::from(n) * 10.0, 0)).collect();
    trace(&json!({
        "gpus": 1, "gpu_mb": 1000.0, "copy_mb_per_ms": 12.3, "max_batch": 4, "slo_ms": 100.0, "warm_ms": 500.0,
        "duration_ms": 1000.0, "load": 0.3, "seed": seed, "lp_bound_requests": 50.0,
        "models": [{ "alpha_ms": 1.0, "beta_ms": 2.0, "mb": 10.0 }], "arrivals": arrivals,
    }))
}

fn workload_b() -> tempfile::NamedTempFile {
    workload_b_of(&(0..100).map(|n| f64::from(n) * 20.0).collect::<Vec<f64>>())
}

fn workload_b_of(arrivals: &[f64]) -> tempfile::NamedTempFile {
    trace(&json!({
        "replicas": 2, "routers": 1, "load": 0.5, "seed": 4, "rtt_ms": 1.0, "speed": [1.0, 0.5], "arrivals_ms": arrivals,
        "work_ms": vec![10.0; arrivals.len()], "slow_episodes_ms": [[], []],
    }))
}

fn trace(content: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content.to_string()).unwrap();
    file
}

fn sched(arguments: &[&str]) -> super::Ran {
    orion(&[&["bench", "sched"], arguments].concat())
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

#[test]
fn traces_are_replayed_and_their_mean_is_beside_them() {
    let (one, two) = (workload_a(1), workload_a(2));
    let json = sched(&["--workload", "a", "--trace", path(&one), "-o", "json"]).json();
    assert_eq!((&json["attainment"], &json["of_bound"]), (&json!(1.0), &json!(1.0)), "an idle device is in time");
    assert_eq!((&json["p99_ms"], &json["answered"], &json["seed"]), (&json!(3.0), &json!(50), &json!(1)));
    for figure in ["decision_ns_p50", "decision_ns_p99", "tick_ns_p50", "tick_ns_p99"] {
        assert!(json[figure].as_u64() > Some(0), "{figure}: {json}");
    }

    let both = ["--workload", "a", "--trace", path(&one), "--trace", path(&two)];
    let json = sched(&[&both, ["-o", "json"].as_slice()].concat()).json();
    let seeds: Vec<&Value> = json["runs"].as_array().unwrap().iter().map(|run| &run["seed"]).collect();
    assert_eq!((json!(seeds), &json["seed"], &json["load"]), (json!([1, 2]), &Value::Null, &json!(0.3)));
    let table = sched(&both);
    assert!(table.done().contains("100.00 %") && table.out.contains("mean"), "{}", table.out);

    let noisy = sched(&["--workload", "a", "--noise", "0.3", "--trace", path(&one), "-o", "json"]).json();
    assert!(noisy["p99_ms"].as_f64() > Some(3.0), "{noisy}");
    let b = workload_b();
    let json = sched(&["--workload", "b", "--trace", path(&b), "-o", "json"]).json();
    assert_eq!(
        (&json["p99_ms"], &json["p99_of_oracle"]),
        (&json!(11.0), &json!(1.0)),
        "the fast replica is idle each time"
    );
    assert_eq!((&json["counted"], &json["answered"]), (&json!(90), &json!(90)));
}

/// More at once than may wait.
#[test]
fn requests_of_workload_b_that_are_refused_took_for_ever() {
    let flood = workload_b_of(&vec![1.0; 10_000]);
    let json = sched(&["--workload", "b", "--trace", path(&flood), "-o", "json"]).json();
    let (counted, answered) = (json["counted"].as_u64().unwrap(), json["answered"].as_u64().unwrap());
    assert!(counted == 9_000 && answered < 8_000, "{json}");
    assert_eq!((&json["p99_ms"], &json["p99_of_oracle"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_made_up_cluster_is_of_the_size_that_was_asked_for() {
    let small = ["--workers", "2", "--devices", "2", "--models", "3", "--requests", "200", "--load", "0.4"];
    let json = sched(&[small.as_slice(), &["-o", "json"]].concat()).json();
    assert_eq!((&json["workload"], &json["load"], &json["seed"]), (&json!("scale"), &json!(0.4), &json!(1)));
    assert!(json["answered"].as_u64() > Some(150) && json["runs"].as_array().unwrap().len() == 1, "{json}");
    let again = sched(&[small.as_slice(), &["-o", "json"]].concat()).json();
    assert!(json["digest"].as_u64() > Some(0) && json["digest"] == again["digest"], "the same every time");
    assert!(!sched(&small).done().contains("trace"));
}

#[test]
fn mistakes_are_named() {
    let (a, b) = (workload_a(1), workload_b());
    for (arguments, part) in [
        (["--workload", "a", "--requests", "1"].as_slice(), "--trace FILE"),
        (&["--workload", "scale", "--trace", path(&a)], "makes its own"),
        (&["--workload", "b", "--trace", path(&b), "--noise", "0.1"], "--noise is for workload a"),
        (&["--workload", "b", "--trace", path(&a)], "not one of workload b"),
        (&["--workload", "a", "--trace", "/nowhere/t"], "trace '/nowhere/t' cannot be read"),
        (&["--workload", "a", "--trace", path(&a), "--workers", "2"], "cannot be used with"),
        (&["--trace", path(&a)], "--workload"),
        (&[], "--workload"),
        (&["--workers", "16385"], "not in 1..=16384"),
        (&["--models", "0"], "1 to 1000000"),
        (&["--load", "0"], "above 0"),
        (&["--requests", "0"], "--requests"),
    ] {
        let ran = sched(arguments);
        assert!(ran.failed(1).contains(part), "{arguments:?}: {}", ran.err);
    }
}

/// A trace with one of its figures replaced.
fn with(file: &tempfile::NamedTempFile, key: &str, value: Value) -> tempfile::NamedTempFile {
    let mut content: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    content[key] = value;
    trace(&content)
}

#[test]
fn figures_of_a_trace_that_cannot_be_are_named() {
    let (a, b) = (workload_a(1), workload_b());
    let model = |name: &str| {
        let mut model = json!({ "alpha_ms": 1.0, "beta_ms": 2.0, "mb": 10.0 });
        model[name] = json!(-1.0);
        json!([model])
    };
    let work = |ms: f64| json!(vec![ms; 100]);
    let unsorted: Vec<f64> = (0..100).rev().map(f64::from).collect();
    for (file, workload, key, value, part) in [
        (&a, "a", "models", model("alpha_ms"), "alpha_ms of model 0 is -1"),
        (&a, "a", "models", model("beta_ms"), "beta_ms of model 0 is -1"),
        (&a, "a", "models", model("mb"), "mb of model 0 is -1"),
        (&b, "b", "routers", json!(10), "routers is 10"),
        (&b, "b", "rtt_ms", json!(-0.5), "rtt_ms is -0.5"),
        (&b, "b", "speed", json!([1.0, 0.0]), "speed 0"),
        (&b, "b", "arrivals_ms", json!(unsorted), "not in the order of time"),
        (&b, "b", "work_ms", work(15.0), "15 ms of work"),
        (&b, "b", "work_ms", work(0.0), "0 ms of work"),
        (&b, "b", "slow_episodes_ms", json!([[], [[5.0, 4.0]]]), "replica 1 is slow from 5 to 4 ms"),
        (&b, "b", "slow_episodes_ms", json!([[[1.0, 5.0], [4.0, 6.0]], []]), "replica 0 is slow from 4 to 6 ms"),
    ] {
        let wrong = with(file, key, value);
        let ran = sched(&["--workload", workload, "--trace", path(&wrong)]);
        assert!(ran.failed(1).contains(part), "{key}: {}", ran.err);
    }
}

#[test]
fn a_model_may_be_called_sched() {
    let server = super::Server::start();
    let model = orion(&["bench", "--server", &server.0, "--", "sched"]);
    assert_eq!(model.failed(1), "error: model 'sched' is unknown\n");
    assert!(orion(&["bench", "--help"]).done().contains("orion bench --"));
    assert!(orion(&["bench"]).failed(1).contains("<MODEL>"));
}
