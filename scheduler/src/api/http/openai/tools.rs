//! Calls of tools in what a model writes: `<tool_call>{"name": …, "arguments": …}</tool_call>`, as the chat templates of
//! Qwen, Hermes and SmolLM ask models to write them.

use serde_json::{Value, json};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A call that a model asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    id: String,
    name: String,
    /// JSON text, as OpenAI has it.
    arguments: String,
}

impl Call {
    fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text.trim()).ok()?;
        let name = value.get("name")?.as_str()?.to_owned();
        let arguments =
            value.get("arguments").or_else(|| value.get("parameters")).cloned().unwrap_or_else(|| json!({}));
        let arguments = match arguments {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Some(Self { id: format!("call_{:024x}", rand::random::<u128>() >> 32), name, arguments })
    }

    pub(super) fn json(&self) -> Value {
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
    }
}

/// A whole text: what is said, and what is called. A call that cannot be read stays in the text.
pub(super) fn split(text: &str) -> (String, Vec<Call>) {
    let mut reader = ToolText::default();
    let (said, calls) = reader.add(text, true);
    (said, calls.into_iter().map(|(_, call)| call).collect())
}

/// A text that comes in pieces. What may be the begin of a call is held back until that is known.
#[derive(Debug, Default)]
pub(super) struct ToolText {
    held: String,
    calls: usize,
}

impl ToolText {
    /// Takes the next piece; what is to be said now, and the calls that are whole now, with their numbers.
    pub(super) fn add(&mut self, piece: &str, last: bool) -> (String, Vec<(usize, Call)>) {
        self.held.push_str(piece);
        let (mut said, mut calls) = (String::new(), Vec::new());
        loop {
            let Some(open) = self.held.find(OPEN) else {
                let keep = if last { 0 } else { begun(&self.held) };
                let rest = self.held.split_off(self.held.len() - keep);
                said.push_str(&std::mem::replace(&mut self.held, rest));
                return (said, calls);
            };
            let body = open + OPEN.len();
            let Some(length) = self.held[body..].find(CLOSE) else {
                let held = self.held.split_off(open);
                said.push_str(&std::mem::replace(&mut self.held, held));
                if last {
                    // Without its end: a model that was cut short, or one that forgets it.
                    match Call::read(&self.held[OPEN.len()..]) {
                        Some(call) => calls.push((self.next(), call)),
                        None => said.push_str(&self.held),
                    }
                    self.held.clear();
                }
                return (said, calls);
            };
            let rest = self.held.split_off(body + length + CLOSE.len());
            let with_call = std::mem::replace(&mut self.held, rest);
            match Call::read(&with_call[body..body + length]) {
                Some(call) => {
                    said.push_str(&with_call[..open]);
                    calls.push((self.next(), call));
                }
                None => said.push_str(&with_call),
            }
        }
    }

    /// Whether anything was called.
    pub(super) fn has_calls(&self) -> bool {
        self.calls > 0
    }

    fn next(&mut self) -> usize {
        self.calls += 1;
        self.calls - 1
    }
}

/// Bytes at the end that may be the begin of a call.
fn begun(text: &str) -> usize {
    (1..OPEN.len()).rev().find(|&length| text.ends_with(&OPEN[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Let me see.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\
                        <tool_call>{\"name\": \"now\"}</tool_call> <tool_call>no</tool_call> a < b";

    #[test]
    fn calls_are_taken_out_wherever_the_text_is_cut() {
        let (said, calls) = split(TEXT);
        assert_eq!(said, "Let me see.\n <tool_call>no</tool_call> a < b");
        let named: Vec<_> = calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(named, [("add", "{\"a\":1}"), ("now", "{}")]);
        for size in 1..TEXT.len() {
            let mut reader = ToolText::default();
            let (mut text, mut names) = (String::new(), Vec::new());
            let pieces: Vec<&[u8]> = TEXT.as_bytes().chunks(size).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let (said, calls) = reader.add(std::str::from_utf8(piece).unwrap(), at + 1 == pieces.len());
                text += &said;
                names.extend(calls.into_iter().map(|(number, call)| (number, call.name)));
            }
            assert_eq!(text, said, "in pieces of {size}");
            assert_eq!(names, [(0, "add".to_owned()), (1, "now".to_owned())]);
        }
    }

    #[test]
    fn a_call_without_its_end_counts_if_it_is_whole() {
        let (said, calls) = split("<tool_call>{\"name\":\"f\",\"arguments\":\"{}\"}");
        assert_eq!((said.as_str(), calls.len()), ("", 1));
        assert_eq!(split("<tool_call>{\"name\":").0, "<tool_call>{\"name\":");
    }
}
