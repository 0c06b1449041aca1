//! How workers are asked what models are.

use std::collections::VecDeque;

use super::*;

/// A question: by which link, about which model, under which order.
type Question = (u64, Arc<str>, u64);

fn questions(core: &mut TestCore) -> Vec<Question> {
    let question = |command| match command {
        Command::Inspect { link, name, order, .. } => Some((link, name, order)),
        _ => None,
    };
    core.take_commands().into_iter().filter_map(question).collect()
}

fn answer_question(core: &mut TestCore, session: u64, (_, name, order): &Question, readable: bool) {
    let report = Report {
        name: name.clone(),
        device: if readable { "cpu0".into() } else { String::new() },
        state: if readable { ModelState::Cold } else { ModelState::Failed },
        error: "no such file".into(),
        progress: 0.0,
        spec: readable.then(|| ModelSpec { name: ModelName::new(&**name).unwrap(), ..spec() }),
        curve: ServiceCurve::default(),
        order: *order,
        load_seconds: 0.0,
        peak_bytes: 0,
    };
    core.report(0, session, report);
}

fn core_of(models: usize) -> TestCore {
    let mut core = TestCore::new(7, Limits::default());
    (0..models).for_each(|at| core.want(0, &ModelName::new(format!("m{at}")).unwrap(), format!("/m{at}"), false));
    core
}

fn join(core: &mut TestCore, name: &str, link: u64) -> u64 {
    let joined = core.join(0, hello(name, 1), "grpc", link).unwrap();
    core.start(0, joined.session);
    joined.session
}

fn unread(core: &TestCore) -> usize {
    core.models.iter().filter(|model| !model.built_in && model.spec.is_none()).count()
}

#[test]
fn a_worker_is_asked_about_many_models_a_few_at_a_time() {
    let mut core = core_of(3000);
    let session = join(&mut core, "a", 0);
    let mut open: VecDeque<Question> = questions(&mut core).into();
    let mut asked = open.len();
    while let Some(question) = open.pop_front() {
        assert!(open.len() < 64, "{} are open", open.len() + 1);
        answer_question(&mut core, session, &question, true);
        let more = questions(&mut core);
        asked += more.len();
        open.extend(more);
    }
    assert_eq!((unread(&core), asked), (0, 3000));
}

#[test]
fn what_one_cannot_read_or_a_lost_one_was_asked_others_are_asked() {
    let mut core = core_of(200);
    let sessions = [join(&mut core, "a", 0), join(&mut core, "b", 1)];
    let mut open: VecDeque<Question> = questions(&mut core).into();
    // One answers nothing until it is lost, the other reads every second model.
    let mut answered = 0;
    while let Some(question) = open.pop_front() {
        if question.0 == 1 {
            let readable = answered % 2 == 0;
            answered += 1;
            answer_question(&mut core, sessions[1], &question, readable);
            open.extend(questions(&mut core));
        }
    }
    assert_eq!((answered, unread(&core)), (200, 100));
    core.suspect(0, sessions[0], "reset", 0, true);
    core.tick(MS);
    assert_eq!(core.workers[0].questions, 0);
    let session = join(&mut core, "c", 2);
    open.extend(questions(&mut core));
    while let Some(question) = open.pop_front() {
        assert_eq!(question.0, 2);
        answer_question(&mut core, session, &question, true);
        open.extend(questions(&mut core));
    }
    assert_eq!(unread(&core), 0);
}

#[test]
fn a_session_that_comes_back_is_asked_again() {
    let mut core = core_of(200);
    let session = join(&mut core, "a", 0);
    let first = questions(&mut core);
    core.suspect(0, session, "reset", 300 * MS, true);
    join(&mut core, "a", 1);
    let again = questions(&mut core);
    assert_eq!((first.len(), again.len(), core.workers[0].questions), (64, 64, 64));
}
