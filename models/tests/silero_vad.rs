//! The real Silero VAD against what onnxruntime gives. `scripts/fetch-models silero-vad --to models-data` fetches it;
//! `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::PathBuf;

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Code, Datatype, InferAnswer, ModelName, Payload, Result, Sequence, Tensor};
use serde::Deserialize;

const WINDOW: usize = 512;

#[derive(Deserialize)]
struct Expected {
    from_silence: Vec<f32>,
}

fn expected() -> Vec<f32> {
    let expected: Expected = serde_json::from_str(include_str!("../../tests/data/expected/silero_vad.json")).unwrap();
    expected.from_silence
}

/// The windows of a recording.
fn audio() -> Vec<f32> {
    let samples = include_bytes!("../../tests/data/expected/silero_vad.pcm");
    // The first 64 samples are those before the first window.
    let samples = samples.chunks_exact(2).skip(64);
    samples.map(|two| f32::from(i16::from_le_bytes(two.try_into().unwrap())) / 32768.0).collect()
}

/// The fetched model; `None`, said aloud, where it was not fetched.
fn fetched() -> Option<Box<dyn Model>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join("silero-vad");
    if !path.exists() {
        println!(
            "skipped: {} is not there, fetch it with: scripts/fetch-models silero-vad --to models-data",
            path.display()
        );
        return None;
    }
    let manifest = inspect(&ModelName::new("silero-vad").unwrap(), &path).unwrap();
    assert_eq!(manifest.spec.family, "silero-vad");
    Some(load(&manifest, &|_| {}).unwrap().model().unwrap())
}

fn request(samples: &[f32], sequence: Option<Sequence>) -> ModelRequest {
    let data: Vec<u8> = samples.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = vec![(samples.len() / WINDOW) as i64, WINDOW as i64];
    let audio = Tensor::new("audio", Datatype::Fp32, shape, Payload::from(data)).unwrap();
    ModelRequest { inputs: vec![audio], sequence, ..ModelRequest::default() }
}

fn speech(answer: Result<InferAnswer>) -> Vec<f32> {
    let bytes = answer.unwrap().outputs[0].data.contiguous();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn sequence(key: u64, start: bool, end: bool) -> Option<Sequence> {
    Some(Sequence { key, start, end })
}

#[test]
fn known_good_probabilities_come_out_in_one_request_and_in_a_sequence_of_them() {
    let Some(mut model) = fetched() else { return };
    let (audio, expected) = (audio(), expected());
    let at_once = speech(model.run(vec![request(&audio, None)]).remove(0));
    let greatest = difference(&at_once, &expected);
    println!("{} windows, greatest difference {greatest:e}", expected.len());
    assert!(greatest < 1e-4, "{greatest}");

    let mut streamed = Vec::new();
    let pieces: Vec<&[f32]> = audio.chunks(3 * WINDOW).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let place = sequence(7, index == 0, index + 1 == pieces.len());
        streamed.extend(speech(model.run(vec![request(piece, place)]).remove(0)));
    }
    assert_eq!(streamed, at_once);
    let over = model.run(vec![request(&audio[..WINDOW], sequence(7, false, false))]).remove(0);
    assert!(over.is_err_and(|e| e.code == Code::FailedPrecondition && e.message.contains("sequence_start")));
}

#[test]
fn sequences_in_one_batch_give_the_bits_that_each_gives_alone() {
    let Some(mut model) = fetched() else { return };
    let audio = audio();
    let alone = speech(model.run(vec![request(&audio, None)]).remove(0));
    let shifted = speech(model.run(vec![request(&audio[5 * WINDOW..], None)]).remove(0));
    let part = |from: usize, to: usize| &audio[from * WINDOW..to * WINDOW];
    // Two sequences interleaved, the second from its fifth window on, requests without a sequence and bad ones beside them.
    let first = model.run(vec![
        request(part(0, 4), sequence(1, true, false)),
        request(part(5, 7), sequence(2, true, false)),
        request(part(0, 40), None),
        request(part(4, 9), sequence(1, false, false)),
        ModelRequest::default(),
        request(part(0, 1), sequence(3, false, false)),
        request(part(7, 8), sequence(2, false, false)),
    ]);
    let second = model.run(vec![
        request(part(8, 40), sequence(2, false, false)),
        request(part(9, 10), sequence(1, false, false)),
        request(part(10, 40), sequence(1, false, true)),
    ]);
    let [a, b, whole, c, bad, unknown, d] = <[_; 7]>::try_from(first).unwrap();
    let [e, f, g] = <[_; 3]>::try_from(second).unwrap();
    assert!(bad.is_err_and(|error| error.code == Code::InvalidArgument));
    assert!(unknown.is_err_and(|error| error.code == Code::FailedPrecondition));
    assert_eq!(speech(whole), alone);
    assert_eq!([a, c, f, g].map(speech).concat(), alone);
    assert_eq!([b, d, e].map(speech).concat(), shifted);
}
