//! The real generators against known-good tokens. `scripts/fetch-models smollm2 stories15m --to models-data` fetches them;
//! `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, in its helpers too")]

use std::path::PathBuf;

use orion_models::{Generator, inspect, load};
use orion_proto::{Delta, FinishReason, Format, Generation, ModelName, Priority, Prompt, Sampling};

/// The fetched model; `None`, said aloud, where it was not fetched.
fn fetched(name: &str) -> Option<Box<dyn Generator>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    if !path.exists() {
        println!(
            "skipped: {} is not there, fetch it with: scripts/fetch-models {name} --to models-data",
            path.display()
        );
        return None;
    }
    let manifest = inspect(&ModelName::new(name).unwrap(), &path).unwrap();
    assert_eq!(manifest.spec.family, "text-generation");
    Some(load(&manifest, &|_| {}).unwrap().generator().unwrap())
}

/// All that a generation gives, put together.
fn answer(model: &mut dyn Generator, generation: &Generation) -> (Vec<u32>, String, Delta) {
    model.add(1, Priority::Normal, generation).unwrap();
    let (mut tokens, mut text) = (Vec::new(), String::new());
    for _ in 0..4096 {
        for (_, delta) in model.step() {
            let delta = delta.unwrap();
            tokens.extend_from_slice(&delta.tokens);
            text.push_str(&delta.text);
            if delta.finish.is_some() {
                return (tokens, text, delta);
            }
        }
    }
    panic!("the generation does not end");
}

#[test]
fn smollm2_gives_the_known_tokens() {
    let Some(mut model) = fetched("smollm2") else { return };
    let prompt = vec![6403, 1980, 253, 655, 28, 665, 436, 253, 1838];
    let known = [8180, 3365, 20391, 617, 5732, 288, 1238, 281, 260, 2388, 30, 2306];
    let text = "Once upon a time, there was a little";
    let generation = Generation { max_tokens: Some(12), ..Generation::new(Prompt::Tokens(prompt)) };
    let (tokens, from_tokens, _) = answer(&mut *model, &generation);
    println!("{from_tokens:?}");
    assert_eq!(tokens, known);
    let generation = Generation { prompt: Prompt::Text(text.into()), ..generation };
    assert_eq!(answer(&mut *model, &generation).0, known);
}

#[test]
fn stories15m_gives_the_known_tokens() {
    let Some(mut model) = fetched("stories15m") else { return };
    let known = [9038, 2501, 263, 931, 29892, 727, 471, 263, 2217, 7826, 4257, 365, 2354, 29889];
    let generation =
        Generation { max_tokens: Some(40), logprobs: Some(2), ..Generation::new(Prompt::Text(String::new())) };
    let (tokens, text, last) = answer(&mut *model, &generation);
    assert_eq!(tokens[..known.len()], known);
    assert!(
        text.starts_with("Once upon a time, there was a little girl named Lily. She loved to play outside"),
        "{text}"
    );
    assert_eq!((last.prompt_tokens, last.position), (1, 39));
    let continued = Generation { prompt: Prompt::Text("Once upon".into()), ..generation };
    let (tokens, text, _) = answer(&mut *model, &continued);
    assert_eq!((&tokens[..3], &text[..7]), (&known[2..5], " a time"));
}

#[test]
fn smollm2_answers_in_its_chat_template() {
    let Some(mut model) = fetched("smollm2") else { return };
    let messages = r#"[{"role": "user", "content": "What is the capital of France?"}]"#.to_owned();
    let generation = Generation { max_tokens: Some(64), ..Generation::new(Prompt::Chat { messages, tools: None }) };
    let (_, text, last) = answer(&mut *model, &generation);
    println!("{text}");
    assert!(text.contains("Paris"), "{text}");
    assert_eq!(last.finish, Some(FinishReason::Stop));
}

#[test]
fn smollm2_keeps_to_a_schema_and_goes_on_from_any_token() {
    let Some(mut model) = fetched("smollm2") else { return };
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
        "city": {"enum": ["Paris", "Rome"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "city", "age"], "additionalProperties": false}"#;
    let messages = r#"[{"role": "user", "content": "Describe Marie, who lives in Paris, as JSON."}]"#.to_owned();
    for temperature in [0.0, 1.5] {
        let generation = Generation {
            max_tokens: Some(64),
            format: Format::JsonSchema(schema.into()),
            sampling: Sampling { temperature, seed: 5, ..Sampling::default() },
            ..Generation::new(Prompt::Chat { messages: messages.clone(), tools: None })
        };
        let (tokens, text, last) = answer(&mut *model, &generation);
        println!("{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(last.finish, Some(FinishReason::Stop));
        assert!(["Paris", "Rome"].contains(&value["city"].as_str().unwrap()) && value["age"].as_u64().unwrap() < 100);
        let half = tokens.len() / 2;
        let rest = Generation { resume: tokens[..half].to_vec(), ..generation };
        assert_eq!(answer(&mut *model, &rest).0, tokens[half..]);
    }
}
