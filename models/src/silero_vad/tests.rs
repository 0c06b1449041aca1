//! The real network against onnxruntime, from a context on that no client can send.

use std::path::PathBuf;

use orion_proto::ModelName;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Expected {
    with_context: Vec<f32>,
    hidden: Vec<f32>,
    cell: Vec<f32>,
}

/// The fetched model; `None`, said aloud, where it was not fetched.
fn fetched() -> Option<SileroVad> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join("silero-vad");
    if !path.exists() {
        println!("skipped: {} is not there, scripts/fetch-models silero-vad --to models-data makes it", path.display());
        return None;
    }
    let source = Source::inspect(&path, crate::Precision::F32).unwrap();
    let spec = source.spec(&ModelName::new("m").unwrap(), "1".into(), 32);
    Some(SileroVad::load(spec, &source, &|_| {}).unwrap())
}

#[test]
fn windows_with_a_context_leave_the_known_state() {
    let Some(model) = fetched() else { return };
    let expected: Expected =
        serde_json::from_str(include_str!("../../../tests/data/expected/silero_vad.json")).unwrap();
    let pcm = include_bytes!("../../../tests/data/expected/silero_vad.pcm").chunks_exact(2);
    let mut samples = pcm.map(|two| f32::from(i16::from_le_bytes(two.try_into().unwrap())) / 32768.0);
    let context: Vec<f32> = samples.by_ref().take(CONTEXT).collect();
    let audio: Vec<f32> = samples.collect();
    let begin = State { context, ..State::begin() };
    let chain = Chain { begin, requests: vec![(0, audio.len() / WINDOW)], key: None, ended: true };
    let (speech, ends) = model.listen(&[chain], &[audio]).unwrap();
    let apart = |got: &[f32], expected: &[f32]| {
        assert_eq!(got.len(), expected.len());
        got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    println!("{:.3?}", &speech[..5]);
    assert!(apart(&speech, &expected.with_context) < 1e-4, "{speech:?}");
    assert!(apart(&ends[0].hidden, &expected.hidden) < 1e-3 && apart(&ends[0].cell, &expected.cell) < 1e-3);
    for (got, known) in speech.iter().zip([0.137, 0.683, 0.942, 0.995, 1.0]) {
        assert!((got - known).abs() < 1e-3, "{got} {known}");
    }
}
