use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

fn model(latency: Simulated) -> SimulatedModel {
    paced(latency, Pace::default(), &|_| {})
}

fn paced(latency: Simulated, pace: Pace, progress: &dyn Fn(f32)) -> SimulatedModel {
    let spec = spec(&ModelName::new("slow").unwrap(), "1".into(), 32, &latency, ModelPolicy::default());
    SimulatedModel::load(spec, latency, Arc::new(pace), progress)
}

#[test]
fn latency_is_a_plus_b_n_times_a_seeded_factor() {
    let line = Simulated { base_seconds: 0.5, per_row_seconds: 0.25, ..Simulated::default() };
    assert_eq!(model(line.clone()).seconds(4), 1.5);
    let noisy = Simulated { noise: 0.3, seed: 7, ..line };
    let draw = |latency: &Simulated, seed: u64| {
        let mut model = paced(latency.clone(), Pace { seed, ..Pace::default() }, &|_| {});
        (0..4000).map(|_| (model.seconds(4) / 1.5).ln()).collect::<Vec<f64>>()
    };
    let logs = draw(&noisy, 0);
    assert_eq!(logs, draw(&noisy, 0), "the same seed gives the same latencies");
    assert_ne!(logs, draw(&Simulated { seed: 8, ..noisy.clone() }, 0));
    assert_ne!(logs, draw(&noisy, 1), "devices of different seeds differ");
    let mean = logs.iter().sum::<f64>() / 4000.0;
    let sigma = (logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4000.0).sqrt();
    assert!(mean.abs() < 0.02 && (sigma - 0.3).abs() < 0.02, "mean {mean}, sigma {sigma}");
}

#[test]
fn input_comes_back_and_progress_reaches_one() {
    let told = std::cell::RefCell::new(Vec::new());
    let mut model = paced(Simulated::default(), Pace::default(), &|share| told.borrow_mut().push(share));
    assert!(told.borrow().is_sorted() && told.borrow().last() == Some(&1.0));
    let answers = model.run(vec![model.sample(3), ModelRequest::default()]);
    assert_eq!(answers[0].as_ref().unwrap().outputs[0].shape, [3, 1]);
    assert!(answers[1].as_ref().is_err_and(|e| e.message.contains("'slow'")));
}

#[test]
fn a_slower_device_slows_the_known_curve_and_the_batches() {
    let latency = Simulated { base_seconds: 0.001, per_row_seconds: 0.0005, peak_bytes: 9, ..Simulated::default() };
    let mut model = paced(latency, Pace { slowdown: 4.0, ..Pace::default() }, &|_| {});
    let known = ServiceCurve { base_seconds: 0.004, per_row_seconds: 0.002 };
    assert_eq!((model.known_curve(), model.known_peak_bytes()), (Some(known), Some(9)));
    let (started, sample) = (Instant::now(), model.sample(2));
    assert!(model.run(vec![sample])[0].is_ok());
    assert!(started.elapsed().as_secs_f64() >= 0.008, "never faster than it says");
}

#[test]
fn poison_fails_the_whole_batch_and_no_other() {
    let mut model = model(Simulated { poison: Some(42.0), ..Simulated::default() });
    let mut poisoned = model.sample(2);
    poisoned.inputs[0].data = Payload::from([0.0f32, 42.0].map(f32::to_le_bytes).concat());
    let good = model.sample(1);
    assert!(catch_unwind(AssertUnwindSafe(|| model.run(vec![good.clone(), poisoned]))).is_err());
    assert!(model.run(vec![good])[0].is_ok());
}

#[test]
fn too_many_rows_run_out_of_memory_together() {
    let mut model = model(Simulated { out_of_memory_rows: Some(4), ..Simulated::default() });
    let (two, three) = (model.sample(2), model.sample(3));
    assert!(model.run(vec![two.clone(), two.clone()]).iter().all(Result::is_ok));
    for outcome in model.run(vec![two, three]) {
        assert!(outcome.is_err_and(|e| e.code == Code::ResourceExhausted && e.message.starts_with("out of memory")));
    }
}

#[test]
fn a_seeded_share_of_batches_meets_a_device_fault() {
    let draw = |seed| {
        let mut model = model(Simulated { fail_share: 0.25, seed, ..Simulated::default() });
        let sample = model.sample(1);
        let fails = |outcome: Result<InferAnswer>| {
            outcome.is_err_and(|e| e.code == Code::Unavailable && e.message == "device fault (simulated)")
        };
        (0..4000)
            .map(|_| model.run(vec![sample.clone(); 2]).into_iter().map(fails).collect())
            .collect::<Vec<Vec<bool>>>()
    };
    let batches = draw(3);
    assert!(batches == draw(3) && batches != draw(4));
    assert!(batches.iter().all(|batch| batch[0] == batch[1]), "a fault is the whole batch's");
    let failed = batches.iter().filter(|batch| batch[0]).count();
    assert!((850..1150).contains(&failed), "{failed} of 4000");
}
