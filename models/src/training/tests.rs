use super::*;
use orion_proto::training::Plan;
use std::{fs, path::Path};

mod language;
mod questions;
mod rounds;
mod texts;

/// Squares of two shades in places that tell their class, as IDX files.
fn made(folder: &Path, count: usize) {
    for (part, count) in [("train", count), ("t10k", count / 4)] {
        let (mut images, mut labels) = (vec![0, 0, 8, 3], vec![0, 0, 8, 1]);
        for size in [count, 8, 8] {
            images.extend((size as u32).to_be_bytes());
        }
        labels.extend((count as u32).to_be_bytes());
        for index in 0..count {
            let class = index % 4;
            let mut image = [0u8; 64];
            for (pixel, value) in image.iter_mut().enumerate() {
                let (y, x) = (pixel / 8, pixel % 8);
                let inside = y / 4 == class / 2 && x / 4 == class % 2;
                *value = (if inside { 120 } else { 40 }) + ((index * 31 + pixel * 17) % 90) as u8;
            }
            images.extend(image);
            labels.push(class as u8);
        }
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

fn at(folder: &Path) -> Files<'_> {
    Files { base: None, train: folder, test: None }
}

fn plan(change: &str) -> Plan {
    let text = format!(
        r#"{{"name": "m", "model": {{"kind": "cnn", "channels": [4, 6], "hidden": [16], "dropout": 0.1}},
        "data": {{"train": "d"}}, "training": {{"epochs": 2, "batch": 32, "micro_batch": 8, "seed": 3{change}}},
        "optimizer": {{"kind": "adamw", "learning_rate": 0.01}}}}"#
    );
    Plan::from_json(&text).unwrap()
}

/// The sum of parts as one worker alone would make it here: pairwise, halves by number.
fn sum(parts: &[Vec<f32>]) -> Vec<f32> {
    match parts {
        [one] => one.clone(),
        _ => {
            let (left, right) = parts.split_at(parts.len().next_power_of_two() / 2);
            sum(left).iter().zip(&sum(right)).map(|(a, b)| a + b).collect()
        }
    }
}

fn whole(learner: &mut Learner, work: Work, part: usize) -> Vec<f32> {
    loop {
        if let Some(numbers) = learner.advance(work, part).unwrap() {
            return numbers;
        }
    }
}

fn run(learner: &mut Learner, mut seen: impl FnMut(&mut Learner, Taken)) {
    while let Some(work) = learner.next() {
        let parts: Vec<_> = (0..learner.parts(work)).map(|part| whole(learner, work, part)).collect();
        let taken = learner.conclude(work, sum(&parts)).unwrap();
        seen(learner, taken);
    }
}

#[test]
fn it_learns_and_goes_on_from_its_state_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 640);
    let mut learner = Learner::open(plan(""), &at(folder.path()), u64::MAX).unwrap();
    assert_eq!((learner.steps(), learner.parts(Work::Step)), (40, 4));
    let mut middle = None;
    run(&mut learner, |learner, _| {
        if learner.progress().step == 17 && middle.is_none() {
            middle = Some(learner.state().unwrap());
        }
    });
    let seen = learner.progress().test.unwrap();
    assert!(seen.accuracy > 0.95, "{seen:?}");
    assert_eq!(learner.progress().evaluated_at, 40);
    let mut other = Learner::open(plan(""), &at(folder.path()), u64::MAX).unwrap();
    other.restore(&middle.unwrap()).unwrap();
    assert_eq!(other.progress().step, 17);
    run(&mut other, |_, _| {});
    assert!(other.state().unwrap() == learner.state().unwrap());
    let mut unlike = Learner::open(plan(", \"clip_norm\": 1"), &at(folder.path()), u64::MAX).unwrap();
    assert!(unlike.restore(&learner.state().unwrap()).unwrap_err().message.contains("another plan"));
}

#[test]
fn a_part_is_the_same_bits_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 64);
    let mut learner = Learner::open(plan(""), &at(folder.path()), u64::MAX).unwrap();
    let mut on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| whole(&mut learner, Work::Step, 2))
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn patience_ends_it_and_the_best_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 64);
    let mut learner =
        Learner::open(plan(", \"patience\": 1, \"evaluate_steps\": 1"), &at(folder.path()), u64::MAX).unwrap();
    learner.progress.best = Some(Evaluation { loss: 0.0, accuracy: 1.0 });
    learner.progress.best_weights = vec![0.5; learner.weights.values.len()];
    run(&mut learner, |_, _| {});
    assert_eq!((learner.progress().step, learner.progress().since_best), (1, 1));
    assert_eq!(learner.result()[0], 0.5);
}

#[test]
fn what_was_trained_is_served() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 640);
    let mut learner = Learner::open(plan(""), &at(folder.path()), u64::MAX).unwrap();
    run(&mut learner, |_, _| {});
    let saved = tempfile::tempdir().unwrap();
    learner.save(saved.path()).unwrap();
    let manifest = crate::inspect(&orion_proto::ModelName::new("m").unwrap(), saved.path()).unwrap();
    let mut model = crate::load(&manifest, &|_| {}).unwrap().model().unwrap();
    let mut request = model.sample(3);
    let pixels = (0..3).flat_map(|class: usize| {
        (0..64).map(
            move |pixel: usize| if pixel / 32 == class / 2 && pixel % 8 / 4 == class % 2 { 165.0f32 } else { 85.0 },
        )
    });
    request.inputs[0].data = pixels.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into();
    let answer = model.run(vec![request]).remove(0).unwrap();
    let classes = answer.outputs[1].data.contiguous();
    assert_eq!(classes.chunks_exact(4).map(|v| v[0]).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_does_not_fit_the_memory_is_refused_before_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 8);
    let refused = Learner::open(plan(""), &at(folder.path()), 100_000).err().unwrap();
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(refused.message.ends_with("100000 are free"), "{refused}");
    assert!(Learner::open(plan(""), &at(folder.path()), 10_000_000).is_ok());
}

#[test]
fn data_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = || Learner::open(plan(""), &at(folder.path()), u64::MAX).err().unwrap().message;
    assert!(refused().contains("train-images-idx3-ubyte"), "{}", refused());
    made(folder.path(), 8);
    let labels = folder.path().join("train-labels-idx1-ubyte");
    for (bytes, why) in [
        (vec![0, 0, 8], "two zeros"),
        (vec![0, 0, 13, 1, 0, 0, 0, 1, 0], "0x0d"),
        (vec![0, 0, 8, 1, 255, 255, 255, 255, 0], "1 bytes follow"),
        (vec![0, 0, 8, 1, 0, 0, 0, 1, 0], "labels of [1]"),
    ] {
        fs::write(&labels, bytes).unwrap();
        assert!(refused().contains(why), "{why}: {}", refused());
    }
}

/// What PyTorch makes of a small network; `tests/data/training/make_reference.py` wrote it.
mod reference {
    use super::*;
    use safetensors::SafeTensors;

    fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
        let bytes = file.tensor(name).unwrap().data();
        bytes.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect()
    }

    fn all(file: &SafeTensors<'_>, prefix: &str, learner: &Learner) -> Vec<f32> {
        let names = learner.task.parameters().iter().map(|parameter| format!("{prefix}.{}", parameter.name));
        names.flat_map(|name| floats(file, &name)).collect()
    }

    fn near(seen: &[f32], wanted: &[f32], most: f32, what: &str) {
        assert_eq!(seen.len(), wanted.len(), "{what}");
        let furthest = seen.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest <= most, "{what}: {furthest} away");
    }

    #[test]
    fn a_step_is_that_of_pytorch() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/training/reference.safetensors");
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let idx = |name: &str, dims: &[u32], data: &[u8]| {
            let mut bytes = vec![0, 0, 8, dims.len() as u8];
            dims.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
            bytes.extend(data);
            fs::write(folder.path().join(name), bytes).unwrap();
        };
        idx("train-images-idx3-ubyte", &[4, 8, 8], file.tensor("images").unwrap().data());
        idx("train-labels-idx1-ubyte", &[4], file.tensor("labels").unwrap().data());
        let sgd = r#"{"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": true, "weight_decay": 0.01}"#;
        let adamw = r#"{"kind": "adamw", "learning_rate": 0.001}"#;
        let plain = r#"{"kind": "sgd", "learning_rate": 0.1}"#;
        for (name, optimizer, clip, steps) in [
            ("sgd.1", sgd, 0.0, 1),
            ("sgd.3", sgd, 0.0, 3),
            ("sgd_plain.1", plain, 0.0, 1),
            ("adamw.1", adamw, 0.0, 1),
            ("adamw.3", adamw, 0.0, 3),
            ("clipped.1", adamw, 0.1, 1),
            // The first step of AdamW hardly depends on the gradient's length.
            ("clipped_sgd_plain.1", plain, 0.1, 1),
        ] {
            let plan = format!(
                r#"{{"name": "m", "model": {{"kind": "cnn", "channels": [3, 4], "hidden": [6]}}, "data": {{"train": "d", "classes": 5}},
                "training": {{"steps": 3, "batch": 4, "micro_batch": 2, "clip_norm": {clip}}}, "optimizer": {optimizer}}}"#
            );
            let mut learner = Learner::open(Plan::from_json(&plan).unwrap(), &at(folder.path()), u64::MAX).unwrap();
            let before = all(&file, "before", &learner);
            learner.set(optimizer::Weights::new(before, &learner.plan.optimizer), Progress::default()).unwrap();
            for step in 0..steps {
                let parts: Vec<_> = (0..2).map(|part| whole(&mut learner, Work::Step, part)).collect();
                let sum = sum(&parts);
                if step == 0 {
                    near(&sum[..sum.len() - EXTRAS], &all(&file, "gradient", &learner), 1e-6, "gradient");
                    near(&[sum[sum.len() - EXTRAS] / 4.0], &floats(&file, "loss"), 1e-6, "loss");
                }
                let taken = learner.conclude(Work::Step, sum).unwrap();
                if clip > 0.0 {
                    near(&[taken.norm], &floats(&file, "clipped.norm"), 1e-5, "norm");
                }
            }
            near(&learner.weights.values, &all(&file, name, &learner), 1e-6, name);
        }
    }
}
