//! The lines of a file of calls.

use std::borrow::Cow;

use orion_proto::{
    Code, Error, Result,
    jobs::{FileCalls, HttpCall},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls;

/// Bytes of a line.
pub(super) const LONGEST: usize = 2 << 20;
/// Bytes of what a line calls itself.
const CUSTOM_ID: usize = 256;

/// A line that is not empty.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// What it calls itself.
    pub(super) custom_id: String,
    /// What it asks for, or what is wrong with it.
    pub(super) call: Result<HttpCall>,
    /// Where it is in its file.
    pub(super) from: u64,
    /// How many bytes it has there; 0: it cannot be read there alone.
    pub(super) bytes: u64,
}

/// What was read of a file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lines {
    /// In their order.
    pub(super) lines: Vec<Line>,
    /// Bytes that they took; 0: the piece holds no whole line.
    pub(super) bytes: u64,
    /// How many there were, empty ones too.
    pub(super) count: u64,
}

/// A line as OpenAI's batches have it.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Written<'l> {
    #[serde(borrow, default)]
    custom_id: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    method: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    url: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    body: Option<&'l RawValue>,
}

/// A piece of a file.
#[derive(Clone, Copy)]
pub(super) struct Piece<'p> {
    pub(super) bytes: &'p [u8],
    /// Where it begins, and how many lines are before it.
    pub(super) from: u64,
    pub(super) before: u64,
    /// Whether the file ends with it.
    pub(super) is_last: bool,
}

/// Reads at most so many lines from a piece of a file.
pub(super) fn lines(piece: Piece<'_>, most: usize, of: &FileCalls) -> Lines {
    let Piece { from, before, is_last, .. } = piece;
    let mut read = Lines::default();
    let mut rest = piece.bytes;
    while !rest.is_empty() && read.lines.len() < most {
        let (line, taken) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], end + 1),
            None if is_last => (rest, rest.len()),
            None => break,
        };
        let (from, bytes) = (from + read.bytes, taken as u64);
        read.count += 1;
        read.bytes += bytes;
        rest = &rest[taken..];
        let line = trimmed(line);
        if !line.is_empty() {
            let (custom_id, call) = parsed(line, of);
            read.lines.push(Line { number: before + read.count, custom_id, call, from, bytes });
        }
    }
    read
}

/// A line that is longer than any may be.
pub(super) fn too_long(number: u64) -> Line {
    let text = format!("line {number} is too long, a line may have {LONGEST} bytes");
    Line { number, custom_id: String::new(), call: Err(Error::invalid(text)), from: 0, bytes: 0 }
}

/// What a line asks for, by its bytes.
///
/// # Errors
/// INVALID_ARGUMENT naming what is wrong with it.
pub(super) fn line(bytes: &[u8], of: &FileCalls) -> Result<HttpCall> {
    parsed(trimmed(bytes), of).1
}

/// Without what is around it; the first line of a file may have a mark of its encoding.
fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii()
}

fn parsed(line: &[u8], of: &FileCalls) -> (String, Result<HttpCall>) {
    if line.len() > LONGEST {
        return (String::new(), Err(Error::invalid(format!("the line is too long, one may have {LONGEST} bytes"))));
    }
    let written: Written<'_> = match calls::is_object("the line", line).map(|()| serde_json::from_slice(line)) {
        Err(error) => return (String::new(), Err(error)),
        Ok(Ok(written)) => written,
        Ok(Err(error)) => {
            // The parser counts lines of this one alone.
            let why = error.to_string().replace(" at line 1 column ", " at byte ");
            return (String::new(), Err(Error::invalid(format!("the line is not what it must be: {why}"))));
        }
    };
    let custom_id = written.custom_id.as_deref().unwrap_or_default().to_owned();
    named(custom_id, call(line, &written, of))
}

/// What is around the body of a table's row where it is kept as a line.
pub(super) const AROUND: [&str; 2] = [r#"{"body":"#, "}\n"];

/// A row of a table, which is not found by its bytes alone.
pub(super) fn row(number: u64, custom_id: String, call: Result<HttpCall>) -> Line {
    let call = call.and_then(|call| match call.body.len() + AROUND[0].len() + AROUND[1].len() {
        bytes if bytes > LONGEST => Err(Error::invalid(format!("the row is too long, one may have {LONGEST} bytes"))),
        _ => Ok(call),
    });
    let (custom_id, call) = named(custom_id, call);
    Line { number, custom_id, call, from: 0, bytes: 0 }
}

/// What a line calls itself, and its call, where that is short enough.
pub(super) fn named(custom_id: String, call: Result<HttpCall>) -> (String, Result<HttpCall>) {
    if custom_id.len() <= CUSTOM_ID {
        return (custom_id, call);
    }
    let text = format!("custom_id has {} bytes, it may have {CUSTOM_ID}", custom_id.len());
    (String::new(), Err(Error::invalid(text)))
}

fn call(line: &[u8], written: &Written<'_>, of: &FileCalls) -> Result<HttpCall> {
    let (body, said) = match written.body {
        Some(body) => (body.get().as_bytes(), written.url.as_deref().unwrap_or_default()),
        None if written.url.is_some() => return Err(Error::invalid("the line has a url and no body")),
        None => (line, ""),
    };
    if let Some(method) = written.method.as_deref().filter(|method| *method != "POST") {
        return Err(Error::invalid(format!("method '{}' must be POST", method.escape_default())));
    }
    let path = match (said, of.path.as_str()) {
        ("", "") => {
            let text = "neither the line nor its job says what it calls: give a path, or a url in each line";
            return Err(Error::invalid(text));
        }
        ("", path) | (path, "") => path,
        (said, path) if said == path => path,
        (said, path) => {
            let text = format!("url '{}' is not that of its job, {path}", said.escape_default());
            return Err(Error::new(Code::InvalidArgument, text));
        }
    };
    let mut call = HttpCall { path: path.to_owned(), body: body.to_vec().into(), model: of.model.clone() };
    calls::complete(&mut call)?;
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, model: &str) -> FileCalls {
        FileCalls { file_id: "file-1".into(), path: path.into(), model: model.into(), ..FileCalls::default() }
    }

    fn errors(text: &str, of: &FileCalls) -> Vec<String> {
        let read = lines(Piece { bytes: text.as_bytes(), from: 0, before: 0, is_last: true }, 100, of);
        read.lines.into_iter().filter_map(|line| line.call.err()).map(|error| error.message).collect()
    }

    #[test]
    fn lines_of_both_forms_are_read_wherever_the_piece_ends() {
        let openai =
            r#"{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}}"#;
        let text = format!("\u{feff}{openai}\r\n\n  \n{{\"input\": \"y\"}}\n{{\"input\": \"z\"}}");
        let of = of("/v1/embeddings", "m");
        let piece = |from: usize, to: usize, before, is_last| Piece {
            bytes: &text.as_bytes()[from..to],
            from: from as u64,
            before,
            is_last,
        };
        let whole = lines(piece(0, text.len(), 0, true), 100, &of);
        let numbers: Vec<u64> = whole.lines.iter().map(|line| line.number).collect();
        assert_eq!((numbers, whole.count, whole.bytes), (vec![1, 4, 5], 5, text.len() as u64));
        assert_eq!(whole.lines[0].custom_id, "a");
        let body = |line: &Line| String::from_utf8(line.call.clone().unwrap().body.to_vec()).unwrap();
        assert_eq!(body(&whole.lines[0]), r#"{"model": "m", "input": "x"}"#);
        assert_eq!(body(&whole.lines[2]), r#"{"model":"m","input": "z"}"#);
        for end in 0..text.len() {
            let first = lines(piece(0, end, 0, false), 2, &of);
            let rest = lines(piece(first.bytes as usize, text.len(), first.count, true), 100, &of);
            let both: Vec<_> = first.lines.into_iter().chain(rest.lines).collect();
            assert_eq!(both, whole.lines, "cut at {end}");
            for one in &both {
                let bytes = &text.as_bytes()[one.from as usize..][..one.bytes as usize];
                assert_eq!(line(bytes, &of), one.call);
            }
        }
    }

    #[test]
    fn a_line_that_is_wrong_says_why_and_the_others_go_on() {
        let text = r#"{"input": "x"}
not json
["x"]
{"url": "/v1/embeddings"}
{"method": "GET", "body": {"model": "m"}}
{"url": "/v1/completions", "body": {"model": "m"}}
{"url": "/v1/embeddings", "body": 3}"#;
        let found = errors(text, &of("/v1/embeddings", "m"));
        for (error, part) in
            found.iter().zip(["an object", "an object", "no body", "'GET'", "/v1/completions", "object"])
        {
            assert!(error.contains(part), "{error}: {part}");
        }
        assert_eq!(found.len(), 6);
        assert!(errors(r#"{"model": "m"}"#, &of("", ""))[0].contains("give a path"));
    }
}
