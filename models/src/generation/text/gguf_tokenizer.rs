//! The tokenizer that a GGUF file's metadata describes.

use std::collections::HashMap;

use orion_proto::{Error, Result};
use serde_json::{Value as Json, json};
use tokenizers::{AddedToken, PreTokenizerWrapper};

use super::{
    template::ChatTemplate,
    token_bytes::{Spelling, TokenBytes, spell},
    vocabulary::Vocabulary,
};
use crate::{
    gguf::{Gguf, Value},
    tokenizer::{Bpe, Rules, TokenModel, Tokenizer},
    unservable,
};

/// Types of tokens in the metadata.
const UNKNOWN: u32 = 2;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;
const UNUSED: u32 = 5;

/// Control tokens after which nothing follows, whatever else the metadata names.
const ENDS: [&str; 6] = ["<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"];

/// How GPT-2 cuts words.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// How Llama 3 does.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen 2 does.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn bool(gguf: &Gguf, key: &str) -> Option<bool> {
    gguf.get(&format!("tokenizer.ggml.{key}")).and_then(Value::bool)
}

fn token(gguf: &Gguf, key: &str) -> Option<u32> {
    gguf.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(Value::unsigned).and_then(|id| u32::try_from(id).ok())
}

/// Builds the vocabulary.
///
/// # Errors
/// FAILED_PRECONDITION naming the kind of tokenizer that is not served, or what is missing.
pub(crate) fn vocabulary(gguf: &Gguf) -> Result<Vocabulary> {
    let tokens: Vec<&str> = gguf
        .texts("tokenizer.ggml.tokens")
        .ok_or_else(|| unservable("its metadata has no texts 'tokenizer.ggml.tokens'"))?
        .collect();
    let kinds: Vec<u32> = gguf.words("tokenizer.ggml.token_type").map(Iterator::collect).unwrap_or_default();
    let model = gguf.get("tokenizer.ggml.model").and_then(Value::text).unwrap_or_default();
    let (mut tokenizer, spelling) = match model {
        "gpt2" => (byte_level(gguf, &tokens)?, Spelling::ByteLevel),
        "llama" => (sentence_piece(gguf, &tokens, &kinds)?, Spelling::SentencePiece),
        other => {
            return Err(unservable(format!("its tokenizer.ggml.model is '{other}', served are 'gpt2' and 'llama'")));
        }
    };
    let of_kind = |wanted: &[u32], special: bool| -> Vec<AddedToken> {
        let found = tokens.iter().zip(&kinds).filter(|(token, kind)| wanted.contains(kind) && !token.is_empty());
        found.map(|(token, _)| AddedToken::from(*token, special).normalized(false)).collect()
    };
    tokenizer.add_special_tokens(&of_kind(&[UNKNOWN, CONTROL], true));
    tokenizer.add_tokens(&of_kind(&[USER_DEFINED], false));
    let text = |id: Option<u32>| id.and_then(|id| tokens.get(id as usize)).map(|token| (*token).to_owned());
    let (start, end) = (token(gguf, "bos"), token(gguf, "eos"));
    // SentencePiece models begin with their start token where the metadata is silent, as ggml has it.
    let adds_start = bool(gguf, "add_bos_token").unwrap_or(spelling == Spelling::SentencePiece);
    let control = tokens.iter().zip(&kinds).zip(0u32..).filter(|((_, kind), _)| **kind == CONTROL);
    let known = control.filter(|((token, _), _)| ENDS.contains(token)).map(|(_, id)| id);
    let mut ends: Vec<u32> = [end, token(gguf, "eot"), token(gguf, "eom")].into_iter().flatten().chain(known).collect();
    ends.sort_unstable();
    ends.dedup();
    let template = gguf.get("tokenizer.chat_template").and_then(Value::text);
    let template = template.map(|source| ChatTemplate::new(source, text(start), text(end))).transpose()?;
    Ok(Vocabulary {
        bytes: token_bytes(&tokens, &kinds, spelling),
        tokenizer,
        start: start.filter(|_| adds_start),
        begin: start,
        ends,
        strips: spelling == Spelling::SentencePiece && bool(gguf, "add_space_prefix").unwrap_or(true),
        template,
    })
}

/// The bytes of each token: none for special ones and those that are unused.
fn token_bytes(tokens: &[&str], kinds: &[u32], spelling: Spelling) -> TokenBytes {
    let mut bytes = TokenBytes::default();
    for (index, token) in tokens.iter().enumerate() {
        bytes.push(|out| match kinds.get(index) {
            Some(&(UNKNOWN | CONTROL | UNUSED)) => {}
            Some(&USER_DEFINED) => out.extend_from_slice(token.as_bytes()),
            _ => spell(spelling, token, out),
        });
    }
    bytes
}

fn tokenizer(tokens: &[&str], merges: &[(&str, &str)], rules: Rules) -> Result<Tokenizer> {
    let bpe = Bpe::new(tokens.iter().copied().zip(0..), merges.iter().copied(), rules)
        .map_err(|reason| unbuildable(&reason))?;
    Ok(Tokenizer::new(TokenModel::Bpe(bpe)))
}

fn unbuildable(error: &dyn std::fmt::Display) -> Error {
    unservable(format!("its tokenizer cannot be built: {}", error.to_string().to_lowercase()))
}

/// A part of a tokenizer from its description.
fn part<T: serde::de::DeserializeOwned>(description: Json) -> Result<T> {
    serde_json::from_value(description).map_err(|error| unbuildable(&error))
}

fn byte_level(gguf: &Gguf, tokens: &[&str]) -> Result<Tokenizer> {
    let merges = gguf
        .texts("tokenizer.ggml.merges")
        .ok_or_else(|| unservable("its metadata has no texts 'tokenizer.ggml.merges'"))?
        .map(|merge| {
            let (left, right) = merge
                .split_once(' ')
                .ok_or_else(|| unservable(format!("'{merge}' of tokenizer.ggml.merges is no pair")))?;
            Ok((left, right))
        })
        .collect::<Result<Vec<_>>>()?;
    let kind = gguf.get("tokenizer.ggml.pre").and_then(Value::text).unwrap_or("default");
    let llama3 = matches!(kind, "llama-bpe" | "llama3" | "llama-v3");
    let mut tokenizer = tokenizer(tokens, &merges, Rules { ignore_merges: llama3, ..Rules::default() })?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(kind)?));
    if kind == "qwen2" {
        tokenizer.with_normalizer(Some(part::<tokenizers::NormalizerWrapper>(json!({"type": "NFC"}))?));
    }
    Ok(tokenizer)
}

/// How text is cut before its bytes are merged, by the name that converters give it.
fn pre_tokenizer(kind: &str) -> Result<PreTokenizerWrapper> {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let steps = match kind {
        "gpt-2" | "default" => vec![split(GPT2)],
        "smollm" => vec![json!({"type": "Digits", "individual_digits": true}), split(GPT2)],
        "llama-bpe" | "llama3" | "llama-v3" => vec![split(LLAMA3)],
        "qwen2" => vec![split(QWEN2)],
        other => {
            return Err(unservable(format!(
                "its tokenizer.ggml.pre is '{other}', served are 'gpt-2', 'smollm', 'llama-bpe', 'qwen2' and 'default'"
            )));
        }
    };
    part(json!({"type": "Sequence", "pretokenizers": steps.into_iter().chain([bytes]).collect::<Vec<_>>()}))
}

/// SentencePiece's BPE: of two neighbours that are a token together, those of the best score are joined first.
fn sentence_piece(gguf: &Gguf, tokens: &[&str], kinds: &[u32]) -> Result<Tokenizer> {
    let scores: Vec<f32> =
        gguf.words("tokenizer.ggml.scores").map(|bits| bits.map(f32::from_bits).collect()).unwrap_or_default();
    if scores.len() != tokens.len() {
        return Err(unservable(format!(
            "its metadata has {} numbers 'tokenizer.ggml.scores' for {} tokens",
            scores.len(),
            tokens.len()
        )));
    }
    let merges = scored_merges(tokens, &scores);
    let unknown = kinds.iter().position(|kind| *kind == UNKNOWN).and_then(|id| tokens.get(id));
    let unknown = unknown.map(|token| (*token).to_owned());
    let rules = Rules { unknown, fuse_unknown: true, byte_fallback: true, ignore_merges: false };
    let mut tokenizer = tokenizer(tokens, &merges, rules)?;
    let mut steps = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    if bool(gguf, "add_space_prefix").unwrap_or(true) {
        steps.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
    }
    let normalizer = json!({"type": "Sequence", "normalizers": steps});
    tokenizer.with_normalizer(Some(part::<tokenizers::NormalizerWrapper>(normalizer)?));
    Ok(tokenizer)
}

/// Every way to make a token of two others, the best score first.
pub(super) fn scored_merges<'t>(tokens: &[&'t str], scores: &[f32]) -> Vec<(&'t str, &'t str)> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let mut merges: Vec<(f32, [usize; 2])> = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let pairs = cuts.filter_map(|(left, right)| Some([*ids.get(left)?, *ids.get(right)?]));
        merges.extend(pairs.map(|pair| (*score, pair)));
    }
    merges.sort_by(|(a, left), (b, right)| b.total_cmp(a).then(left.cmp(right)));
    let text = |id: usize| tokens.get(id).copied().unwrap_or_default();
    merges.into_iter().map(|(_, [left, right])| (text(left), text(right))).collect()
}
