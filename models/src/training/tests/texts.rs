//! Encoders that learn classes of texts.

use super::*;
use crate::{ModelRequest, checkpoint::Checkpoint, inspect, load, tiny_bert};
use orion_proto::{Datatype, ModelName, Payload, Tensor, encode_bytes_elements};

/// A base, and texts whose class is told by one word of four.
fn folders(format: &str) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    tiny_bert::write(&folder.path().join("base"));
    let texts: Vec<(String, &str)> = (0..160)
        .map(|index: usize| {
            let word = |seed: usize| format!("w{}", 10 + (index * 31 + seed * 17) % 50);
            let text = format!("{} w{} {}", word(1), index % 4, word(index % 3));
            (text, ["east, or \"near\" it", "west", "north", "south"][index % 4])
        })
        .collect();
    for (name, some) in [("train", &texts[..]), ("test", &texts[120..])] {
        let rows: Vec<String> = match format {
            "jsonl" => {
                some.iter().map(|(text, label)| serde_json::json!({"text": text, "label": label}).to_string()).collect()
            }
            _ => std::iter::once("odd,label,text".to_owned())
                .chain(some.iter().map(|(text, label)| format!("1,\"{}\",\"{text}\"", label.replace('"', "\"\""))))
                .collect(),
        };
        fs::write(folder.path().join(format!("{name}.{format}")), rows.join("\n") + "\n\n").unwrap();
    }
    (folder, texts.into_iter().map(|(text, _)| text).collect())
}

fn plan_of(lora: &str) -> Plan {
    let text = format!(
        r#"{{"name": "m", "model": {{"kind": "text_classifier", "base": "b", "tokens": 12, "dropout": 0.1{lora}}},
        "data": {{"train": "d"}}, "training": {{"epochs": 12, "batch": 32, "seed": 3}},
        "optimizer": {{"kind": "adamw", "learning_rate": 0.01}}}}"#
    );
    Plan::from_json(&text).unwrap()
}

fn open(folder: &Path, plan: Plan) -> orion_proto::Result<Learner> {
    Learner::open(plan, &Files { base: Some(&folder.join("base")), train: folder, test: None }, u64::MAX)
}

const LORA: &str = r#", "lora": {"rank": 4, "alpha": 8, "targets": ["query", "value", "output.dense"]}"#;

#[test]
fn what_is_served_is_what_was_learnt() {
    for (format, lora) in [("jsonl", ""), ("csv", LORA)] {
        let (folder, texts) = folders(format);
        let mut learner = open(folder.path(), plan_of(lora)).unwrap();
        run(&mut learner, |_, _| ());
        let progress = learner.progress().clone();
        assert!(progress.test.unwrap().accuracy > 0.9, "{format}: {progress:?}");

        let saved = folder.path().join("saved");
        fs::create_dir(&saved).unwrap();
        learner.save(&saved).unwrap();
        let manifest = inspect(&ModelName::new("m").unwrap(), &saved).unwrap();
        let mut model = load(&manifest, &|_| ()).unwrap().model().unwrap();
        let data = Payload::from(encode_bytes_elements(&texts[120..]));
        let input = Tensor { name: "text".into(), datatype: Datatype::Bytes, shape: vec![40], data };
        let answer =
            model.run(vec![ModelRequest { inputs: vec![input], ..ModelRequest::default() }]).remove(0).unwrap();
        let output = |name: &str| answer.outputs.iter().find(|output| output.name == name).unwrap();
        let logits = output("logits").data.contiguous();
        let loss: f64 = logits
            .chunks_exact(16)
            .enumerate()
            .map(|(at, row)| {
                let row: Vec<f64> =
                    row.chunks_exact(4).map(|v| f64::from(f32::from_le_bytes(v.try_into().unwrap()))).collect();
                // By name: east, north, south, west.
                let class = [0, 3, 1, 2][at % 4];
                row.iter().map(|value| value.exp()).sum::<f64>().ln() - row[class]
            })
            .sum();
        let served = loss / 40.0;
        let learnt = f64::from(progress.test.unwrap().loss);
        assert!((served - learnt).abs() < 1e-4 * learnt.max(1.0), "{format}: served {served}, learnt {learnt}");

        let (base, made) = (Checkpoint::open(&folder.path().join("base")).unwrap(), Checkpoint::open(&saved).unwrap());
        let changed = base
            .tensors()
            .filter(|(name, entry)| base.bytes(entry) != made.bytes(made.get(&format!("bert.{name}")).unwrap()));
        let changed: Vec<&str> = changed.map(|(name, _)| name).collect();
        let is_target =
            |name: &&str| ["query.weight", "value.weight", "output.dense.weight"].iter().any(|end| name.ends_with(end));
        match lora {
            "" => assert!(changed.len() > 30, "{changed:?}"),
            _ => assert!(changed.len() == 8 && changed.iter().all(is_target), "{changed:?}"),
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let (folder, _) = folders("jsonl");
    let refused = |plan: Plan| open(folder.path(), plan).err().unwrap().message;
    for tokens in [2, 41] {
        let text = plan_of("").to_json().replace("\"tokens\":12", &format!("\"tokens\":{tokens}"));
        let text = refused(Plan::from_json(&text).unwrap());
        assert!(text.contains(&format!("model.tokens is {tokens}")) && text.contains("3 to 40"), "{text}");
    }
    let base = Some(folder.path().join("base"));
    let files = Files { base: base.as_deref(), train: folder.path(), test: None };
    let large = Learner::open(plan_of(LORA), &files, 300_000).err().unwrap().message;
    assert!(large.contains("its base takes about"), "{large}");
    let files = Files { test: base.as_deref(), ..files };
    let untested = Learner::open(plan_of(""), &files, u64::MAX).err().unwrap().message;
    assert!(untested.contains("neither test.jsonl nor test.csv"), "{untested}");
    let config = folder.path().join("base").join("config.json");
    fs::write(&config, tiny_bert::CONFIG.replace("\"bert\"", "\"llama\"")).unwrap();
    let family = refused(plan_of(""));
    assert!(family.contains("model_type is 'llama'") && family.contains("bert"), "{family}");
    fs::write(&config, tiny_bert::CONFIG).unwrap();
    // An encoder whose vectors are pooled otherwise learns as well.
    fs::create_dir(folder.path().join("base").join("1_Pooling")).unwrap();
    let pooling = folder.path().join("base").join("1_Pooling").join("config.json");
    fs::write(pooling, "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false}").unwrap();
    assert!(open(folder.path(), plan_of("")).is_ok());
    let targets = refused(plan_of(r#", "lora": {"targets": ["q_proj"]}"#));
    assert!(targets.contains("'q_proj'") && targets.contains("attention.self.query"), "{targets}");
    let mut named = plan_of("");
    named.data.labels = vec!["west".into(), "north".into()];
    let unknown = refused(named);
    assert!(unknown.contains("east") && unknown.contains("'west', 'north'"), "{unknown}");
    for (row, parts) in [
        (r#"{"text": "w1"}"#, ["line 2 of", "no 'label'"]),
        (r#"{"text": 1, "label": "west"}"#, ["line 2 of", "'text' must be a text"]),
        (r#"{"text": "w1", "label": 1.5}"#, ["line 2 of", "'label' must be"]),
        ("[1]", ["line 2 of", "no JSON object"]),
        (r#"{"text": "w1", "label": " "}"#, ["line 2 of", "its label is empty"]),
        (r#"{"text": " ", "label": 1}"#, ["line 2 of", "its text is empty"]),
    ] {
        fs::write(folder.path().join("train.jsonl"), format!("{{\"text\": \"w1\", \"label\": true}}\n{row}\n"))
            .unwrap();
        let text = refused(plan_of(""));
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    fs::write(folder.path().join("train.jsonl"), "{\"text\": \"w1\", \"label\": 1}\n").unwrap();
    fs::remove_file(folder.path().join("test.jsonl")).unwrap();
    let mut patient = plan_of("");
    (patient.training.patience, patient.data.labels) = (1, vec!["1".into(), "2".into()]);
    assert!(refused(patient).contains("training.patience"));
    assert!(refused(plan_of("")).contains("of one class"));
    fs::write(folder.path().join("train.csv"), "text,label\nw1,1\n").unwrap();
    assert!(refused(plan_of("")).contains("several files"));
    fs::remove_file(folder.path().join("train.jsonl")).unwrap();
    fs::write(folder.path().join("train.csv"), "text,class\nw1,1\n").unwrap();
    let column = refused(plan_of(""));
    assert!(column.contains("no column 'label'") && column.contains("text, class"), "{column}");
    fs::write(folder.path().join("train.csv"), "text,label\nw1,1\nw1,2,3\n").unwrap();
    let fields = refused(plan_of(""));
    assert!(fields.contains("train.csv") && fields.contains("line: 3"), "{fields}");
}

#[test]
fn classes_are_counted_or_named_each_once() {
    let folder = tempfile::tempdir().unwrap();
    tiny_bert::write(&folder.path().join("base"));
    for (train, test, want) in [
        (vec!["10", "9"], vec!["9", "11"], vec!["9", "10", "11"]),
        (vec!["1", "01"], vec!["01", "1"], vec!["01", "1"]),
        (vec!["b", "10"], vec!["9", "b"], vec!["10", "9", "b"]),
    ] {
        for (part, labels) in [("train", train), ("test", test)] {
            let rows: String =
                labels.iter().map(|label| format!("{{\"text\": \"w1\", \"label\": \"{label}\"}}\r\n")).collect();
            fs::write(folder.path().join(format!("{part}.jsonl")), format!("\u{feff}{rows}")).unwrap();
        }
        let learner = open(folder.path(), plan_of("")).unwrap();
        let saved = tempfile::tempdir().unwrap();
        learner.save(saved.path()).unwrap();
        let config = fs::read_to_string(saved.path().join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let names: Vec<&str> = (0..want.len()).map(|at| config["id2label"][at.to_string()].as_str().unwrap()).collect();
        assert_eq!(names, want);
    }
}

#[test]
fn what_a_half_cannot_hold_is_written_wider() {
    let (folder, _) = folders("jsonl");
    let base = folder.path().join("base");
    let whole = candle_core::safetensors::load(base.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
    let half = |tensor: &candle_core::Tensor| tensor.to_dtype(candle_core::DType::F16).unwrap();
    let halves = whole.iter().map(|(name, tensor)| (name.clone(), half(tensor))).collect();
    candle_core::safetensors::save(&halves, base.join("model.safetensors")).unwrap();
    let mut learner = open(folder.path(), plan_of("")).unwrap();
    learner.weights.values[0] = 1e6;
    let saved = folder.path().join("saved");
    fs::create_dir(&saved).unwrap();
    learner.save(&saved).unwrap();
    let written = Checkpoint::open(&saved).unwrap();
    let element = |name: &str| written.get(name).unwrap().element.to_string();
    assert_eq!(element("bert.embeddings.word_embeddings.weight"), "F32");
    assert_eq!(element("bert.embeddings.position_embeddings.weight"), "F16");
}
