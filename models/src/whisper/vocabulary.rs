//! The tokenizer's side: what tokens mean, and which may never be written.

use std::collections::BTreeSet;

use orion_proto::{Code, Error, Result};

use super::Source;
use crate::{
    tokenizer::{self, Tokenizer},
    unservable,
};

/// Symbols that mark what is no speech, such as `[MUSIC]` or `♪`.
const SYMBOLS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" (( )) \
                       ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
/// Of these the first token is enough, since they share it with nothing that is spoken.
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// A tokenizer, and the tokens that steer a transcript.
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    /// Ends a transcript; all tokens of text are below it.
    pub(super) end: u32,
    /// Begins a transcript.
    pub(super) start: u32,
    /// Begins the text that was before.
    pub(super) previous: u32,
    /// What a model says at the start where nobody speaks.
    pub(super) no_speech: u32,
    /// 0.00 s; each token after it is 0.02 s later.
    pub(super) first_timestamp: u32,
    /// Never written.
    pub(super) suppressed: Vec<u32>,
}

impl Vocabulary {
    /// Reads `tokenizer.json`.
    pub(super) fn load(source: &Source) -> Result<Self> {
        let path = source.tokenizer.display();
        let tokenizer = tokenizer::read(&source.tokenizer)?;
        Self::new(tokenizer, &source.config).map_err(|reason| unservable(format!("{path} {reason}")))
    }

    fn new(tokenizer: Tokenizer, config: &super::WhisperConfig) -> std::result::Result<Self, String> {
        let special = |names: &[&str]| {
            let found = names.iter().find_map(|name| tokenizer.token_to_id(name));
            found.ok_or_else(|| format!("has no token '{}'", names[0]))
        };
        let (end, start) = (special(&["<|endoftext|>"])?, special(&["<|startoftranscript|>"])?);
        let previous = special(&["<|startofprev|>"])?;
        let no_speech = special(&["<|nospeech|>", "<|nocaptions|>"])?;
        let no_timestamps = special(&["<|notimestamps|>"])?;
        let first_timestamp = no_timestamps.saturating_add(1);
        let timestamps = config.vocab_size.saturating_sub(first_timestamp as usize);
        let greatest = tokenizer::greatest(&tokenizer) as usize;
        if greatest >= config.vocab_size || timestamps <= config.max_source_positions || end >= no_timestamps {
            return Err(format!(
                "does not fit config.json: a vocab_size of {} leaves {timestamps} tokens for time stamps, {} are needed",
                config.vocab_size,
                config.max_source_positions + 1
            ));
        }
        let mut suppressed = no_speech_tokens(&tokenizer)?;
        suppressed.extend([start, previous, no_speech, no_timestamps]);
        suppressed.extend(
            ["<|transcribe|>", "<|translate|>", "<|startoflm|>"].iter().filter_map(|name| tokenizer.token_to_id(name)),
        );
        let suppressed = suppressed.into_iter().collect();
        Ok(Self { tokenizer, end, start, previous, no_speech, first_timestamp, suppressed })
    }

    /// The tokens of a text that stands before what is transcribed.
    pub(super) fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut tokens = tokens(&self.tokenizer, &format!(" {text}"))
            .map_err(|reason| Error::invalid(format!("parameter 'prompt' {reason}")))?;
        // What steers a transcript, and may be spelt in a text, steers nothing here.
        tokens.retain(|token| *token < self.end);
        Ok(tokens)
    }

    /// The text of some tokens; those that steer are left out.
    pub(super) fn text(&self, tokens: &[u32]) -> Result<String> {
        let text: Vec<u32> = tokens.iter().copied().filter(|token| *token < self.end).collect();
        self.tokenizer
            .decode(&text, false)
            .map_err(|error| Error::new(Code::Internal, format!("the tokenizer cannot write a text: {error}")))
    }
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> std::result::Result<Vec<u32>, String> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|error| format!("cannot write '{text}': {error}"))?;
    Ok(encoding.get_ids().to_vec())
}

/// The tokens of speakers' names, noises and notes, as OpenAI's tokenizer lists them.
fn no_speech_tokens(tokenizer: &Tokenizer) -> std::result::Result<BTreeSet<u32>, String> {
    let mut found = BTreeSet::new();
    // Hyphens and quotes are spoken within words, not before them.
    for text in [" -", " '"] {
        found.extend(tokens(tokenizer, text)?.first());
    }
    for (symbols, whole) in [(SYMBOLS, true), (NOTES, false)] {
        for symbol in symbols.split(' ') {
            for text in [symbol.to_owned(), format!(" {symbol}")] {
                match tokens(tokenizer, &text)?.as_slice() {
                    [first, rest @ ..] if rest.is_empty() || !whole => {
                        found.insert(*first);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}
