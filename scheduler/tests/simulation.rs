//! The core in simulated worlds: the same every time, as good as it was, and right when nearly everything goes wrong.
#![expect(clippy::panic, reason = "a test's helpers fail the test")]

use orion_scheduler::simulate::{Faults, ManyModels, UnequalReplicas};

fn trace(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/traces/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Sigma of the noise; the share of the bound that was measured on this trace; what the reference's own policy reaches on
/// it (`scripts/make-test-traces`).
const OF_BOUND: [(f64, f64, f64); 2] = [(0.0, 0.9606, 0.9562), (0.1, 0.9526, 0.9448)];

#[test]
fn many_models_are_answered_in_time_and_the_same_way_every_time() {
    let workload = ManyModels::parse(&trace("many_models")).unwrap();
    for (noise, measured, reference) in OF_BOUND {
        let [first, second] = [(); 2].map(|()| workload.run(noise).unwrap());
        let of_bound = first.of_bound.unwrap();
        assert!(of_bound >= measured - 0.001 && of_bound > reference, "noise {noise}: {first:?}");
        assert_eq!(first.digest, second.digest, "two runs of one trace");
        assert_eq!((first.of_bound, first.p99_ms, first.loads), (second.of_bound, second.p99_ms, second.loads));
    }
}

const P99_OF_ORACLE: f64 = 1.017;

#[test]
fn unequal_replicas_have_a_tail_near_that_of_an_oracle() {
    let workload = UnequalReplicas::parse(&trace("unequal_replicas")).unwrap();
    let [first, second] = [(); 2].map(|()| workload.run().unwrap());
    // Measured on this trace, less a hundredth; the goal is 1.2.
    assert!(first.p99_of_oracle.unwrap() <= P99_OF_ORACLE + 0.01, "{first:?}");
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
