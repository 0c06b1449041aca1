//! The engine on a tiny model: what a sequence answers depends on nothing but its generation.

use std::collections::HashMap;

use orion_proto::{Code, Delta, FinishReason, Format, Generation, ModelName, Priority, Prompt, Sampling};
use proptest::prelude::*;

use super::{generator::LanguageModel, schedule::Schedule};
use crate::{Generator, GeneratorLoad, inspect, tiny_llama};

mod allocation;
mod fetched;
mod gguf_model;
mod priorities;
mod reference;
mod structured;

/// The tiny model with this `orion.toml`.
fn model(settings: &str) -> LanguageModel {
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path()).unwrap();
    loaded(folder.path(), settings)
}

fn loaded(folder: &std::path::Path, settings: &str) -> LanguageModel {
    std::fs::write(folder.join("orion.toml"), format!("[generation]\n{settings}")).unwrap();
    let manifest = inspect(&ModelName::new("tiny").unwrap(), folder).unwrap();
    let crate::Family::Generation(source) = &manifest.family else { panic!("a language model") };
    source.load(manifest.spec.clone(), &|_| {}).unwrap()
}

/// A generation that is drawn, with a prompt of so many tokens.
fn drawn(seed: u64, prompt: usize, max_tokens: u32) -> Generation {
    let tokens = (0..prompt as u32).map(|at| (seed as u32 * 37 + at * 11) % 280 + 3).collect();
    Generation {
        max_tokens: Some(max_tokens),
        sampling: Sampling { temperature: 1.0, top_p: 0.95, seed, ..Sampling::default() },
        logprobs: Some(3),
        ignore_end: true,
        ..Generation::new(Prompt::Tokens(tokens))
    }
}

/// What a generation gave.
#[derive(Clone, Debug, Default, PartialEq)]
struct Given {
    tokens: Vec<u32>,
    text: String,
    /// Of each token and its alternatives, the number and the bits of the logarithm.
    logprobs: Vec<Vec<(u32, u32)>>,
    finish: Option<FinishReason>,
    cached: u32,
}

impl Given {
    fn take(&mut self, delta: Delta) {
        assert_eq!(self.finish, None, "nothing follows the end");
        self.tokens.extend(&delta.tokens);
        self.text.push_str(&delta.text);
        let bits =
            |token: &Vec<orion_proto::TokenProbability>| token.iter().map(|t| (t.token, t.logprob.to_bits())).collect();
        self.logprobs.extend(delta.logprobs.iter().map(bits));
        (self.finish, self.cached) = (delta.finish, delta.cached_tokens);
    }

    /// But for what the cache held.
    fn same(&self, other: &Self) -> bool {
        Self { cached: 0, ..self.clone() } == Self { cached: 0, ..other.clone() }
    }
}

/// Steps until all have ended; what each gave.
fn run(model: &mut LanguageModel) -> HashMap<u64, Given> {
    let mut given: HashMap<u64, Given> = HashMap::new();
    for _ in 0..100_000 {
        if model.load().running + model.load().waiting == 0 {
            return given;
        }
        for (id, delta) in model.step() {
            let given = given.entry(id).or_default();
            let delta = delta.unwrap();
            assert_eq!(delta.position as usize, given.tokens.len(), "one after the other");
            given.take(delta);
        }
    }
    panic!("the sequences do not end");
}

fn alone(model: &mut LanguageModel, generation: &Generation) -> Given {
    model.add(0, Priority::Normal, generation).unwrap();
    run(model).remove(&0).unwrap()
}

/// Every block is free or kept.
fn check_idle(model: &LanguageModel) {
    let blocks = &model.schedule.blocks;
    let GeneratorLoad { kept_tokens, kept_bytes, cache_bytes, .. } = model.load();
    let load = GeneratorLoad { kept_tokens, kept_bytes, cache_bytes, ..GeneratorLoad::default() };
    assert_eq!((model.load(), blocks.available()), (load, blocks.total()));
}

#[test]
fn company_chunks_and_threads_change_no_bit() {
    let probe = drawn(1, 70, 30);
    let want = alone(&mut model("prefix_cache = false"), &probe);
    assert_eq!((want.tokens.len(), want.finish), (30, Some(FinishReason::Length)));
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = model("max_sequences = 17");
            for other in 1..=16 {
                model.add(other, Priority::Normal, &drawn(other + 1, 5 + 9 * other as usize, 20)).unwrap();
            }
            // In the middle of what the others do.
            for _ in 0..5 {
                model.step();
            }
            model.add(0, Priority::Normal, &probe).unwrap();
            let mut got = Given::default();
            while got.finish.is_none() {
                model.step().into_iter().filter(|(id, _)| *id == 0).for_each(|(_, delta)| got.take(delta.unwrap()));
            }
            assert!(got.same(&want), "{threads} threads: {got:?}, not {want:?}");
        });
    }
    for step_tokens in [1, 7, 16, 33, 64] {
        let mut model = model("prefix_cache = false");
        model.schedule.limits.step_tokens = step_tokens;
        assert!(alone(&mut model, &probe).same(&want), "steps of {step_tokens}");
    }
}

#[test]
fn every_cut_goes_on_as_the_unbroken_run() {
    let mut model = model("");
    for (seed, max_tokens) in [(3, 60), (4, 33)] {
        let plain = Generation { ignore_end: false, ..drawn(seed, 9, max_tokens) };
        let unstopped = alone(&mut model, &plain);
        // A stop string from the middle of its text, across tokens; and one that nearly comes.
        let text: Vec<char> = unstopped.text.chars().collect();
        let middle: String = text[text.len() / 2..text.len() / 2 + 4].iter().collect();
        let nearly: String = text[text.len() / 3..text.len() / 3 + 3].iter().chain(&['\u{7f}', 'q']).collect();
        assert!(
            text.contains(&char::REPLACEMENT_CHARACTER) && unstopped.text.len() > text.len(),
            "several bytes a character"
        );
        for stop in [vec![], vec![middle, nearly]] {
            let whole = Generation { stop, ..plain.clone() };
            let mut deltas = Vec::new();
            model.add(1, Priority::Normal, &whole).unwrap();
            while deltas.last().is_none_or(|delta: &Delta| delta.finish.is_none()) {
                deltas.extend(model.step().into_iter().map(|(_, delta)| delta.unwrap()));
            }
            let mut want = Given::default();
            deltas.iter().cloned().for_each(|delta| want.take(delta));
            assert_eq!(want.finish == Some(FinishReason::Stop), !whole.stop.is_empty());
            for cut in 0..deltas.len() {
                let mut got = Given::default();
                deltas[..cut].iter().cloned().for_each(|delta| got.take(delta));
                let rest = Generation { resume: got.tokens.clone(), ..whole.clone() };
                model.add(2, Priority::Normal, &rest).unwrap();
                while got.finish.is_none() {
                    for (_, delta) in model.step() {
                        let delta = delta.unwrap();
                        assert_eq!((delta.position as usize, delta.prompt_tokens), (got.tokens.len(), 9));
                        got.take(delta);
                    }
                }
                assert!(got.same(&want), "cut at {cut}: {got:?}, not {want:?}");
            }
        }
    }
    check_idle(&model);
}

#[test]
fn a_resumed_generation_that_had_ended_ends_without_a_token() {
    let mut model = model("");
    let whole = Generation { ignore_end: false, ..drawn(3, 9, 20) };
    let given = alone(&mut model, &whole);
    model.add(1, Priority::Normal, &Generation { resume: given.tokens, ..whole }).unwrap();
    let last = Delta { position: 20, finish: given.finish, prompt_tokens: 9, ..Delta::default() };
    assert_eq!(model.step(), [(1, Ok(last))]);
}

#[test]
fn prompts_that_begin_alike_are_computed_once_and_answered_the_same() {
    let (mut cached, mut plain) = (model(""), model("prefix_cache = false"));
    let first = drawn(5, 100, 10);
    let mut second = first.clone();
    if let Prompt::Tokens(tokens) = &mut second.prompt {
        tokens.truncate(90);
        tokens.extend([7, 8, 9]);
    }
    second.sampling.seed = 9;
    for (generation, found) in [(&first, 0), (&second, 80), (&first, 96), (&second, 80)] {
        let (got, want) = (alone(&mut cached, generation), alone(&mut plain, generation));
        assert!(got.same(&want), "{got:?}, not {want:?}");
        assert_eq!((got.cached, want.cached), (found, 0));
    }
    // The answer's blocks are kept too.
    let mut longer = first.clone();
    if let Prompt::Tokens(tokens) = &mut longer.prompt {
        tokens.extend(alone(&mut plain, &first).tokens);
        tokens.extend([3; 10]);
    }
    assert_eq!(alone(&mut cached, &longer).cached, 96);
    check_idle(&cached);
    check_idle(&plain);
}

#[test]
fn sequences_that_lose_their_blocks_answer_the_same() {
    for settings in ["cache_tokens = 160", "cache_tokens = 160\nprefix_cache = false"] {
        let mut roomy = model("");
        let mut tight = model(settings);
        let generations: Vec<Generation> = (0..6).map(|seed| drawn(seed, 20 + 7 * seed as usize, 70)).collect();
        for (id, generation) in (0..).zip(&generations) {
            tight.add(id, if id == 5 { Priority::Realtime } else { Priority::Normal }, generation).unwrap();
        }
        let mut preempted = false;
        let mut given: HashMap<u64, Given> = HashMap::new();
        let mut order = Vec::new();
        while tight.load().running + tight.load().waiting > 0 {
            let running = tight.load().running;
            for (id, delta) in tight.step() {
                let delta = delta.unwrap();
                order.extend(delta.finish.map(|_| id));
                given.entry(id).or_default().take(delta);
            }
            preempted |= tight.load().running < running && tight.load().waiting > 0;
        }
        assert!(preempted, "the cache is too small for all");
        assert_eq!(order.first(), Some(&5), "the most urgent is never the one that loses");
        for (id, generation) in (0..).zip(&generations) {
            assert!(given[&id].same(&alone(&mut roomy, generation)), "sequence {id}");
        }
        check_idle(&tight);
    }
}

#[test]
fn a_cancelled_sequence_gives_its_blocks_back() {
    let mut model = model("max_sequences = 2\nprefix_cache = false");
    for id in 0..4 {
        model.add(id, Priority::Normal, &drawn(id, 40, 50)).unwrap();
    }
    model.step();
    assert_eq!((model.load().running, model.load().waiting), (2, 2));
    assert!(model.load().held_tokens > 0 && model.schedule.blocks.available() < model.schedule.blocks.total());
    // One that runs, one that waits, one that is unknown.
    [0, 2, 77].into_iter().for_each(|id| model.cancel(id));
    assert_eq!(run(&mut model).into_keys().collect::<std::collections::BTreeSet<_>>(), [1, 3].into());
    check_idle(&model);
}

#[test]
fn what_can_never_run_is_refused_with_its_figures() {
    let mut model = model("context_tokens = 50");
    let spoilt = |spoil: fn(&mut Generation)| {
        let mut generation = drawn(1, 20, 30);
        spoil(&mut generation);
        generation
    };
    let cases: [(Generation, &str); 9] = [
        (spoilt(|g| g.max_tokens = Some(31)), "20 tokens and 31 are to be generated, the model holds 50"),
        (spoilt(|g| g.prompt = Prompt::Tokens(vec![5; 50])), "50 tokens and 30 are"),
        (spoilt(|g| g.prompt = Prompt::Tokens(vec![])), "no tokens"),
        (spoilt(|g| g.prompt = Prompt::Tokens(vec![288])), "the prompt has the token 288, the model knows 0 to 287"),
        (spoilt(|g| g.resume = vec![1000]), "'resume' has the token 1000"),
        (spoilt(|g| g.sampling.logit_bias = vec![(999, 1.0)]), "'logit_bias' has the token 999"),
        (spoilt(|g| g.prompt = Prompt::Text("x".repeat(1 << 20))), "the prompt has 1048576 bytes"),
        (spoilt(|g| g.prompt = Prompt::Text("zq".repeat(5_000))), "the prompt has 10000 bytes, the first"),
        (spoilt(|g| g.sampling.top_p = 2.0), "'top_p' is 2"),
    ];
    for (generation, words) in cases {
        let error = model.add(1, Priority::Normal, &generation).unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains(words), "{error}");
    }
    for (schema, words) in [
        ("{\"type\": 3}", "cannot be served"),
        ("{\"type\": \"object\", \"unevaluatedItems\": 1}", "unevaluatedItems"),
        ("{", "is no JSON"),
        ("true", "must be a JSON object"),
    ] {
        let format = Generation { format: Format::JsonSchema(schema.into()), ..drawn(1, 2, 3) };
        let error = model.add(1, Priority::Normal, &format).unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains(words), "{error}");
    }
    // Without a limit, as many as the context holds.
    let open = Generation { max_tokens: None, ..drawn(1, 20, 1) };
    assert_eq!(alone(&mut model, &open).tokens.len(), 30);
    check_idle(&model);
}

#[test]
fn conversations_go_through_the_template_and_end_tokens_end_them() {
    let mut model = model("");
    let messages = r#"[{"role": "user", "content": "the an"}]"#.to_owned();
    let chat = Generation {
        max_tokens: Some(5),
        sampling: Sampling { logit_bias: vec![(1, 100.0)], ..Sampling::default() },
        ..Generation::new(Prompt::Chat { messages, tools: None })
    };
    let given = alone(&mut model, &chat);
    assert_eq!((given.tokens, given.text.as_str(), given.finish), (vec![1], "", Some(FinishReason::Stop)));
    let on = alone(&mut model, &Generation { ignore_end: true, ..chat });
    assert_eq!((on.tokens, on.text.as_str(), on.finish), (vec![1; 5], "", Some(FinishReason::Length)));
    let told = |prompt: &str| {
        let generation = Generation { max_tokens: Some(1), ..Generation::new(Prompt::Text(prompt.into())) };
        let mut fresh = self::model("");
        fresh.add(0, Priority::Normal, &generation).unwrap();
        fresh.step().remove(0).1.unwrap().prompt_tokens
    };
    // The start token, then "Ġthe" and "Ġan".
    assert_eq!((told(""), told(" the an")), (1, 3));
}

#[derive(Clone, Debug)]
enum Act {
    Add { prompt: usize, tokens: u32, priority: usize },
    Cancel(u64),
    Step,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let add =
        (1usize..60, 1u32..40, 0usize..3).prop_map(|(prompt, tokens, priority)| Act::Add { prompt, tokens, priority });
    prop::collection::vec(prop_oneof![2 => add, 1 => (0u64..20).prop_map(Act::Cancel), 6 => Just(Act::Step)], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_block_is_lost_and_no_answer_changed(acts in acts(), prefix_cache: bool) {
        let mut model = model(&format!("cache_tokens = 144\nmax_sequences = 4\nprefix_cache = {prefix_cache}"));
        let mut roomy = self::model("");
        let mut asked: HashMap<u64, Generation> = HashMap::new();
        let mut given: HashMap<u64, Given> = HashMap::new();
        let mut next = 0;
        for act in acts {
            match act {
                Act::Add { prompt, tokens, priority } => {
                    // Few seeds, so that prompts begin alike.
                    let generation = drawn(next % 3, prompt, tokens);
                    model.add(next, [Priority::High, Priority::Normal, Priority::Low][priority], &generation).unwrap();
                    asked.insert(next, generation);
                    next += 1;
                }
                Act::Cancel(id) => {
                    model.cancel(id);
                    asked.remove(&id);
                }
                Act::Step => {
                    for (id, delta) in model.step() {
                        given.entry(id).or_default().take(delta.unwrap());
                    }
                }
            }
            let Schedule { running, blocks, .. } = &model.schedule;
            let own: usize = running.iter().map(|sequence| sequence.blocks.len()).sum();
            // Shared blocks count once for each that uses them.
            prop_assert!(own + blocks.available() >= blocks.total());
        }
        for _ in 0..10_000 {
            if model.load().running + model.load().waiting == 0 {
                break;
            }
            for (id, delta) in model.step() {
                given.entry(id).or_default().take(delta.unwrap());
            }
        }
        check_idle(&model);
        for (id, generation) in asked {
            prop_assert!(given[&id].same(&alone(&mut roomy, &generation)), "sequence {}", id);
        }
    }
}
