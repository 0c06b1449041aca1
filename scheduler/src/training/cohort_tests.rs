use super::*;
use orion_proto::session::Gathered;

fn candidates(names: &str) -> Vec<Candidate> {
    let one = |name: &str| Candidate { name: name.into(), address: format!("{name}:1"), session: 1, ready: true };
    names.split_whitespace().map(one).collect()
}

fn cohort(least: usize) -> Cohort {
    Cohort::new(Terms { job: 7, base: 100, least, most: 3, ..Terms::default() })
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn report(generation: u64, report: Report) -> TrainingReport {
    TrainingReport { job: 7, generation, report: Some(report) }
}

fn ready(generation: u64, round: u64) -> TrainingReport {
    with(generation, round, "mnist")
}

fn with(generation: u64, round: u64, data: &'static str) -> TrainingReport {
    report(generation, Report::Gathered(Gathered { round, data: data.into(), ..Gathered::default() }))
}

/// All say how far they are; who is told to go, the source and those behind.
fn gathered(cohort: &mut Cohort, now: u64, generation: u64, rounds: &[(&str, u64)]) -> (usize, u32, Vec<u32>) {
    let mut told = Vec::new();
    for (name, round) in rounds {
        assert!(told.is_empty(), "all were told before {name} was ready");
        let said = ready(generation, *round);
        told = cohort.heard(at(now), name, said).unwrap();
    }
    let Some((_, TrainingOrder { order: Some(training_order::Order::Go(go)), .. })) = told.first() else {
        panic!("{told:?}")
    };
    (told.len(), go.source, go.behind.clone())
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn who_is_as_far_and_yet_unlike_goes_on_from_one_of_them() {
    let mut cohort = cohort(3);
    cohort.look(at(0), &candidates("a b c")).unwrap();
    let mut told = Vec::new();
    for (name, state) in [("a", "one"), ("b", "other"), ("c", "one")] {
        let said = Gathered { round: 9, data: "mnist".into(), state: state.into() };
        told = cohort.heard(at(0), name, report(101, Report::Gathered(said))).unwrap();
    }
    let Some(training_order::Order::Go(go)) = told[0].1.order.clone() else { panic!("{told:?}") };
    assert_eq!((go.source, go.behind), (0, vec![1]));
}

#[test]
fn it_goes_on_from_whoever_is_furthest_when_workers_come_and_die() {
    let mut cohort = cohort(2);
    assert!(cohort.look(at(0), &candidates("a")).unwrap().is_empty());
    assert!(cohort.waits().unwrap().contains("2 workers"));
    assert_eq!(names(&cohort.look(at(1), &candidates("a b")).unwrap()), ["a", "b"]);
    assert!(cohort.waits().unwrap().contains("a, b"));
    assert_eq!(gathered(&mut cohort, 1, 101, &[("a", 0), ("b", 0)]), (2, 0, vec![]));
    // One that comes is taken in a little later, and is behind.
    assert!(cohort.look(at(2), &candidates("a b c")).unwrap().is_empty());
    assert_eq!(names(&cohort.look(at(3), &candidates("c b a")).unwrap()), ["b", "a", "c"]);
    assert_eq!(gathered(&mut cohort, 3, 102, &[("c", 0), ("a", 6), ("b", 5)]), (3, 1, vec![0, 2]));
    // One dies; no more than three take part.
    assert_eq!(names(&cohort.look(at(4), &candidates("b c d e")).unwrap()), ["b", "c", "d"]);
    // What was said of an earlier generation does not count.
    assert!(cohort.heard(at(4), "b", ready(102, 9)).unwrap().is_empty());
    assert_eq!(gathered(&mut cohort, 4, 103, &[("b", 7), ("c", 7), ("d", 0)]), (3, 0, vec![2]));
    assert_eq!(names(&cohort.end(false)), ["a", "b", "c", "d"]);
    // Too few are left: they are told to stop, and go on later.
    let told = cohort.look(at(5), &candidates("c")).unwrap();
    assert_eq!(names(&told), ["b", "c", "d"]);
    assert!(matches!(told[1].1.order, Some(training_order::Order::Pause(_))), "{told:?}");
    assert!(cohort.look(at(5), &candidates("c")).unwrap().is_empty());
    assert!(cohort.waits().unwrap().contains("2 workers"));
    assert_eq!(names(&cohort.look(at(6), &candidates("c d")).unwrap()), ["c", "d"]);
}

#[test]
fn what_breaks_is_tried_again_after_a_pause_and_not_for_ever() {
    let mut cohort = cohort(1);
    let mut generation = 101;
    let mut now = 0;
    loop {
        match cohort.look(at(now), &candidates("a b")) {
            Ok(told) => assert_eq!(told.len(), 2),
            Err(error) => break assert_eq!(error.code, Code::Unavailable),
        }
        gathered(&mut cohort, now, generation, &[("a", 3), ("b", 3)]);
        let fault = TrainingFault { code: "UNAVAILABLE".into(), message: "cut".into() };
        cohort.heard(at(now), "a", report(generation, Report::Broken(fault))).unwrap();
        assert!(cohort.look(at(now), &candidates("a b")).unwrap().is_empty());
        (generation, now) = (generation + 1, now + 10);
        assert!(generation < 200);
    }
    assert_eq!(generation - 101, 31);
}

#[test]
fn who_holds_the_state_is_found_among_more_than_take_part() {
    let mut cohort = cohort(1);
    assert_eq!(cohort.look(at(0), &candidates("a b c d e")).unwrap().len(), 5);
    let mut told = Vec::new();
    for (name, round) in [("a", 0), ("b", 0), ("c", 4), ("d", 0), ("e", 9)] {
        told = cohort.heard(at(0), name, ready(101, round)).unwrap();
    }
    assert_eq!(names(&told), ["e", "c", "a"]);
    assert_eq!(gathered(&mut cohort, 0, 102, &[("a", 0), ("c", 4), ("e", 9)]), (3, 0, vec![1, 2]));
}

#[test]
fn who_is_never_ready_holds_nobody_up() {
    let mut cohort = cohort(1);
    cohort.look(at(0), &candidates("a b")).unwrap();
    assert!(cohort.heard(at(1), "a", ready(101, 0)).unwrap().is_empty());
    assert!(cohort.look(at(59), &candidates("a b")).unwrap().is_empty());
    assert_eq!(names(&cohort.look(at(60), &candidates("a b")).unwrap()), ["a"]);
    assert_eq!(gathered(&mut cohort, 60, 102, &[("a", 0)]), (1, 0, vec![]));
}

#[test]
fn who_cannot_is_left_out_unless_it_is_all() {
    let mut cohort = cohort(1);
    cohort.look(at(0), &candidates("a b")).unwrap();
    let fault = TrainingFault { code: "NOT_FOUND".into(), message: "no such file".into() };
    cohort.heard(at(0), "a", report(101, Report::Failed(fault.clone()))).unwrap();
    assert_eq!(names(&cohort.look(at(0), &candidates("a b")).unwrap()), ["b"]);
    let error = cohort.heard(at(0), "b", report(102, Report::Failed(fault.clone()))).unwrap_err();
    assert!(error.code == Code::NotFound && error.message.contains("'b': no such file"), "{error}");
    // One whose address nobody knows trains alone.
    let mut alone = candidates("a");
    alone[0].address.clear();
    let mut cohort = self::cohort(1);
    assert_eq!(cohort.look(at(0), &alone).unwrap().len(), 1);
    // What goes wrong in a step would go wrong everywhere.
    gathered(&mut cohort, 0, 101, &[("a", 0)]);
    let fault = TrainingFault { code: "FAILED_PRECONDITION".into(), message: "the loss is NaN".into() };
    assert!(cohort.heard(at(0), "a", report(101, Report::Failed(fault))).is_err());
}

#[test]
fn what_one_lacks_in_the_middle_of_the_work_does_not_stop_the_others() {
    let mut cohort = cohort(1);
    cohort.look(at(0), &candidates("a b")).unwrap();
    gathered(&mut cohort, 0, 101, &[("a", 0), ("b", 0)]);
    let fault = TrainingFault { code: "INTERNAL".into(), message: "disk full".into() };
    assert!(cohort.heard(at(0), "b", report(101, Report::Failed(fault))).unwrap().is_empty());
    assert_eq!(names(&cohort.look(at(1), &candidates("a b")).unwrap()), ["a"]);
    gathered(&mut cohort, 1, 102, &[("a", 3)]);
    assert!(cohort.look(at(9), &candidates("a b")).unwrap().is_empty());
    // Started anew, it may be able to.
    let mut anew = candidates("a b");
    anew[1].session = 2;
    assert_eq!(names(&cohort.look(at(9), &anew).unwrap()), ["a", "b"]);
}

#[test]
fn all_learn_from_the_same_examples() {
    // Of what most have; whoever is furthest decides where some have begun.
    for (rounds, left) in [([0, 0, 0], vec!["b", "c"]), ([4, 3, 3], vec!["a"])] {
        let mut cohort = cohort(1);
        cohort.look(at(0), &candidates("a b c")).unwrap();
        for ((name, data), round) in [("a", "other"), ("b", "mnist"), ("c", "mnist")].into_iter().zip(rounds) {
            assert!(cohort.heard(at(0), name, with(101, round, data)).unwrap().is_empty());
        }
        let told = cohort.look(at(0), &candidates("a b c")).unwrap();
        assert_eq!(names(&told), left);
    }
}

#[test]
fn it_is_done_when_all_that_are_here_have_the_result() {
    let mut cohort = cohort(1);
    let here = candidates("a b c");
    cohort.look(at(0), &here).unwrap();
    gathered(&mut cohort, 0, 101, &[("a", 0), ("b", 0), ("c", 0)]);
    let trained = || report(101, Report::Trained(Trained { path: "store:m@1".into(), progress: None }));
    cohort.heard(at(1), "b", trained()).unwrap();
    // Nobody is gathered any more, whoever dies.
    assert!(cohort.look(at(1), &candidates("b c")).unwrap().is_empty());
    assert_eq!(cohort.trained(at(1), &here), None);
    let fault = TrainingFault { code: "INTERNAL".into(), message: "disk full".into() };
    cohort.heard(at(1), "c", report(101, Report::Failed(fault))).unwrap();
    assert_eq!(cohort.trained(at(1), &here), None);
    assert!(cohort.trained(at(1), &candidates("b c")).is_some());
    assert!(cohort.trained(at(61), &here).is_some());
    cohort.heard(at(2), "a", trained()).unwrap();
    assert!(cohort.trained(at(2), &here).is_some());
}
