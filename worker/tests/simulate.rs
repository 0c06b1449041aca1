//! A worker with emulated devices, driven as a scheduler drives it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

use std::{collections::HashMap, time::Instant};

use orion_proto::{
    Code,
    session::{CancelBatch, model_report::State, to_worker},
};

mod driver;
mod tiny_bert;

use driver::{Bench, Said, codes};

const DEVICES: &str = r#"
    [[device]]
    name = "sim0"
    memory_bytes = 100
    copy_bytes_per_second = 1e6
    [[device]]
    name = "sim1"
    memory_bytes = 50
    slowdown = 2
    [[device]]
    name = "sim2"
    memory_bytes = 1000
    copy_bytes_per_second = 1e9"#;

#[test]
fn such_a_worker_has_its_emulated_devices_and_no_others() {
    let bench = Bench::new(Some(DEVICES));
    let devices = &bench.worker.capability().devices;
    let shown: Vec<_> = devices.iter().map(|d| (d.name.as_str(), d.memory_total_bytes, d.usable)).collect();
    assert_eq!(shown, [("sim0", 100, true), ("sim1", 50, true), ("sim2", 1000, true)]);
    assert!(devices.iter().all(|device| device.kind == "simulated" && device.model.contains("simulated")));
    assert_eq!(bench.free(), [100, 50, 1000]);
}

#[test]
fn inspection_says_what_each_device_would_take() {
    let mut bench = Bench::new(Some(DEVICES));
    bench.model("m", "base_seconds = 0.5\nper_row_seconds = 0.25\nmemory_bytes = 60\nload_seconds = 7");
    let order = bench.inspect("m");
    for (device, base, load_seconds) in [("sim0", 0.5, 60e-6), ("sim1", 1.0, 7.0), ("sim2", 0.5, 60e-9)] {
        let report = bench.report();
        assert_eq!((report.state(), report.device.as_str(), report.order), (State::Inspected, device, order));
        assert_eq!((report.curve.unwrap().base_seconds, report.load_seconds), (base, load_seconds));
        assert_eq!(report.spec.unwrap().memory_bytes, 60);
    }
    let order = bench.inspect("nothing");
    let report = bench.report();
    assert_eq!((report.state(), report.device.as_str(), report.order), (State::Failed, "", order));
    assert!(report.error.contains("there is nothing at"), "{}", report.error);
    assert_eq!(bench.free(), [100, 50, 1000], "inspection holds nothing");
}

#[test]
fn memory_is_counted_to_the_byte_and_failures_name_it() {
    let mut bench = Bench::new(Some(DEVICES));
    bench.model("sixty", "memory_bytes = 60\npeak_bytes = 9");
    bench.model("forty", "memory_bytes = 40");
    bench.model("forty-one", "memory_bytes = 41");
    let order = bench.load("sixty", "");
    let ready = bench.loaded();
    assert_eq!((ready.state(), ready.device.as_str(), ready.order), (State::Ready, "sim0", order));
    assert!(ready.load_seconds >= 60e-6 && ready.peak_bytes == 9, "{ready:?}");
    let order = bench.load("forty-one", "sim0");
    let failed = bench.loaded();
    assert_eq!((failed.state(), failed.order), (State::Failed, order));
    assert_eq!(failed.error, "model 'forty-one' needs 41 bytes of memory on sim0, 40 are free");
    bench.load("forty", "sim0");
    assert_eq!((bench.loaded().state(), bench.free()), (State::Ready, vec![1, 50, 1000]), "1 is full: 0 is not known");
    let told = bench.worker.hello().capability.unwrap().devices;
    let free = told.iter().filter(|device| device.kind == "simulated").map(|device| device.memory_free_bytes);
    assert_eq!(free.collect::<Vec<_>>(), [1, 50, 1000], "a scheduler that comes back is told what is free by now");
    bench.load("sixty", "sim1");
    assert!(bench.loaded().error.ends_with("needs 60 bytes of memory on sim1, 50 are free"));
    bench.load("forty", "sim1");
    assert_eq!((bench.loaded().device.as_str(), bench.free()), ("sim1", vec![1, 10, 1000]));
    let order = bench.load("forty", "cpu0");
    let failed = bench.loaded();
    assert_eq!((failed.state(), failed.device.as_str(), failed.order), (State::Failed, "cpu0", order));
    assert!(failed.error.contains("its devices are: sim0, sim1, sim2"), "{}", failed.error);
    bench.run(1, "forty", "sim1", &[5.0]);
    assert_eq!(codes(&bench.result()), [(None, false)]);
    bench.run(2, "sixty", "sim1", &[5.0]);
    assert_eq!(codes(&bench.result()), [(Some(Code::Unavailable), true)], "it is on another device");
    bench.run(3, "forty", "cpu0", &[5.0]);
    assert_eq!(codes(&bench.result()), [(Some(Code::NotFound), true)]);
}

#[test]
fn unloaded_is_told_after_the_batches_before_it_and_when_the_memory_is_free() {
    let mut bench = Bench::new(Some(DEVICES));
    bench.model("slow", "memory_bytes = 100\nbase_seconds = 0.2\npeak_bytes = 3");
    bench.model("next", "memory_bytes = 100");
    bench.load("slow", "sim0");
    assert_eq!(bench.loaded().state(), State::Ready);
    let sent = Instant::now();
    bench.run(1, "slow", "sim0", &[1.0, 2.0]);
    bench.run(2, "slow", "sim0", &[1.0]);
    let apart = sent.elapsed().as_secs_f64();
    let order = bench.unload("slow", "sim0");
    bench.run(3, "slow", "sim0", &[1.0]);
    let first = bench.result();
    assert_eq!((first.batch, first.rows, first.peak_bytes), (1, 2, 3));
    assert!(first.service_seconds >= 0.2, "{first:?}");
    let second = bench.result();
    assert!(second.batch == 2 && second.waited_seconds >= 0.2 - apart, "it came while the first ran: {second:?}");
    let Said::Model(unloaded, free) = bench.next() else { panic!("UNLOADED comes before what follows it") };
    assert_eq!((unloaded.state(), unloaded.order, free), (State::Unloaded, order, 100));
    assert_eq!(codes(&bench.result()), [(Some(Code::Unavailable), true)]);
    bench.load("next", "sim0");
    assert_eq!(bench.loaded().state(), State::Ready, "all of the memory is free again");
    let order = bench.unload("slow", "sim0");
    let again = bench.report();
    assert_eq!((again.state(), again.order), (State::Unloaded, order), "what is not there is unloaded");
}

#[test]
fn loads_overlap_with_execution_and_cancelled_batches_cost_nothing() {
    let mut bench = Bench::new(Some(DEVICES));
    // Longer than the test, which does not wait for it.
    bench.model("slow", "base_seconds = 600");
    bench.model("other", "memory_bytes = 10");
    bench.load("slow", "sim0");
    assert_eq!(bench.loaded().state(), State::Ready);
    bench.run(1, "slow", "sim0", &[1.0]);
    bench.run(2, "slow", "sim0", &[1.0, 2.0]);
    bench.load("other", "sim0");
    assert_eq!(bench.loaded().name, "other", "ready while the batch runs");
    bench.send(to_worker::Message::Cancel(CancelBatch { batch: 2, attempts: vec![20, 21] }));
    let cancelled = bench.result();
    assert_eq!((cancelled.batch, cancelled.rows, cancelled.service_seconds), (2, 0, 0.0));
    assert_eq!(codes(&cancelled), [(Some(Code::Cancelled), true); 2]);
    assert!(!bench.worker.is_idle(), "the first still runs");
}

#[test]
fn a_batch_fails_as_a_whole_with_one_internal_error() {
    let mut bench = Bench::new(Some(DEVICES));
    bench.model("m", "poison = 42.0");
    bench.load("m", "sim2");
    assert_eq!(bench.loaded().state(), State::Ready);
    bench.run(1, "m", "sim2", &[1.0, 42.0, 2.0]);
    for done in bench.result().results {
        let error = done.outcome.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Internal, "the model failed on this batch"));
        assert!(!done.not_started);
    }
    bench.run(2, "m", "sim2", &[1.0, 2.0]);
    assert_eq!(codes(&bench.result()), [(None, false); 2]);
}

#[test]
fn a_model_that_computes_is_refused_by_name() {
    let mut bench = Bench::new(Some(DEVICES));
    tiny_bert::write(&bench.folder.path().join("bert"));
    bench.inspect("bert");
    let report = bench.report();
    assert_eq!((report.state(), report.device.as_str()), (State::Failed, ""));
    assert!(report.error.contains("model 'bert' computes, device sim2 is emulated"), "{}", report.error);
    bench.load("bert", "sim2");
    let failed = bench.loaded();
    assert_eq!((failed.state(), failed.device.as_str()), (State::Failed, "sim2"));
    assert!(failed.error.contains("kind = \"simulated\""), "{}", failed.error);
}

/// Loads and unloads in any order and without waiting: in the end each newest wish is answered, and what is free is what
/// the models that are there leave.
#[test]
fn any_order_of_wishes_leaves_exact_books() {
    let seed: u64 = std::env::var("ORION_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut bench = Bench::new(Some(DEVICES));
    let bytes = |model: usize| 15 + 20 * model as u64;
    for model in 0..6 {
        bench.model(&format!("m{model}"), &format!("memory_bytes = {}", bytes(model)));
    }
    let mut state = seed;
    let mut draw = |below: usize| {
        // Knuth's MMIX generator; its high bits are good enough here.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut newest = HashMap::new();
    for step in 0..600 {
        let place = (format!("m{}", draw(6)), format!("sim{}", draw(2)));
        let order = match draw(2) {
            0 => bench.load(&place.0, &place.1),
            _ => bench.unload(&place.0, &place.1),
        };
        bench.run(step, &place.0, &place.1, &[1.0]);
        newest.insert(place, order);
    }
    let (mut ended, mut results) = (HashMap::new(), 0);
    while results < 600 || newest.iter().any(|(place, order)| ended.get(place).is_none_or(|(_, of)| of != order)) {
        match bench.next() {
            Said::Result(_) => results += 1,
            Said::Deltas(deltas) => panic!("{deltas:?} of no generator"),
            // A load may be through before the unload that came before it.
            Said::Model(report, _) if report.state() != State::Loading => {
                let (state, order) = (report.state(), report.order);
                let told = ended.entry((report.name, report.device)).or_insert((state, order));
                if order >= told.1 {
                    *told = (state, order);
                }
            }
            Said::Model(..) => {}
        }
    }
    let left = [("sim0", 100), ("sim1", 50)].map(|(device, capacity): (&str, u64)| {
        let there = ended.iter().filter(|((_, on), (state, _))| on == device && *state == State::Ready);
        capacity - there.map(|((name, _), _)| bytes(name[1..].parse().unwrap())).sum::<u64>()
    });
    // An unload that a later load overtook may still be giving its memory back.
    let exact = (0..100_000).any(|_| {
        std::thread::yield_now();
        bench.free()[..2] == left
    });
    assert!(exact, "{:?} are free, not {left:?}: {ended:?}", bench.free());
}
