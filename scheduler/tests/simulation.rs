//! The core in simulated worlds: the same every time, as good as it was, and right when nearly everything goes wrong.
#![expect(clippy::panic, reason = "a test's helpers fail the test")]

use orion_scheduler::simulate::{Faults, ManyModels, UnequalReplicas};

fn trace(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/traces/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn many_models_are_answered_in_time_and_the_same_way_every_time() {
    let workload = ManyModels::parse(&trace("many_models")).unwrap();
    let [first, second] = [(); 2].map(|()| workload.run(0.0).unwrap());
    let attainment = first.attainment.unwrap();
    // Measured on this trace, less half a percent.
    assert!(attainment >= ATTAINMENT - 0.005, "{first:?}");
    assert_eq!(first.digest, second.digest, "two runs of one trace");
    assert_eq!((first.attainment, first.p99_ms, first.loads), (second.attainment, second.p99_ms, second.loads));
}

const ATTAINMENT: f64 = 0.9995;

#[test]
fn unequal_replicas_have_a_tail_near_that_of_an_oracle() {
    let workload = UnequalReplicas::parse(&trace("unequal_replicas")).unwrap();
    let [first, second] = [(); 2].map(|()| workload.run().unwrap());
    assert!(first.p99_of_oracle.unwrap() <= 1.2, "{first:?}");
    assert_eq!((first.counted, first.answered), (9_000, 9_000), "every request is answered");
    assert_eq!((first.digest, first.p99_ms), (second.digest, second.p99_ms), "two runs of one trace");
}

#[test]
fn every_request_is_settled_once_whatever_goes_wrong() {
    let long = std::env::var("ORION_TEST_LONG").is_ok_and(|long| long == "1");
    for seed in 0..if long { 100 } else { 6 } {
        let faults = Faults { seed, requests: 8_000 };
        let settlement = faults.run().unwrap();
        assert_eq!(settlement.open, 0, "seed {seed}: {settlement:?}");
        assert!(settlement.crashes > 3 && settlement.silences > 3, "seed {seed}: {settlement:?}");
        assert!(settlement.answered > faults.requests / 4, "seed {seed}: {settlement:?}");
        if seed == 0 {
            assert_eq!(faults.run().unwrap(), settlement, "two runs of one seed");
        }
    }
}
