//! A transcript in the formats of OpenAI's API: JSON, text, and the subtitles SRT and WebVTT.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use orion_proto::{Code, Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Refusal, settings::about};
use crate::api::http::reply;

/// How a transcript is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Text,
    VerboseJson,
    Srt,
    Vtt,
}

impl Format {
    /// From the name in a request.
    pub(super) fn read(name: &str) -> std::result::Result<Self, Refusal> {
        match name {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            "verbose_json" => Ok(Self::VerboseJson),
            "srt" => Ok(Self::Srt),
            "vtt" => Ok(Self::Vtt),
            other => {
                let shown = reply::excerpt(other);
                let text =
                    format!("response_format '{shown}' is unknown, it must be json, text, srt, verbose_json or vtt");
                Err(about("response_format", text))
            }
        }
    }
}

/// A model's own JSON of one transcript.
#[derive(Deserialize)]
struct Record {
    language: String,
    /// Seconds.
    duration: f64,
    segments: Vec<Value>,
}

/// What subtitles need of a segment.
#[derive(Deserialize)]
struct Cue {
    /// Seconds.
    start: f64,
    /// Seconds.
    end: f64,
    text: String,
}

/// The answer to a request; `segments` is the model's JSON of the times.
///
/// # Errors
/// INTERNAL where the format needs times and `segments` has none.
pub(super) fn render(format: Format, text: &str, segments: Option<&str>) -> Result<Response> {
    let text = text.trim();
    let wrong = || Error::new(Code::Internal, "the model's output 'segments' is no transcript with its times");
    let record = segments.map(|json| serde_json::from_str::<Record>(json).map_err(|_| wrong())).transpose()?;
    // Orion counts whole seconds as OpenAI bills them.
    let usage = record.as_ref().map(|record| json!({"type": "duration", "seconds": record.duration.ceil() as u64}));
    Ok(match (format, record) {
        (Format::Text, _) => plain(format!("{text}\n")),
        (Format::Json, _) => {
            let mut body = json!({"text": text});
            usage.into_iter().for_each(|usage| body["usage"] = usage);
            reply::json(&body)
        }
        (_, None) => return Err(wrong()),
        (Format::VerboseJson, Some(Record { language, duration, segments })) => reply::json(&json!({
            "task": "transcribe", "language": language, "duration": duration, "text": text,
            "segments": segments, "usage": usage,
        })),
        (Format::Srt, Some(record)) => plain(subtitles(record, ',', true).ok_or_else(wrong)?),
        (Format::Vtt, Some(record)) => plain(format!("WEBVTT\n\n{}", subtitles(record, '.', false).ok_or_else(wrong)?)),
    })
}

fn plain(text: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response()
}

/// One block for each segment; `point` stands before the milliseconds.
fn subtitles(record: Record, point: char, numbered: bool) -> Option<String> {
    let mut out = String::new();
    for (index, segment) in record.segments.into_iter().enumerate() {
        let cue: Cue = serde_json::from_value(segment).ok()?;
        if numbered {
            out.push_str(&format!("{}\n", index + 1));
        }
        let (start, end) = (clock(cue.start, point), clock(cue.end, point));
        // An arrow in the text would begin another block's times.
        out.push_str(&format!("{start} --> {end}\n{}\n\n", cue.text.trim().replace("-->", "->")));
    }
    Some(out)
}

/// Seconds as `hours:minutes:seconds` with three digits behind the point.
fn clock(seconds: f64, point: char) -> String {
    let all = (seconds.max(0.0) * 1000.0).round() as u64;
    let (hours, minutes, seconds, millis) = (all / 3_600_000, all / 60_000 % 60, all / 1000 % 60, all % 1000);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{millis:03}")
}
