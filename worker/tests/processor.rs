//! A worker of this machine, driven as a scheduler drives it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

use orion_proto::{Code, session::model_report::State};

mod driver;
mod tiny_bert;

use driver::{Bench, codes};

#[test]
fn a_model_is_inspected_loaded_warmed_up_run_and_dropped() {
    let mut bench = Bench::new(None);
    let folder = bench.folder.path().join("bert");
    tiny_bert::write(&folder);
    std::fs::write(folder.join("orion.toml"), "slo_ms = 20").unwrap();
    let order = bench.inspect("bert");
    let inspected = bench.report();
    assert_eq!((inspected.state(), inspected.device.as_str(), inspected.order), (State::Inspected, "cpu0", order));
    let policy = inspected.spec.clone().unwrap().policy.unwrap();
    assert_eq!((policy.slo_seconds, policy.datatype.as_str()), (0.02, "f32"));
    let device = &bench.worker.capability().devices[0];
    assert!(device.datatypes.contains(&policy.datatype), "{device:?}");

    let order = bench.load("bert", "");
    let ready = bench.loaded();
    assert_eq!((ready.state(), ready.error.as_str(), ready.order), (State::Ready, "", order));
    assert_eq!(ready.spec, inspected.spec);
    let curve = ready.curve.unwrap();
    assert!(ready.load_seconds > 0.0 && curve.base_seconds + curve.per_row_seconds > 0.0, "{ready:?}");
    bench.run_texts(1, "bert", &["one", "two words"]);
    let result = bench.result();
    assert_eq!((result.rows, codes(&result)), (2, vec![(None, false); 2]));
    assert_eq!(result.peak_bytes, 0, "warm-up ran larger batches");
    assert!(result.service_seconds > 0.0);

    let order = bench.unload("bert", "cpu0");
    let unloaded = bench.report();
    assert_eq!((unloaded.state(), unloaded.order), (State::Unloaded, order));
    bench.run_texts(2, "bert", &["one"]);
    assert_eq!(codes(&bench.result()), [(Some(Code::Unavailable), true)]);
}

#[test]
fn loads_and_unloads_in_a_row_end_as_the_last_one_says() {
    let mut bench = Bench::new(None);
    tiny_bert::write(&bench.folder.path().join("bert"));
    let mut last = 0;
    for _ in 0..20 {
        bench.load("bert", "cpu0");
        last = bench.unload("bert", "cpu0");
    }
    let mut report = bench.report();
    while report.order != last {
        report = bench.report();
    }
    assert_eq!(report.state(), State::Unloaded);
    let order = bench.load("bert", "cpu0");
    let ready = bench.loaded();
    assert_eq!((ready.state(), ready.order), (State::Ready, order));
}
