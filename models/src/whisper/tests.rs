use std::path::{Path, PathBuf};

use bytes::Bytes;
use orion_proto::{
    ModelName,
    inference::{InferParameter, infer_parameter::ParameterChoice},
};

use super::*;
use crate::{GivenUp, Precision, inspect, load};
use serde::Deserialize;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_whisper::write(folder.path(), false);
    folder
}

fn model(folder: &Path) -> Box<dyn Model> {
    load(&inspect(&ModelName::new("tiny").unwrap(), folder).unwrap(), &|_| {}).unwrap().model().unwrap()
}

fn request<E: AsRef<[u8]>>(files: &[E]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(files));
    let audio = Tensor::new("audio", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![audio], ..ModelRequest::default() }
}

/// A file of so many samples that are no silence.
fn noise(samples: usize) -> Vec<u8> {
    let noise = |n: usize| ((n * n / 97 + n * samples) % 9001) as i16 - 4500;
    wav::wav(16_000, 1, 1, 16, &(0..samples).flat_map(|n| noise(n).to_le_bytes()).collect::<Vec<u8>>())
}

fn texts(answer: &Result<InferAnswer>) -> Vec<Bytes> {
    let text = &answer.as_ref().unwrap().outputs[0];
    bytes_elements("text", &text.data.contiguous(), text.rows()).unwrap()
}

#[test]
fn audios_of_any_length_are_written_as_each_alone() {
    let folder = folder();
    let mut model = model(folder.path());
    let files: Vec<Vec<u8>> = (1..12).map(|n| noise(n * 9973 % 90_000 + 100)).chain([noise(100)]).collect();
    let alone: Vec<Bytes> = files.iter().flat_map(|file| texts(&model.run(vec![request(&[file])])[0])).collect();
    assert!(alone[11].is_empty(), "less than a frame has no text");
    assert!(alone.iter().filter(|text| !text.is_empty()).count() > 5, "random weights write something: {alone:?}");
    let together = model.run(vec![request(&files[..7]), request(&files[7..])]);
    let together: Vec<Bytes> = together.iter().flat_map(texts).collect();
    assert_eq!(together, alone);
}

#[test]
fn tensors_are_found_under_both_namings() {
    let (openai, hugging_face) = (folder(), tempfile::tempdir().unwrap());
    tiny_whisper::write(hugging_face.path(), true);
    let [one, other] = [openai.path(), hugging_face.path()].map(|folder| {
        let manifest = inspect(&ModelName::new("tiny").unwrap(), folder).unwrap();
        assert!(manifest.spec.memory_bytes > manifest.weight_bytes && manifest.flops_per_row > 1e6);
        texts(&model(folder).run(vec![request(&[noise(50_000)])])[0])
    });
    assert_eq!(one, other);
}

#[test]
fn a_bad_request_fails_alone_and_says_why() {
    let folder = folder();
    let mut model = model(folder.path());
    let good = noise(20_000);
    let batch = vec![
        request(&[&good]),
        request(&[good.as_slice(), b"RIFF nonsense"]),
        request(&[b"".as_slice()]),
        ModelRequest::default(),
        request::<&[u8]>(&[]),
        request(&[&good]),
    ];
    let answers = model.run(batch);
    assert_eq!(texts(&answers[0]), texts(&answers[5]));
    assert_eq!(answers[4].as_ref().unwrap().outputs[0].shape, [0]);
    for (index, words) in [
        (1, "element 1 of input 'audio' cannot be read as WAV, FLAC, MP3 or Ogg Vorbis"),
        (2, "element 0 of input 'audio' is empty"),
        (3, "input 'audio' of model 'tiny' is missing"),
    ] {
        let error = answers[index].as_ref().unwrap_err();
        assert!(error.code == Code::InvalidArgument && error.message.contains(words), "{error}");
    }
}

#[test]
fn the_segments_of_a_text_come_with_their_times() {
    #[derive(Deserialize)]
    struct Record {
        language: String,
        duration: f64,
        segments: Vec<Segment>,
    }
    #[derive(Deserialize)]
    struct Segment {
        id: usize,
        seek: usize,
        start: f64,
        end: f64,
        text: String,
        tokens: Vec<u32>,
        temperature: f32,
        avg_logprob: f64,
        no_speech_prob: f32,
    }
    let folder = folder();
    let answer = model(folder.path()).run(vec![request(&[noise(70_000), noise(100)])]);
    let (texts, outputs) = (texts(&answer[0]), &answer[0].as_ref().unwrap().outputs);
    let segments = outputs.iter().find(|tensor| tensor.name == "segments").unwrap();
    let records = bytes_elements("segments", &segments.data.contiguous(), segments.rows()).unwrap();
    let records: Vec<Record> = records.iter().map(|json| serde_json::from_slice(json).unwrap()).collect();
    let [said, unsaid] = records.as_slice() else { panic!("a record for each file") };
    assert_eq!((said.language.as_str(), said.duration), ("english", 4.37));
    assert!(unsaid.segments.is_empty() && unsaid.duration == 0.0);
    assert!(said.segments.len() > 1, "several windows of random weights say something");
    for (index, segment) in said.segments.iter().enumerate() {
        assert_eq!(segment.id, index);
        assert!(segment.seek < 437 && segment.seek as f64 / 100.0 <= segment.start && segment.start < segment.end);
        assert!(segment.avg_logprob < 0.0 && (0.0..=1.0).contains(&segment.no_speech_prob));
        assert!((0.0..=1.0).contains(&segment.temperature) && !segment.tokens.is_empty());
    }
    // What ends within a character is not the same once it is joined, the rest is.
    let joined: String = said.segments.iter().map(|segment| segment.text.as_str()).collect();
    let known = |text: &str| text.chars().filter(char::is_ascii).collect::<String>();
    assert_eq!(known(&joined), known(std::str::from_utf8(&texts[0]).unwrap()));
}

#[test]
fn what_is_asked_for_is_done_or_refused() {
    let folder = folder();
    let mut model = model(folder.path());
    let with = |name: &str, choice: ParameterChoice| {
        let parameters = vec![(name.to_owned(), InferParameter { parameter_choice: Some(choice) })];
        ModelRequest { parameters, ..request(&[noise(20_000)]) }
    };
    let prompt = |text: &str| with("prompt", ParameterChoice::StringParam(text.to_owned()));
    let plain = texts(&model.run(vec![request(&[noise(20_000)])])[0]);
    assert_ne!(texts(&model.run(vec![prompt("Dashwood")])[0]), plain, "what was said before is heard");
    assert_eq!(texts(&model.run(vec![prompt("  ")])[0]), plain);
    let warm = |temperature| with("temperature", ParameterChoice::DoubleParam(temperature));
    let warm: Vec<_> = [0.0, 0.9, 0.9].into_iter().map(|t| texts(&model.run(vec![warm(t)])[0])).collect();
    assert!(warm[0] == plain && warm[1] == warm[2]);
    let refused = model.run(vec![with("language", ParameterChoice::StringParam("de".into()))]);
    assert!(refused[0].as_ref().is_err_and(|error| error.message.contains("'language' is 'de'")));
}

#[test]
fn what_nobody_waits_for_is_left() {
    let folder = folder();
    let mut model = model(folder.path());
    let left = request(&[noise(90_000)]);
    left.given_up.set();
    let answers = model.run(vec![left, request(&[noise(20_000)])]);
    assert_eq!(answers[0], Err(GivenUp::error()));
    assert_eq!(texts(&answers[1]), texts(&model.run(vec![request(&[noise(20_000)])])[0]));
}

#[test]
fn a_sample_has_its_rows_and_is_answered() {
    let folder = folder();
    let mut model = model(folder.path());
    let sample = model.sample(3);
    assert_eq!(texts(&model.run(vec![sample])[0]).len(), 3);
}

#[test]
fn a_folder_that_does_not_fit_is_refused_by_name() {
    let refusal = |file: &str, from: &str, to: &str| {
        let folder = folder();
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
        let manifest = inspect(&ModelName::new("tiny").unwrap(), folder.path());
        let error = manifest.and_then(|manifest| load(&manifest, &|_| {}).map(|_| ())).unwrap_err();
        let code = if file == "orion.toml" { Code::InvalidArgument } else { Code::FailedPrecondition };
        assert_eq!(error.code, code, "{error}");
        error.message
    };
    for (from, to, words) in [
        ("\"d_model\": 32", "\"d_model\": 40", "d_model is 40, it must be a multiple of 16"),
        ("\"decoder_attention_heads\": 4", "\"decoder_attention_heads\": 5", "multiple of decoder_attention_heads 5"),
        ("\"vocab_size\": 1765", "\"vocab_size\": 51865", "multilingual"),
        ("\"vocab_size\": 1765", "\"vocab_size\": 300", "token_embedding.weight' has shape [1765, 32]"),
        ("\"gelu\"", "\"relu\"", "activation_function 'relu'"),
        ("\"max_source_positions\": 80", "\"max_source_positions\": 1501", "max_source_positions is 1501"),
        ("\"max_target_positions\": 24", "\"max_target_positions\": 3", "max_target_positions is 3"),
        ("\"decoder_layers\": 2", "\"decoder_layers\": 3", "'decoder.blocks.2.attn.query.weight' is missing"),
        ("\"encoder_ffn_dim\": 48", "\"encoder_ffn_dim\": 64", "'encoder.blocks.0.mlp.0.weight' has shape [48, 32]"),
    ] {
        let message = refusal("config.json", from, to);
        assert!(message.contains(words), "{message}");
    }
    let message = refusal("tokenizer.json", "<|startofprev|>", "<|other|>");
    assert!(message.contains("tokenizer.json has no token '<|startofprev|>'"), "{message}");
}

#[test]
fn half_precision_encodes_nearly_the_same_in_less_memory() {
    let folder = folder();
    let encoded = |precision: Precision| {
        let source = Source::inspect(folder.path(), precision).unwrap();
        let model = Transcriber::load(&source, &|_| {}).unwrap();
        let transform = mel::MelTransform::new(source.config.num_mel_bins);
        let (mut builder, clip) = (transform.begin(), noise(50_000).into());
        audio::read(&clip, &GivenUp::default(), &mut |samples| builder.extend(samples)).unwrap();
        let window = builder.finish().window(0, source.config.window_frames());
        let spec = source.spec(&ModelName::new("tiny").unwrap(), "1".into(), 4);
        (model.encoder.encode(&window), spec.memory_bytes)
    };
    let (whole, most_bytes) = encoded(Precision::F32);
    for (precision, most) in [(Precision::F16, 5e-3), (Precision::Bf16, 5e-2)] {
        let (half, bytes) = encoded(precision);
        let difference = whole.iter().zip(&half).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference > 0.0 && difference < most, "{precision:?}: {difference:e}");
        assert!(bytes < most_bytes, "{precision:?}: {bytes} of {most_bytes}");
    }
}

/// Values of the authors' implementation on clip 0870 with the real weights.
#[derive(Deserialize)]
struct Expected {
    mel: Places,
    encoded: Places,
    logits: Logits,
    without_timestamps: Vec<u32>,
    suppressed: Vec<u32>,
}

#[derive(Deserialize)]
struct Places {
    #[serde(alias = "frames")]
    positions: Vec<usize>,
    values: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Logits {
    tokens: Vec<u32>,
    values: Vec<Vec<f32>>,
    greatest: Vec<u32>,
}

impl Places {
    /// The greatest difference to rows of so many values, of which each `step`-th is here.
    fn difference(&self, rows: &[f32], width: usize, step: usize) -> f32 {
        let row = |(position, want): (&usize, &Vec<f32>)| {
            let got = rows[position * width..][..width].iter().step_by(step);
            assert_eq!(got.len(), want.len());
            got.zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        self.positions.iter().zip(&self.values).map(row).fold(0.0, f32::max)
    }
}

/// `scripts/fetch-models` fetches model and clips; `ORION_MODELS` names another folder than `models-data`.
#[test]
fn each_stage_agrees_with_the_reference() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let root = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default));
    let clip = root.join("samples/librivox/sense_and_sensibility_01_austen_64kb-0870.wav");
    let folder = root.join("whisper-tiny-en");
    if !clip.exists() || !folder.exists() {
        println!("skipped: {} or {} is not there", clip.display(), folder.display());
        return;
    }
    let text = include_str!("../../../tests/data/expected/whisper-tiny-en.json");
    let expected: Expected = serde_json::from_str(text).unwrap();
    let source = Source::inspect(&folder, Precision::F32).unwrap();
    let model = Transcriber::load(&source, &|_| {}).unwrap();
    let suppressed = &model.vocabulary.suppressed;
    // The last one is that of no time stamps, which the reference's rules suppress elsewhere.
    assert_eq!(
        (&suppressed[..suppressed.len() - 1], suppressed.last()),
        (expected.suppressed.as_slice(), Some(&50_362))
    );

    let transform = mel::MelTransform::new(80);
    let mut builder = transform.begin();
    let clip = std::fs::read(clip).unwrap().into();
    audio::read(&clip, &GivenUp::default(), &mut |samples| builder.extend(samples)).unwrap();
    let window = builder.finish().window(0, 3000);
    let mel = expected.mel.difference(&window[80..], 80, 8);
    let encoded = model.encoder.encode(&window);
    let encoder = expected.encoded.difference(&encoded, 384, 32);

    let mut state = model.decoder.state();
    model.decoder.listen(&encoded, &mut state);
    let mut decoder: f32 = 0.0;
    for (index, (want, greatest)) in expected.logits.values.iter().zip(&expected.logits.greatest).enumerate() {
        let logits = forward(&model, &expected.logits.tokens[index..=index], &mut state);
        let row = Places { positions: vec![0], values: vec![want.clone()] };
        decoder = decoder.max(row.difference(&logits, logits.len(), 4096));
        assert_eq!(likeliest(&logits, &[]), *greatest);
    }
    println!("greatest differences: spectrogram {mel:e}, encoder {encoder:e}, logits {decoder:e}");
    assert!(mel < 1e-4 && encoder < 1e-3 && decoder < 1e-3);

    // Greedy without time stamps: the simplest way in which Whisper is used.
    state.forget_text();
    let mut logits = forward(&model, &[50_257, 50_362], &mut state);
    let mut written = Vec::new();
    loop {
        let token = likeliest(&logits, &expected.suppressed);
        if token == 50_256 {
            break;
        }
        written.push(token);
        logits = forward(&model, &[token], &mut state);
    }
    assert_eq!(written, expected.without_timestamps);
}

fn forward(model: &Transcriber, tokens: &[u32], state: &mut decoder::State) -> Vec<f32> {
    model.decoder.forward(&mut [decoder::Input { tokens, state }])
}

fn likeliest(logits: &[f32], suppressed: &[u32]) -> u32 {
    let allowed = (0..).zip(logits).filter(|(token, _)| !suppressed.contains(token));
    allowed.max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0
}
