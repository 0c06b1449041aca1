//! Answers that are JSON of a given form: which tokens may come next.
//!
//! The grammar's work is llguidance's: a schema becomes a parser over bytes, which walks the tree of all tokens' bytes.

use std::sync::Arc;

use llguidance::{
    JsonCompileOptions, Matcher, ParserFactory,
    api::TopLevelGrammar,
    earley::SlicedBiasComputer,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use orion_proto::{Code, Error, Format, Result};
use serde_json::{Value, json};

use super::text::Vocabulary;

/// Bytes of a schema.
const MOST_SCHEMA_BYTES: usize = 256 << 10;
/// States of a grammar's lexer, of 1 to 2 KiB each.
const MOST_LEXER_STATES: usize = 50_000;
/// Bytes of the stack on which a schema is compiled, and of these for each byte of it; only what is used becomes memory. A
/// schema of 256 KiB was seen to use a quarter.
const COMPILER_STACK: usize = 16 << 20;
const STACK_FOR_BYTE: usize = 4 << 10;
/// Tells a token that is no text.
const NO_TEXT: &[u8] = &[TokTrie::SPECIAL_TOKEN_MARKER, b'x'];
/// What stands for the end where a model has no end token.
const NO_END: u32 = u32::MAX;

/// A vocabulary as grammars need it.
pub(crate) struct Grammars(ParserFactory);

impl Grammars {
    /// Of a vocabulary with so many tokens.
    ///
    /// # Errors
    /// INTERNAL for a vocabulary that no grammar can be put over.
    pub(crate) fn new(vocabulary: &Vocabulary, count: usize) -> Result<Self> {
        let word = |token: u32| match vocabulary.bytes(token) {
            [] => NO_TEXT.to_vec(),
            bytes => bytes.to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..count as u32).map(word).collect();
        let ends = vocabulary.ends();
        let trie = TokTrie::from(&TokRxInfo::new(count as u32, ends.first().copied().unwrap_or(NO_END)), &words);
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(ends) };
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
            .map_err(|error| Error::new(Code::Internal, format!("the vocabulary takes no grammar: {error}")))?;
        factory.quiet();
        let limits = factory.limits_mut();
        (limits.verbose_errors, limits.max_lexer_states) = (false, MOST_LEXER_STATES);
        Ok(Self(factory))
    }

    /// The constraint of a format; none where anything may come.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming what of a schema is not served.
    pub(crate) fn constraint(&self, format: &Format) -> Result<Option<Constraint>> {
        let mut schema = match format {
            Format::Text => return Ok(None),
            Format::JsonObject => json!({"type": "object"}),
            Format::JsonSchema(schema) => read(schema)?,
        };
        spacing().apply_to(&mut schema);
        let refused = |error: &dyn std::fmt::Display| {
            let text = error.to_string().replace('\n', " ");
            Error::invalid(format!("the JSON schema cannot be served: {text}"))
        };
        let bytes = if let Format::JsonSchema(schema) = format { schema.len() } else { 0 };
        let parser = on_deep_stack(bytes, || self.0.create_parser(TopLevelGrammar::from_json_schema(schema)))?;
        let matcher = Matcher::new(Ok(parser.map_err(|error| refused(&error))?));
        match matcher.get_error() {
            Some(error) => Err(refused(&error)),
            None => Ok(Some(Constraint(matcher))),
        }
    }
}

/// Runs what calls itself for each definition that refers to another: on the stack of the thread that computes, a few hundred
/// would end the process.
fn on_deep_stack<R: Send>(schema_bytes: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    let failed = |text: &str| Error::new(Code::Internal, format!("the JSON schema could not be compiled: {text}"));
    let stack = COMPILER_STACK + schema_bytes * STACK_FOR_BYTE;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(&error.to_string()))?;
        thread.join().map_err(|_| failed("the compiler panicked"))
    })
}

fn read(schema: &str) -> Result<Value> {
    if schema.len() > MOST_SCHEMA_BYTES {
        let bytes = schema.len();
        let text = format!("the JSON schema has {bytes} bytes, it must have at most {MOST_SCHEMA_BYTES}");
        return Err(Error::invalid(text));
    }
    match serde_json::from_str(schema) {
        Ok(schema @ Value::Object(_)) => Ok(schema),
        Ok(_) => Err(Error::invalid("the JSON schema must be a JSON object")),
        Err(error) => Err(Error::invalid(format!("the JSON schema is no JSON: {error}"))),
    }
}

/// One space after commas and colons, or none: a small model that may write as many as it likes never ends.
fn spacing() -> JsonCompileOptions {
    JsonCompileOptions {
        item_separator: ", ?".into(),
        key_separator: ": ?".into(),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    }
}

/// What an answer must be, from what it is so far.
pub(crate) struct Constraint(Matcher);

/// The schema's fault and nobody else's: elsewhere it would end as it does here.
fn failed(error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    let reason = text.split('<').next().unwrap_or_default().trim();
    Error::invalid(format!("the JSON schema is too intricate to be followed, make it simpler: {reason}"))
}

impl Constraint {
    /// Which tokens may come next.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where finding out would take too long.
    pub(crate) fn allowed(&mut self) -> Result<SimpleVob> {
        self.0.compute_mask_or_eos().map_err(|error| failed(&error))
    }

    /// Takes a token that was allowed; true if nothing may follow.
    ///
    /// # Errors
    /// INTERNAL for a token that was not allowed; INVALID_ARGUMENT where following one that was is too much.
    pub(crate) fn push(&mut self, token: u32) -> Result<bool> {
        self.0.consume_token(token).map_err(|error| {
            match error.to_string().contains("doesn't satisfy the grammar") {
                true => Error::new(Code::Internal, format!("token {token} does not go on with the JSON: {error}")),
                false => failed(&error),
            }
        })?;
        Ok(self.0.is_stopped())
    }
}
