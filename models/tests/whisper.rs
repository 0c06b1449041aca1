//! The real model against its authors' implementation. `scripts/fetch-models whisper-tiny-en --to models-data` fetches it and
//! the clips; `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::PathBuf;

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Datatype, InferAnswer, ModelName, Payload, Result, Tensor, bytes_elements, encode_bytes_elements};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    clips: Vec<Clip>,
    long: Long,
}

#[derive(Deserialize)]
struct Clip {
    name: String,
    text: String,
}

#[derive(Deserialize)]
struct Long {
    clips: Vec<usize>,
    text: String,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/data/expected/whisper-tiny-en.json")).unwrap()
}

/// The fetched model and the clips, as files; `None`, said aloud, where they were not fetched.
fn fetched() -> Option<(Box<dyn Model>, Vec<Vec<u8>>)> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let root = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default));
    let (path, samples) = (root.join("whisper-tiny-en"), root.join("samples/librivox"));
    for path in [&path, &samples] {
        if !path.exists() {
            println!(
                "skipped: {} is not there, fetch it with: scripts/fetch-models all --to models-data",
                path.display()
            );
            return None;
        }
    }
    let clips = expected().clips.iter().map(|clip| std::fs::read(samples.join(&clip.name)).unwrap()).collect();
    let manifest = inspect(&ModelName::new("whisper-tiny-en").unwrap(), &path).unwrap();
    Some((load(&manifest, &|_| {}).unwrap(), clips))
}

fn request<E: AsRef<[u8]>>(files: &[E]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(files));
    let tensor = Tensor::new("audio", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![tensor], truncate: false }
}

fn texts(answer: &Result<InferAnswer>) -> Vec<String> {
    let text = &answer.as_ref().unwrap().outputs[0];
    let elements = bytes_elements("text", &text.data.contiguous(), text.rows()).unwrap();
    elements.iter().map(|element| String::from_utf8(element.to_vec()).unwrap()).collect()
}

#[test]
fn the_clips_are_written_as_their_reference_writes_them() {
    let Some((mut model, clips)) = fetched() else { return };
    let expected: Vec<String> = expected().clips.into_iter().map(|clip| clip.text).collect();
    assert_eq!(
        expected[0],
        " And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them."
    );
    let t = std::time::Instant::now();
    for (clip, text) in clips.iter().zip(&expected) {
        assert_eq!(texts(&model.run(vec![request(&[clip])])[0]), [text.as_str()]);
        println!("{:?}", t.elapsed());
    }
}
