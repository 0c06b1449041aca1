//! The real model against its authors' implementation. `scripts/fetch-models whisper-tiny-en --to models-data` fetches it,
//! `scripts/fetch-models librivox --to samples-data` the clips. `ORION_MODELS` and `ORION_SAMPLES` name other folders.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::PathBuf;

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{
    Datatype, InferAnswer, ModelName, Payload, Result, Tensor, bytes_elements, encode_bytes_elements,
    inference::{InferParameter, infer_parameter::ParameterChoice},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    clips: Vec<Clip>,
    long: Long,
}

#[derive(Deserialize)]
struct Clip {
    name: String,
    /// What is said, as those wrote who recorded it.
    spoken: String,
    text: String,
    segments: Vec<(f64, f64, String)>,
}

#[derive(Deserialize)]
struct Long {
    clips: Vec<usize>,
    text: String,
    segments: Vec<(f64, f64, String)>,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/data/expected/whisper-tiny-en.json")).unwrap()
}

/// A model, and files for it.
type Fetched = (Box<dyn Model>, Vec<Vec<u8>>);

/// The fetched model and the clips, as files; `None`, said aloud, where they were not fetched.
fn fetched() -> Option<Fetched> {
    let folder = |variable: &str, name: &str| {
        let default = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
        PathBuf::from(std::env::var(variable).unwrap_or(default))
    };
    let path = folder("ORION_MODELS", "models-data").join("whisper-tiny-en");
    let samples = folder("ORION_SAMPLES", "samples-data").join("librivox");
    for path in [&path, &samples] {
        if !path.exists() {
            println!("skipped: {} is not there", path.display());
            return None;
        }
    }
    let clips = expected().clips.iter().map(|clip| std::fs::read(samples.join(&clip.name)).unwrap()).collect();
    let manifest = inspect(&ModelName::new("whisper-tiny-en").unwrap(), &path).unwrap();
    Some((load(&manifest, &|_| {}).unwrap().model().unwrap(), clips))
}

fn request<E: AsRef<[u8]>>(files: &[E]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(files));
    let tensor = Tensor::new("audio", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
}

fn texts(answer: &Result<InferAnswer>) -> Vec<String> {
    let text = &answer.as_ref().unwrap().outputs[0];
    let elements = bytes_elements("text", &text.data.contiguous(), text.rows()).unwrap();
    elements.iter().map(|element| String::from_utf8(element.to_vec()).unwrap()).collect()
}

/// The segments of each file, as they start, end and read.
fn segments(answer: &Result<InferAnswer>) -> Vec<Vec<(f64, f64, String)>> {
    #[derive(Deserialize)]
    struct Record {
        segments: Vec<Segment>,
    }
    #[derive(Deserialize)]
    struct Segment {
        start: f64,
        end: f64,
        text: String,
    }
    let segments = &answer.as_ref().unwrap().outputs[1];
    let elements = bytes_elements("segments", &segments.data.contiguous(), segments.rows()).unwrap();
    let records = elements.iter().map(|element| serde_json::from_slice::<Record>(element).unwrap());
    records.map(|record| record.segments.into_iter().map(|one| (one.start, one.end, one.text)).collect()).collect()
}

/// Words without what only writing has.
fn words(text: &str) -> Vec<String> {
    let plain = text.to_lowercase().replace("mr.", "mister").replace('-', " ");
    plain.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()).collect()
}

/// The least number of words to replace, leave out or add between two texts.
fn word_errors(wanted: &[String], got: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=got.len()).collect();
    for (line, want) in wanted.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, word) in got.iter().enumerate() {
            let least = (diagonal + usize::from(word != want)).min(row[column] + 1).min(row[column + 1] + 1);
            diagonal = std::mem::replace(&mut row[column + 1], least);
        }
    }
    row[got.len()]
}

/// A WAV file of 16-bit samples.
fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    let bytes = 2 * samples.len() as u32;
    let mut wav = [b"RIFF".as_slice(), &(36 + bytes).to_le_bytes(), b"WAVEfmt ", &16u32.to_le_bytes()].concat();
    wav.extend([1, channels].iter().flat_map(|value| value.to_le_bytes()));
    wav.extend([rate, rate * 2 * u32::from(channels)].iter().flat_map(|value| value.to_le_bytes()));
    wav.extend([2 * channels, 16].iter().flat_map(|value| value.to_le_bytes()));
    wav.extend([b"data".as_slice(), &bytes.to_le_bytes()].concat());
    wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

/// The samples of a clip: 16 bits at 16 kHz behind a header of 44 bytes.
fn samples(clip: &[u8]) -> Vec<i16> {
    clip[44..].chunks_exact(2).map(|two| i16::from_le_bytes(two.try_into().unwrap())).collect()
}

#[test]
fn clips_are_written_as_by_the_reference_alone_and_together() {
    let Some((mut model, clips)) = fetched() else { return };
    let expected: Vec<String> = expected().clips.into_iter().map(|clip| clip.text).collect();
    assert_eq!(
        expected[0],
        " And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for \
         them."
    );
    for (clip, text) in clips.iter().zip(&expected) {
        assert_eq!(texts(&model.run(vec![request(&[clip])])[0]), [text.as_str()]);
    }
    let times: Vec<_> = self::expected().clips.into_iter().map(|clip| clip.segments).collect();
    assert_eq!(segments(&model.run(vec![request(&clips)])[0]), times);
    let together = model.run(vec![request(&clips[3..]), request(&[b"no audio"]), request(&clips[..3])]);
    assert_eq!(texts(&together[0]), expected[3..]);
    assert_eq!(texts(&together[2]), expected[..3]);
    let refused = together[1].as_ref().unwrap_err();
    assert!(refused.message.contains("element 0 of input 'audio' cannot be read"), "{refused}");
}

#[test]
fn a_minute_is_written_as_by_the_reference() {
    let Some((mut model, clips)) = fetched() else { return };
    let Long { clips: order, text, segments: times } = expected().long;
    let minute: Vec<i16> = order.iter().flat_map(|clip| samples(&clips[*clip])).collect();
    let answers = model.run(vec![request(&[wav(16_000, 1, &minute)])]);
    assert_eq!(texts(&answers[0]), [text]);
    assert_eq!(segments(&answers[0]), [times]);
}

#[test]
fn few_words_are_not_those_that_were_spoken() {
    let Some((mut model, clips)) = fetched() else { return };
    let Expected { clips: spoken, long } = expected();
    let spoken: Vec<Vec<String>> = spoken.iter().map(|clip| words(&clip.spoken)).collect();
    let minute: Vec<i16> = long.clips.iter().flat_map(|clip| samples(&clips[*clip])).collect();
    let minute_spoken: Vec<String> = long.clips.iter().flat_map(|clip| spoken[*clip].clone()).collect();
    let alone = texts(&model.run(vec![request(&clips)])[0]);
    let errors: usize = spoken.iter().zip(&alone).map(|(want, got)| word_errors(want, &words(got))).sum();
    let all: usize = spoken.iter().map(Vec::len).sum();
    let together = &texts(&model.run(vec![request(&[wav(16_000, 1, &minute)])])[0])[0];
    let minute_errors = word_errors(&minute_spoken, &words(together));
    println!("wrong words: {errors} of {all} in clips, {minute_errors} of {} in a minute", minute_spoken.len());
    assert!(errors * 100 < all * 6 && minute_errors * 100 < minute_spoken.len() * 6);
}

#[test]
fn a_prompt_spells_names() {
    let Some((mut model, clips)) = fetched() else { return };
    let text = "Mr. John Dashwoode, Mrs. Dashwoode and the Dashwoodes.".to_owned();
    let prompt = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text)) };
    let asked = ModelRequest { parameters: vec![("prompt".to_owned(), prompt)], ..request(&clips[..1]) };
    let answers = model.run(vec![asked]);
    assert!(texts(&answers[0])[0].contains("Dashwoode"), "{:?}", texts(&answers[0]));
}

#[test]
fn other_rates_and_channels_are_written_alike() {
    let Some((mut model, clips)) = fetched() else { return };
    let clip = samples(&clips[0]);
    // Twice the rate by straight lines, which is a filter poor enough to need the resampler's.
    let between = |at: usize| (i32::from(clip[at]) + i32::from(*clip.get(at + 1).unwrap_or(&0))) / 2;
    let doubled = (0..clip.len()).flat_map(|at| [clip[at], between(at) as i16]);
    let stereo: Vec<i16> = doubled.flat_map(|sample| [sample, sample]).collect();
    let answers = model.run(vec![request(&[wav(32_000, 2, &stereo)])]);
    assert_eq!(texts(&answers[0]), [expected().clips[0].text.as_str()]);
    let sample = model.sample(2);
    let text = &expected().clips[0].text;
    assert_eq!(texts(&model.run(vec![sample])[0]), [text.as_str(), text]);
}

#[test]
fn silence_has_no_text() {
    let Some((mut model, _)) = fetched() else { return };
    let answers = model.run(vec![request(&[wav(16_000, 1, &[0; 80_000]), wav(16_000, 1, &[])])]);
    // A file without samples is none that could be read.
    assert!(answers[0].as_ref().is_err_and(|error| error.message.contains("element 1")));
    assert_eq!(texts(&model.run(vec![request(&[wav(16_000, 1, &[0; 80_000])])])[0]), [""]);
}
