//! Replicas that take steps alone, and workers that keep their examples.

use super::*;

fn in_rounds(rounds: &str, training: &str) -> Plan {
    let text = format!(
        r#"{{"name": "m", "model": {{"kind": "cnn", "channels": [4, 6], "hidden": [16], "dropout": 0.1}},
        "data": {{"train": "d", "classes": 4}}, "training": {{"batch": 16, "micro_batch": 8, "seed": 3{training}}},
        "optimizer": {{"kind": "adamw", "learning_rate": 0.01}}, {rounds}}}"#
    );
    Plan::from_json(&text).unwrap()
}

const LOCAL: &str = r#""local": {"steps": 7, "replicas": 3}"#;

#[test]
fn replicas_learn_and_go_on_from_a_state_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 640);
    let open = || Learner::open(in_rounds(LOCAL, r#", "epochs": 3"#), &at(folder.path()), u64::MAX).unwrap();
    let mut learner = open();
    // 640 examples, 48 of them a step of all.
    assert_eq!((learner.steps(), learner.parts(Work::Step)), (40, 3));
    let (mut middle, mut steps, mut looks, mut kept) = (None, vec![], vec![], vec![]);
    run(&mut learner, |learner, taken| {
        let step = learner.progress().step;
        match taken.work {
            Work::Step => steps.push((step, taken.examples)),
            Work::Evaluation => looks.push(step),
        }
        if learner.checkpoint_due() {
            kept.push(step);
        }
        if step == 14 {
            middle = Some(learner.state().unwrap());
        }
    });
    let whole_round = 7 * 16 * 3;
    assert_eq!(steps[..2], [(7, whole_round), (14, whole_round)]);
    assert_eq!(steps.last(), Some(&(40, 5 * 16 * 3)));
    // Where an epoch's end was passed, of 14 steps, and at the end.
    assert_eq!((looks.as_slice(), kept.as_slice()), (&[14, 28, 40][..], &[14, 28, 40][..]));
    assert!(learner.progress().test.unwrap().accuracy > 0.95, "{:?}", learner.progress());
    let mut other = open();
    other.restore(&middle.unwrap()).unwrap();
    // What a replica has done of a round that is not finished is of no consequence.
    assert!(other.advance(Work::Step, 2).unwrap().is_none());
    other.together(2);
    run(&mut other, |_, _| {});
    assert!(other.state().unwrap() == learner.state().unwrap());
}

#[test]
fn a_replica_that_is_done_is_not_run_again_in_its_round() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 64);
    let plan = in_rounds(LOCAL, r#", "steps": 7"#);
    let mut learner = Learner::open(plan, &at(folder.path()), u64::MAX).unwrap();
    let first = whole(&mut learner, Work::Step, 1);
    assert_eq!(learner.advance(Work::Step, 1).unwrap(), Some(first.clone()));
    assert_ne!(whole(&mut learner, Work::Step, 2), first);
}

#[test]
fn each_worker_learns_from_its_own_and_weighs_what_it_has() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    made(folders[0].path(), 640);
    made(folders[1].path(), 160);
    let open = |folder: &Path, rounds: &str| {
        let mut learner = Learner::open(in_rounds(rounds, r#", "steps": 40"#), &at(folder), u64::MAX).unwrap();
        learner.together(2);
        learner
    };
    let plain = r#""federated": {"local_steps": 4}"#;
    let mut learners = folders.each_ref().map(|folder| open(folder.path(), plain));
    assert_eq!(learners[0].data(), learners[1].data());
    assert_eq!(learners[0].bound().unwrap(), [0..1, 1..2]);
    let mut weights = Vec::new();
    while let Some(work) = learners[0].next() {
        let parts: Vec<_> = (0..2).map(|rank| whole(&mut learners[rank], work, rank)).collect();
        if work == Work::Step {
            weights = parts.iter().map(|numbers| numbers[numbers.len() - 1]).collect();
        }
        for learner in &mut learners {
            learner.conclude(work, sum(&parts)).unwrap();
        }
    }
    assert_eq!(weights, [640.0, 160.0]);
    assert!(learners[0].state().unwrap() == learners[1].state().unwrap());
    let seen = learners[0].progress().test.unwrap();
    assert!(seen.accuracy > 0.95 && learners[0].progress().epsilon.is_none(), "{seen:?}");
}

#[test]
fn one_whose_loss_is_no_number_weighs_nothing_and_all_of_them_end_it() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 64);
    let plan = in_rounds(r#""federated": {"local_steps": 4}"#, r#", "steps": 8"#);
    let mut learner = Learner::open(plan, &at(folder.path()), u64::MAX).unwrap();
    learner.together(2);
    let sound = whole(&mut learner, Work::Step, 0);
    let before = learner.identity();
    let lost = alone::hand_out(&vec![f32::NAN; sound.len()], learner.plan.federated.as_ref().unwrap(), 64, 2);
    assert!(lost.iter().all(|value| *value == 0.0));
    learner.conclude(Work::Step, sum(&[sound, lost.clone()])).unwrap();
    assert!(learner.weights.values.iter().all(|value| value.is_finite()) && learner.identity() != before);
    let refused = learner.conclude(Work::Step, sum(&[lost.clone(), lost])).unwrap_err();
    assert!(refused.message.contains("no number on any worker"), "{refused}");
}

#[test]
fn what_is_handed_out_is_short_and_noise_has_its_size() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), 64);
    let handed = |rounds: &str, members: usize| {
        let plan = in_rounds(rounds, r#", "steps": 4"#);
        let mut learner = Learner::open(plan, &at(folder.path()), u64::MAX).unwrap();
        learner.together(members);
        let mut numbers = whole(&mut learner, Work::Step, 0);
        let again = whole(&mut learner, Work::Step, 0);
        let extras = numbers.split_off(numbers.len() - EXTRAS);
        let length = numbers.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        (length, numbers, extras, again)
    };
    let (length, short, extras, _) = handed(r#""federated": {"local_steps": 4, "clip_norm": 0.01}"#, 1);
    // Weighed by its 64 examples.
    assert!((length / 64.0 - 0.01).abs() < 1e-4 && extras[0] > 0.0, "{length} {extras:?}");
    let (_, noisy, extras, again) = handed(r#""federated": {"local_steps": 4, "clip_norm": 0.01, "noise": 50}"#, 4);
    let noise: Vec<f64> = noisy.iter().zip(&short).map(|(noisy, short)| f64::from(noisy - short / 64.0)).collect();
    let deviation = (noise.iter().map(|value| value * value).sum::<f64>() / noise.len() as f64).sqrt();
    // 50 lengths of 0.01, of four workers one's share: half. Of 700 numbers and more, 20 % is seven deviations.
    assert!(noise.len() > 700 && (deviation / 0.25 - 1.0).abs() < 0.2, "{deviation} of {}", noise.len());
    // Neither its loss nor how many are right is told, and it weighs as any other; it is drawn anew each time.
    assert_eq!((extras[0], extras[1], extras[3]), (0.0, 0.0, 1.0));
    assert_ne!(again[..noisy.len()], noisy[..]);
}
