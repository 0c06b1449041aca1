//! Decoders that learn to go on with texts.

use super::*;
use crate::{inspect, load, tiny_llama};
use orion_proto::{FinishReason, Generation, ModelName, Priority, Prompt};

const TEXT: &str = "then a man and the hand";

/// A base, and a text that it is to know by heart.
fn folders(config: &str, bias: bool, head_norm: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write_with(&folder.path().join("base"), config, bias, head_norm).unwrap();
    let line = serde_json::json!({ "text": TEXT }).to_string();
    fs::write(folder.path().join("train.jsonl"), format!("{line}\n{line}\n")).unwrap();
    fs::write(folder.path().join("test.csv"), format!("text\n{TEXT}\n")).unwrap();
    folder
}

fn plan_of(more: &str) -> Plan {
    let text = format!(
        r#"{{"name": "m", "model": {{"kind": "language_model", "base": "b", "tokens": 64{more}}}, "data": {{"train": "d"}},
        "training": {{"steps": 60, "batch": 4, "micro_batch": 2, "seed": 3, "evaluate_steps": 60}},
        "optimizer": {{"kind": "adamw", "learning_rate": 0.01}}}}"#
    );
    Plan::from_json(&text).unwrap()
}

fn open(folder: &Path, plan: Plan) -> orion_proto::Result<Learner> {
    Learner::open(plan, &Files { base: Some(&folder.join("base")), train: folder, test: None }, u64::MAX)
}

#[test]
fn what_is_generated_is_what_was_learnt() {
    let other = |kind: &str| tiny_llama::CONFIG.replace("\"llama\"", &format!("\"{kind}\""));
    let scaled = r#""rope_scaling": {"rope_type": "linear", "factor": 2.0}, "tie_word_embeddings": false"#;
    let scaled = tiny_llama::CONFIG.replace("\"tie_word_embeddings\": false", scaled);
    let all =
        r#", "lora": {"rank": 8, "alpha": 32, "targets": ["q_proj", "v_proj", "o_proj", "up_proj", "mlp.down_proj"]}"#;
    for (config, bias, head_norm, lora) in [
        (tiny_llama::CONFIG.to_owned(), false, false, ""),
        (tiny_llama::CONFIG.replace("embeddings\": false", "embeddings\": true"), false, false, ""),
        (scaled, false, false, all),
        (other("qwen2"), true, false, ""),
        (other("qwen3"), false, true, all),
    ] {
        let folder = folders(&config, bias, head_norm);
        let mut learner = open(folder.path(), plan_of(lora)).unwrap();
        run(&mut learner, |_, _| ());
        let learnt = learner.progress().test.unwrap();
        assert!(learnt.accuracy > 0.99 && learnt.loss < 0.3, "{config}: {learnt:?}");

        let saved = folder.path().join("saved");
        fs::create_dir(&saved).unwrap();
        learner.save(&saved).unwrap();
        let manifest = inspect(&ModelName::new("m").unwrap(), &saved).unwrap();
        let mut model = load(&manifest, &|_| ()).unwrap().generator().unwrap();
        let generation =
            Generation { max_tokens: Some(60), logprobs: Some(1), ..Generation::new(Prompt::Tokens(vec![0])) };
        model.add(0, Priority::Normal, &generation).unwrap();
        let (mut text, mut lost, mut tokens, mut finish) = (String::new(), 0.0, 0, None);
        while finish.is_none() {
            for (_, delta) in model.step() {
                let delta = delta.unwrap();
                text.push_str(&delta.text);
                lost -= delta.logprobs.iter().map(|token| token[0].logprob).sum::<f32>();
                tokens += delta.logprobs.len();
                finish = delta.finish;
            }
        }
        assert_eq!((text.as_str(), finish), (TEXT, Some(FinishReason::Stop)), "{config}");
        let served = lost / tokens as f32;
        assert!(
            (served - learnt.loss).abs() < 0.02 * learnt.loss + 1e-4,
            "{config}: served {served}, learnt {learnt:?}"
        );
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = folders(tiny_llama::CONFIG, false, false);
    let refused = |plan: Plan| open(folder.path(), plan).err().unwrap().message;
    let long = refused(Plan::from_json(&plan_of("").to_json().replace("\"tokens\":64", "\"tokens\":257")).unwrap());
    assert!(long.contains("model.tokens is 257") && long.contains("256"), "{long}");
    let targets = refused(plan_of(r#", "lora": {"targets": ["query"]}"#));
    assert!(targets.contains("'query'") && targets.contains("self_attn.q_proj"), "{targets}");
    fs::write(folder.path().join("train.jsonl"), "{\"text\": \" \"}\n").unwrap();
    let empty = refused(plan_of(""));
    assert!(empty.contains("line 1 of") && empty.contains("its text is empty"), "{empty}");
    fs::remove_file(folder.path().join("base").join("config.json")).unwrap();
    assert!(refused(plan_of("")).contains("must be a folder with config.json"));
}
