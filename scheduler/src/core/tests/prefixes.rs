//! Generations go where their prompts are cached, until that costs more than reading them elsewhere.

use orion_net::AttemptDelta;
use orion_proto::{Delta, FinishReason, Generation, GeneratorSpec, ModelPolicy, Parameters, Prompt, cluster};

use super::{
    world::{Sent, World, model},
    *,
};

/// Nanoseconds that a worker takes for a token of a prompt, and for a step.
const TOKEN: Nanos = MS / 2;
const STEP: Nanos = 10 * MS;
/// Bytes of a token of the tests' prompts.
const BYTES: usize = 4;
/// Generations that a replica runs at once.
pub(super) const PLACES: u32 = 8;

#[derive(Debug)]
struct Nobody;

impl Listener for Nobody {
    fn tell(&self, _: Delta) {}
}

fn on(workers: usize, cache_tokens: u64) -> World {
    let policy = ModelPolicy { min_replicas: 3, ..ModelPolicy::default() };
    let generator = GeneratorSpec { context_tokens: 8192, max_sequences: PLACES, cache_tokens, chat: true };
    let spec = ModelSpec { generator: Some(generator), ..model("m", 1, policy) };
    let mut world = World::new(vec![spec], &[]);
    world.curves[0] = ServiceCurve { base_seconds: 0.8, per_row_seconds: 0.0 };
    for _ in 0..workers {
        world.add(&[100], 0.0);
    }
    world
}

/// So many tokens that no prompt of another number begins with.
pub(super) fn words(number: usize, tokens: usize) -> String {
    (0..tokens).map(|at| format!("{:04}", (number * 7919 + at * 31) % 10_000)).collect()
}

/// Asks; gives the request's id.
pub(super) fn ask(world: &mut World, prompt: &str) -> u64 {
    ask_with(world, prompt, Parameters::default()).unwrap()
}

/// The same with these parameters; none if it is refused.
pub(super) fn ask_with(world: &mut World, prompt: &str, parameters: Parameters) -> Option<u64> {
    let ticket = world.sent.len() as u64 + 1;
    let prompt = Prompt::Text(prompt.to_owned());
    let prefix = Prefix::new(world.core.epoch(), &prompt);
    let generation = Generation::new(prompt);
    let (rows, bytes, deadline) = (1, generation.bytes(), None);
    let (id, generation) = (ticket.to_string(), Some(generation));
    let request = Arc::new(InferRequest { id, generation, parameters, ..InferRequest::default() });
    world.sent.insert(ticket, Sent { rows, idempotent: true, ..Sent::default() });
    let generation = Some(Opening { listener: Arc::new(Nobody), prefix });
    let admitted = Admitted { spec: world.specs[0].clone(), request, rows, bytes, deadline, generation };
    let key = world.core.submit(world.now, admitted, ticket).ok();
    let sent = world.sent.get_mut(&ticket).unwrap();
    (sent.key, sent.cancelled) = (key, key.is_none());
    world.collect();
    key.map(|_| ticket)
}

fn told(world: &World, ticket: u64) -> cluster::RequestExplanation {
    world.core.explain_request(world.now, &ticket.to_string()).unwrap()
}

/// The worker that a request was given to.
fn place(world: &World, ticket: u64) -> usize {
    world.ran.iter().rev().find(|(_, _, tickets)| tickets.contains(&ticket)).unwrap().0
}

/// Tokens of its prompt that were predicted to be cached there.
fn predicted(world: &World, ticket: u64) -> u64 {
    told(world, ticket).prompt.unwrap().cached_tokens
}

fn tokens(batch: &Batch) -> u32 {
    (batch.attempts[0].request.generation.as_ref().unwrap().bytes() / BYTES) as u32
}

/// A request's worker tells its first step, with this share of its prompt cached; the prompt takes its time.
pub(super) fn begins(world: &mut World, ticket: u64, share: f64) {
    let at = place(world, ticket);
    let batch = world.nodes[at].batches.iter().find(|batch| world::ticket(&batch.attempts[0]) == ticket).unwrap();
    let (prompt_tokens, number, epoch) = (tokens(batch), batch.batch, batch.epoch);
    let (attempt, cached_tokens) = (batch.attempts[0].attempt, (f64::from(prompt_tokens) * share) as u32);
    world.pass(Nanos::from(prompt_tokens - cached_tokens) * TOKEN + STEP);
    let delta = Delta { tokens: vec![1], prompt_tokens, cached_tokens, ..Delta::default() };
    world.core.deltas(world.now, world.nodes[at].session, epoch, vec![AttemptDelta { batch: number, attempt, delta }]);
    world.collect();
}

/// The last step of one that has begun.
pub(super) fn ends(world: &mut World, ticket: u64) {
    ends_after(world, ticket, 0.8);
}

/// The same of one that took so many seconds there.
pub(super) fn ends_after(world: &mut World, ticket: u64, service_seconds: f64) {
    let at = place(world, ticket);
    let found = world.nodes[at].batches.iter().position(|batch| world::ticket(&batch.attempts[0]) == ticket).unwrap();
    let batch = world.nodes[at].batches.remove(found).unwrap();
    let finish = Some(FinishReason::Stop);
    let last = Delta { position: 1, tokens: vec![2; 63], finish, prompt_tokens: tokens(&batch), ..Delta::default() };
    let result = answer(&batch, || Ok(InferAnswer { delta: Some(last.clone()), ..InferAnswer::default() }));
    world.pass(63 * STEP);
    world.core.result(world.now, world.nodes[at].session, BatchResult { service_seconds, ..result });
    world.collect();
    assert_eq!(world.outcome(ticket), Some(Ok(())));
}

/// A whole generation, of whose prompt this share is cached.
fn answered(world: &mut World, prompt: &str, share: f64) {
    let ticket = ask(world, prompt);
    begins(world, ticket, share);
    ends(world, ticket);
}

/// Has the second worker read a prompt that begins like this; all is idle again afterwards.
fn read_by_the_second(world: &mut World, system: &str) {
    let other = ask(world, "short");
    let read = ask(world, &format!("{system}{}", words(90, 10)));
    begins(world, read, 0.0);
    [other, read].iter().for_each(|ticket| {
        if *ticket == other {
            begins(world, other, 0.0);
        }
        ends(world, *ticket);
    });
    assert_eq!([place(world, other), place(world, read)], [0, 1]);
}

#[test]
fn a_prompt_that_begins_like_one_before_goes_where_that_is_cached() {
    let mut world = on(3, 100_000);
    let system = words(1, 800);
    read_by_the_second(&mut world, &system);
    // All are as idle, and of equals the first is taken.
    let ticket = ask(&mut world, &format!("{system}{}", words(3, 10)));
    assert_eq!(place(&world, ticket), 1);
    let said = told(&world, ticket);
    let prompt = said.prompt.unwrap();
    assert!((790..=830).contains(&prompt.tokens) && (690..=800).contains(&prompt.cached_tokens), "{prompt:?}");
    assert!((0.3..=0.41).contains(&prompt.saved_seconds), "{prompt:?}");
    assert!(said.why.contains("prompt tokens are cached there") && said.why.contains("of prefill"), "{}", said.why);
    let (chosen, next) = (said.chosen.unwrap().cost.unwrap(), said.next_best.unwrap().cost.unwrap());
    let difference = next.prefill_seconds - chosen.prefill_seconds;
    assert!((difference - prompt.saved_seconds).abs() < 1e-6 && next.total_seconds > chosen.total_seconds, "{next:?}");
}

#[test]
fn a_prompt_is_read_again_where_waiting_for_the_one_that_has_it_would_take_longer() {
    let mut world = on(2, 100_000);
    let system = words(1, 800);
    read_by_the_second(&mut world, &system);
    let tickets: Vec<u64> =
        (0..PLACES as usize + 2).map(|number| ask(&mut world, &format!("{system}{}", words(number, 10)))).collect();
    let at = tickets.iter().map(|ticket| place(&world, *ticket)).collect::<Vec<_>>();
    // Each that runs there makes the next wait a tenth of a second, and the prompt takes four.
    let stayed = at.iter().take_while(|at| **at == 1).count();
    assert!((3..=6).contains(&stayed), "{at:?}");
    for ticket in &tickets {
        let said = told(&world, *ticket);
        let total =
            |place: Option<cluster::PlaceCost>| place.and_then(|place| place.cost).map(|cost| cost.total_seconds);
        let (chosen, next) = (total(said.chosen).unwrap(), total(said.next_best).unwrap());
        assert!(chosen <= next, "request {ticket}: {chosen} s, elsewhere {next} s");
    }
    // It is read there now too.
    assert!(predicted(&world, tickets[stayed]) == 0 && at[stayed..].contains(&0), "{at:?}");
}

#[test]
fn long_prompts_that_are_still_read_make_others_go_elsewhere() {
    let mut world = on(2, 100_000);
    read_by_the_second(&mut world, &words(1, 800));
    let long = ask(&mut world, &words(2, 8000));
    let home = place(&world, long);
    for number in 3..7 {
        let short = ask(&mut world, &words(number, 20));
        assert_eq!(place(&world, short), 1 - home);
    }
    begins(&mut world, long, 0.0);
    let next = ask(&mut world, &words(9, 20));
    assert_eq!(place(&world, next), home, "it has been read");
}

#[test]
fn what_a_worker_has_evicted_is_believed_no_longer_nor_is_what_is_older() {
    let mut world = on(1, 100_000);
    let systems = [1, 2, 3].map(|number| words(number, 400));
    systems.iter().for_each(|system| answered(&mut world, system, 0.0));
    let ask_again = |world: &mut World, number: usize, share: f64| {
        let ticket = ask(world, &format!("{}{}", systems[number], words(90, 10)));
        let believed = predicted(world, ticket);
        begins(world, ticket, share);
        ends(world, ticket);
        believed
    };
    assert!(ask_again(&mut world, 2, 0.95) > 300);
    // The second is gone, so is the first; the third was used later.
    assert!(ask_again(&mut world, 1, 0.0) > 300);
    assert_eq!(ask_again(&mut world, 0, 0.0), 0);
    assert!(ask_again(&mut world, 2, 0.95) > 150);
    assert!(ask_again(&mut world, 1, 0.95) > 150, "it was read again");
}

#[test]
fn a_worker_that_keeps_nothing_is_not_believed_to() {
    let mut world = on(1, 100_000);
    let system = words(1, 400);
    (0..40).for_each(|_| answered(&mut world, &system, 0.0));
    let ticket = ask(&mut world, &system);
    assert!(predicted(&world, ticket) < 10, "{}", predicted(&world, ticket));
    begins(&mut world, ticket, 0.95);
    ends(&mut world, ticket);
    (0..40).for_each(|_| answered(&mut world, &system, 0.95));
    let ticket = ask(&mut world, &system);
    assert!(predicted(&world, ticket) > 300, "{}", predicted(&world, ticket));
}

#[test]
fn an_unloaded_copy_has_nothing_cached() {
    let mut world = on(1, 100_000);
    let system = words(1, 400);
    answered(&mut world, &system, 0.0);
    let before = ask(&mut world, &system);
    assert!(predicted(&world, before) > 300);
    begins(&mut world, before, 0.95);
    ends(&mut world, before);
    world.core.unwant(world.now, "m").unwrap();
    world.collect();
    world.core.want(world.now, &ModelName::new("m").unwrap(), "/m".into(), false);
    world.collect();
    world.pass(MS);
    let after = ask(&mut world, &system);
    let prompt = told(&world, after).prompt.unwrap();
    assert_eq!((prompt.cached_tokens, prompt.saved_seconds), (0, 0.0));
}

#[test]
fn tokens_and_their_time_are_learned() {
    let mut world = on(1, 100_000);
    let before = told_of(&mut world, 0);
    assert_eq!(before.0, 0.0, "nothing is assumed of the time");
    for number in 1..12 {
        answered(&mut world, &words(number, 200 * (1 + number % 3)), 0.0);
    }
    let (prefill, tokens) = told_of(&mut world, 50);
    assert!((tokens / 500.0 - 1.0).abs() < 0.02, "{tokens} tokens");
    assert!((prefill / 0.25 - 1.0).abs() < 0.1, "{prefill} s of prefill");
    // Another worker has told nothing: what the first has stands for it.
    world.add(&[100], 0.0);
    let ticket = ask(&mut world, &words(51, 500));
    let said = told(&world, ticket);
    assert_eq!(place(&world, ticket), 1, "the first reads another");
    let prefill = said.chosen.unwrap().cost.unwrap().prefill_seconds;
    assert!((prefill / 0.25 - 1.0).abs() < 0.2, "{prefill} s of prefill");
}

/// Predicted prefill of a prompt of 500 tokens, and its tokens.
fn told_of(world: &mut World, number: usize) -> (f64, f64) {
    let ticket = ask(world, &words(number, 500));
    let said = told(world, ticket);
    let told = (said.chosen.unwrap().cost.unwrap().prefill_seconds, said.prompt.unwrap().tokens as f64);
    if number == 0 {
        begins(world, ticket, 0.0);
        ends(world, ticket);
    }
    told
}

#[test]
fn what_is_remembered_keeps_to_the_cache_and_to_a_bound() {
    let held = |world: &World| world.core.replicas[world.core.models[1].replicas[0]].prompts.cache.size();
    for (cache_tokens, most) in [(3000, 3000), (1 << 40, 1 << 40)] {
        let mut world = on(1, cache_tokens);
        (0..600).for_each(|number| answered(&mut world, &words(number, 800), 0.0));
        let (chunks, tokens) = held(&world);
        assert!(tokens <= most && chunks <= 8192, "{chunks} chunks, {tokens} tokens");
        assert!(chunks > 10 && tokens > 1500, "{chunks} chunks, {tokens} tokens");
        let (newest, oldest) = (ask(&mut world, &words(599, 800)), ask(&mut world, &words(0, 800)));
        assert!(predicted(&world, newest) > 600 && predicted(&world, oldest) == 0);
    }
}

#[test]
fn a_generation_that_is_lost_is_read_elsewhere_and_the_wait_for_it_ends() {
    let mut world = on(2, 100_000);
    let system = words(1, 800);
    read_by_the_second(&mut world, &system);
    let ticket = ask(&mut world, &format!("{system}{}", words(3, 10)));
    assert_eq!(place(&world, ticket), 1);
    world.core.suspect(world.now, world.nodes[1].session, "silent", 350 * MS, true);
    world.collect();
    assert_eq!((place(&world, ticket), predicted(&world, ticket)), (0, 0));
    begins(&mut world, ticket, 0.0);
    ends(&mut world, ticket);
}

#[test]
fn the_same_requests_go_the_same_ways() {
    let ways = || {
        let mut world = on(3, 2000);
        for number in 0..60 {
            let ticket = ask(&mut world, &words(number % 7, 100 + 40 * (number % 5)));
            if number % 3 > 0 {
                begins(&mut world, ticket, if number > 20 { 0.5 } else { 0.0 });
                ends(&mut world, ticket);
            }
        }
        world.ran
    };
    assert_eq!(ways(), ways());
}

#[test]
fn what_only_a_drained_node_can_generate_is_generated_there() {
    let mut world = on(1, 0);
    let tickets: Vec<u64> = (0..2 * u64::from(PLACES)).map(|at| ask(&mut world, &words(at as usize, 8))).collect();
    world.core.cordon(world.now, "w0", Cordon::Draining).unwrap();
    world.collect();
    for ticket in tickets {
        begins(&mut world, ticket, 0.0);
        ends(&mut world, ticket);
    }
}

#[test]
fn reading_a_long_prompt_says_nothing_of_steps() {
    let mut world = on(1, 100_000);
    // What a generation of the usual length takes, by the curve, before and after.
    let usual = |world: &World| world.core.replicas.iter().next().unwrap().1.curve().line().predict(1);
    let before = usual(&world);
    for number in 0..6 {
        let long = ask(&mut world, &words(number, 4000));
        begins(&mut world, long, 0.0);
        let at = place(&world, long);
        let batch = world.nodes[at].batches.back().unwrap().clone();
        let (session, attempt, epoch) = (world.nodes[at].session, batch.attempts[0].attempt, batch.epoch);
        // Another's prompt is read in the middle.
        let mut other = None;
        for position in 1..40 {
            if position == 20 {
                other = Some(ask(&mut world, &words(number + 50, 2000)));
            }
            if position == 21 {
                begins(&mut world, other.unwrap(), 0.0);
            }
            world.pass(STEP);
            let delta = Delta { tokens: vec![1], position, ..Delta::default() };
            world.core.deltas(world.now, session, epoch, vec![AttemptDelta { batch: batch.batch, attempt, delta }]);
            world.collect();
        }
        let position = world.nodes[at].batches.iter().position(|one| one.batch == batch.batch).unwrap();
        world.nodes[at].batches.remove(position);
        let last = Delta { position: 40, tokens: vec![2], finish: Some(FinishReason::Stop), ..Delta::default() };
        let result = answer(&batch, || Ok(InferAnswer { delta: Some(last.clone()), ..InferAnswer::default() }));
        world.core.result(world.now, session, BatchResult { service_seconds: 3.4, ..result });
        world.collect();
        ends(&mut world, other.unwrap());
    }
    let after = usual(&world);
    let seen = 41 * STEP;
    assert!(after.abs_diff(seen) < seen / 10, "a generation takes {after} ns, before {before}, its steps {seen}");
}
