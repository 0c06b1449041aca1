//! Networks that answer questions about images.

use super::*;
use crate::{ModelRequest, inspect, load};
use orion_proto::{Datatype, ModelName, Payload, Tensor, encode_bytes_elements};

const COLOURS: [(&str, [u8; 3]); 3] = [("red", [220, 30, 30]), ("green", [30, 200, 40]), ("blue", [20, 40, 230])];

/// Images of one colour in the upper or lower half, some larger than others, with questions that need both.
fn folder() -> (tempfile::TempDir, Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("images")).unwrap();
    let mut rows = Vec::new();
    for index in 0..24u32 {
        let (name, colour) = COLOURS[index as usize % 3];
        let (upper, side) = (index % 2 == 0, if index == 7 { 20 } else { 16 });
        let half = |y| (y < side / 2) == upper;
        let pixel = |_, y| image::Rgb(if half(y) { colour } else { [240 - index as u8; 3] });
        image::RgbImage::from_fn(side, side, pixel).save(folder.path().join(format!("images/{index}.png"))).unwrap();
        let place = if upper { "above" } else { "below" };
        rows.push((index, "what colour is it?".to_owned(), name));
        rows.push((index, "Where is it?".into(), place));
        for (other, _) in COLOURS {
            rows.push((index, format!("is it {other}?"), if other == name { "yes" } else { "no" }));
        }
    }
    let line = |(index, question, answer): &(u32, String, &str)| {
        serde_json::json!({"image": format!("images/{index}.png"), "question": question, "answer": answer}).to_string()
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    fs::write(folder.path().join("train.jsonl"), lines.join("\n")).unwrap();
    fs::write(folder.path().join("test.jsonl"), lines[..40].join("\n")).unwrap();
    (folder, rows[..40].iter().map(|(index, question, _)| (format!("images/{index}.png"), question.clone())).collect())
}

fn plan() -> Plan {
    let text = r#"{"name": "m", "model": {"kind": "image_question", "channels": [8, 16]},
        "data": {"train": "d", "text": "question", "label": "answer"},
        "training": {"epochs": 120, "batch": 12, "seed": 3}, "optimizer": {"kind": "adamw", "learning_rate": 0.001}}"#;
    Plan::from_json(text).unwrap()
}

#[test]
fn what_is_answered_is_what_was_learnt() {
    let (folder, asked) = folder();
    let mut learner = Learner::open(plan(), &at(folder.path()), u64::MAX).unwrap();
    run(&mut learner, |_, _| ());
    let learnt = learner.progress().test.unwrap();
    assert!(learnt.accuracy > 0.95, "{learnt:?}");

    let saved = folder.path().join("saved");
    fs::create_dir(&saved).unwrap();
    learner.save(&saved).unwrap();
    let manifest = inspect(&ModelName::new("m").unwrap(), &saved).unwrap();
    let mut model = load(&manifest, &|_| ()).unwrap().model().unwrap();
    assert_eq!(model.spec().family, "image-question");
    let tensor = |name: &str, elements: &[Vec<u8>]| Tensor {
        name: name.into(),
        datatype: Datatype::Bytes,
        shape: vec![elements.len() as i64],
        data: Payload::from(encode_bytes_elements(elements)),
    };
    let images: Vec<Vec<u8>> = asked.iter().map(|(path, _)| fs::read(folder.path().join(path)).unwrap()).collect();
    let questions: Vec<Vec<u8>> = asked.iter().map(|(_, question)| question.to_uppercase().into_bytes()).collect();
    let request = |images: &[Vec<u8>], questions: &[Vec<u8>]| ModelRequest {
        // In any order.
        inputs: vec![tensor("question", questions), tensor("image", images)],
        ..ModelRequest::default()
    };
    let mut answers = model.run(vec![
        request(&images[..3], &questions[..3]),
        request(&[b"no image".to_vec()], &questions[..1]),
        request(&images[..2], &questions[..1]),
        request(&images[3..], &questions[3..]),
    ]);
    let unequal = answers.remove(2).unwrap_err().message;
    assert!(unequal.contains("must agree"), "{unequal}");
    let unreadable = answers.remove(1).unwrap_err().message;
    assert!(unreadable.contains("element 0 of input 'image'"), "{unreadable}");
    let mut right = 0;
    let mut rows = [3, 37].into_iter();
    let lines = fs::read_to_string(folder.path().join("test.jsonl")).unwrap();
    let mut wanted =
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["answer"].clone());
    for answer in answers {
        let data = answer.unwrap().outputs.remove(1).data.contiguous();
        for found in orion_proto::bytes_elements("answer", &data, rows.next().unwrap()).unwrap() {
            right += usize::from(wanted.next().unwrap() == std::str::from_utf8(&found).unwrap());
        }
    }
    assert_eq!(right, (learnt.accuracy * 40.0).round() as usize);
    let sample = model.sample(3);
    assert_eq!(model.run(vec![sample]).remove(0).unwrap().outputs[0].shape[0], 3);
}

#[test]
fn what_does_not_fit_is_named() {
    let (folder, _) = folder();
    let row = |image: &str| format!("{{\"image\": \"{image}\", \"question\": \"a\", \"answer\": \"b\"}}\n");
    let refused = |rows: String| {
        fs::write(folder.path().join("train.jsonl"), rows).unwrap();
        Learner::open(plan(), &at(folder.path()), u64::MAX).err().unwrap().message
    };
    let away = refused(row("../x.png"));
    assert!(away.contains("line 1 of") && away.contains("'../x.png'"), "{away}");
    let missing = refused(row("images/1.png") + &row("images/none.png"));
    assert!(missing.contains("line 2 of") && missing.contains("none.png"), "{missing}");
    let broken = refused(row("train.jsonl"));
    assert!(broken.contains("line 1 of") && broken.contains("JPEG, PNG"), "{broken}");
}
