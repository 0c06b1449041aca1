//! How a prompt begins, as chained hashes: prompts that begin alike are known without their text.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

use orion_proto::Prompt;

/// Chunks of a prompt that are hashed, about 750 KiB: what comes after them counts as never seen.
const CHUNKS: usize = 64;
/// Bytes of a prompt's first chunks. Later ones are an eighth of what is before them: that is as exact as it matters.
const FIRST: usize = 128;
const SHARE: usize = 8;
/// Bytes of a token's number.
const TOKEN: usize = 4;

/// Where chunks end, in bytes from the begin.
const ENDS: [usize; CHUNKS] = {
    let mut ends = [FIRST; CHUNKS];
    let mut at = 1;
    while at < CHUNKS {
        let share = ends[at - 1] / SHARE;
        ends[at] = ends[at - 1] + if share > FIRST { share } else { FIRST };
        at += 1;
    }
    ends
};

/// The hashes of a prompt's beginnings, each a chunk longer than the one before it.
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    beginnings: Arc<[u64]>,
    bytes: usize,
    /// Its bytes are tokens' numbers.
    numbers: bool,
}

struct Chain {
    hasher: DefaultHasher,
    at: usize,
    beginnings: Vec<u64>,
}

impl Chain {
    fn add(&mut self, mut bytes: &[u8]) {
        while let Some(end) = ENDS.get(self.beginnings.len()) {
            let Some((chunk, rest)) = bytes.split_at_checked(end - self.at) else { break };
            self.hasher.write(chunk);
            self.beginnings.push(self.hasher.finish());
            (self.at, bytes) = (*end, rest);
        }
        if self.beginnings.len() < CHUNKS {
            self.hasher.write(bytes);
            self.at += bytes.len();
        }
    }
}

impl Prefix {
    /// Of a prompt, under a core's [epoch](super::Core::epoch).
    pub fn new(epoch: u64, prompt: &Prompt) -> Self {
        let mut chain = Chain { hasher: DefaultHasher::new(), at: 0, beginnings: Vec::new() };
        chain.hasher.write_u64(epoch);
        chain.hasher.write_u8(match prompt {
            Prompt::Text(_) => 0,
            Prompt::Tokens(_) => 1,
            Prompt::Chat { .. } => 2,
        });
        let bytes = match prompt {
            Prompt::Text(text) => {
                chain.add(text.as_bytes());
                text.len()
            }
            Prompt::Tokens(tokens) => {
                // No more than is hashed: a prompt may be longer than anything that is looked at.
                let hashed = tokens.iter().take(ENDS[CHUNKS - 1].div_ceil(TOKEN));
                hashed.for_each(|token| chain.add(&token.to_le_bytes()));
                tokens.len().saturating_mul(TOKEN)
            }
            Prompt::Chat { messages, tools } => {
                // Templates put the tools before the messages.
                let tools = tools.as_deref().unwrap_or_default();
                chain.add(tools.as_bytes());
                chain.add(messages.as_bytes());
                tools.len().saturating_add(messages.len())
            }
        };
        Self { beginnings: chain.beginnings.into(), bytes, numbers: matches!(prompt, Prompt::Tokens(_)) }
    }

    /// The shortest beginning first.
    pub(super) fn beginnings(&self) -> &[u64] {
        &self.beginnings
    }

    /// Bytes of the prompt; none where they are tokens' numbers, of which nothing is to be learned.
    pub(super) fn text_bytes(&self) -> Option<f64> {
        (!self.numbers && self.bytes > 0).then_some(self.bytes as f64)
    }

    /// Tokens of the prompt, where a byte of text is so many.
    pub(super) fn tokens(&self, per_byte: f64) -> f64 {
        self.bytes as f64 * self.per_byte(per_byte)
    }

    /// Tokens of the first so many chunks.
    pub(super) fn tokens_of(&self, chunks: usize, per_byte: f64) -> f64 {
        let end = chunks.checked_sub(1).and_then(|last| ENDS.get(last)).copied().unwrap_or(0);
        end as f64 * self.per_byte(per_byte)
    }

    fn per_byte(&self, of_text: f64) -> f64 {
        if self.numbers { 1.0 / TOKEN as f64 } else { of_text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Prefix {
        Prefix::new(7, &Prompt::Text(text.into()))
    }

    fn chat(messages: &str, tools: Option<&str>) -> Prefix {
        Prefix::new(7, &Prompt::Chat { messages: messages.into(), tools: tools.map(str::to_owned) })
    }

    fn common(a: &Prefix, b: &Prefix) -> usize {
        a.beginnings.iter().zip(&*b.beginnings).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn prompts_share_the_chunks_that_they_begin_with() {
        let system = "You are a careful assistant. ".repeat(40);
        let (one, other) = (text(&format!("{system}One?")), text(&format!("{system}Another?")));
        assert_eq!((common(&one, &other), one.beginnings.len()), (9, 9), "1160 bytes and a question");
        // What differs early shares nothing, whatever comes after it.
        assert_eq!(common(&one, &text(&format!("X{system}One?"))), 0);
        let late = format!("{}X{}", &system[..700], &system[701..]);
        assert_eq!(common(&one, &text(&late)), 5);
    }

    #[test]
    fn forms_epochs_and_tools_are_told_apart() {
        let system = "[{\"role\":\"system\"}]".repeat(40);
        assert_eq!(common(&text(&system), &chat(&system, None)), 0);
        assert_eq!(common(&text(&system), &Prefix::new(8, &Prompt::Text(system.clone()))), 0);
        let tools = "[{\"type\":\"function\"}]".repeat(10);
        let with = chat(&system, Some(&tools));
        assert_eq!(common(&with, &chat(&system, None)), 0);
        assert_eq!(common(&with, &chat(&system.replace("system", "user"), Some(&tools))), 1);
    }

    #[test]
    fn a_long_prompt_is_looked_at_up_to_a_bound_and_counts_whole() {
        let long = text(&"a".repeat(4 << 20));
        assert_eq!((long.beginnings.len(), long.tokens(0.25)), (CHUNKS, (1u64 << 20) as f64));
        assert!((700_000.0..800_000.0).contains(&long.tokens_of(CHUNKS, 1.0)));
        let tokens = Prefix::new(7, &Prompt::Tokens(vec![5; 1 << 20]));
        assert_eq!(
            (tokens.beginnings.len(), tokens.tokens(9.0), tokens.text_bytes()),
            (CHUNKS, (1u64 << 20) as f64, None)
        );
        let short = text("short");
        assert_eq!((short.beginnings.len(), short.tokens_of(0, 1.0), short.text_bytes()), (0, 0.0, Some(5.0)));
    }
}
