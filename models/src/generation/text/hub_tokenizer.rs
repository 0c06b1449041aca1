//! The tokenizer of a hub's folder: `tokenizer.json`, and what stands beside it.

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    template::ChatTemplate,
    token_bytes::{Spelling, TokenBytes, spell},
    vocabulary::Vocabulary,
};
use crate::{
    tokenizer::{self, Tokenizer},
    unservable,
};

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    bos_token: Json,
    eos_token: Json,
    chat_template: Json,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EndTokens {
    eos_token_id: Json,
}

/// A file of the folder, its defaults where it is missing.
fn read<T: Default + serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(T::default());
    }
    serde_json::from_slice(&crate::file::read_text(&path)?)
        .map_err(|error| unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase())))
}

/// A token's text: it stands there as it is, or in an object.
fn token_text(token: &Json) -> Option<String> {
    token.as_str().or_else(|| token.get("content").and_then(Json::as_str)).map(str::to_owned)
}

/// Builds the vocabulary of a model with so many tokens.
///
/// # Errors
/// FAILED_PRECONDITION naming the file that cannot be read.
pub(crate) fn vocabulary(folder: &Path, count: usize) -> Result<Vocabulary> {
    let path = folder.join("tokenizer.json");
    let tokenizer = tokenizer::read(&path)?;
    let decoder = tokenizer.get_decoder().map(serde_json::to_string).transpose().map_err(|error| {
        unservable(format!("{} cannot be read: {}", path.display(), error.to_string().to_lowercase()))
    })?;
    let has = |kind: &str| decoder.as_deref().is_some_and(|decoder| decoder.contains(kind));
    let spelling = if has("ByteLevel") { Spelling::ByteLevel } else { Spelling::SentencePiece };

    let config: TokenizerConfig = read(folder, "tokenizer_config.json")?;
    let (start, end) = (token_text(&config.bos_token), token_text(&config.eos_token));
    let mut ends = ends(folder, &tokenizer)?;
    ends.sort_unstable();
    ends.dedup();
    let source = template_source(folder, &config.chat_template)?;
    let template = source.map(|source| ChatTemplate::new(&source, start.clone(), end)).transpose()?;
    // The post-processor puts the start token there, if the tokenizer has it.
    let begin = start.as_deref().and_then(|start| tokenizer.token_to_id(start));
    let begin = begin.or_else(|| tokenizer.encode_fast("", true).ok()?.get_ids().last().copied());
    Ok(Vocabulary {
        bytes: token_bytes(&tokenizer, spelling, count)?,
        start: None,
        begin,
        ends,
        strips: spelling == Spelling::SentencePiece && (has("Strip") || has("Metaspace")),
        template,
        tokenizer,
    })
}

/// The tokens that end a text: that of the tokenizer first, then those of the configurations.
fn ends(folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let TokenizerConfig { eos_token, .. } = read(folder, "tokenizer_config.json")?;
    let named = token_text(&eos_token).and_then(|end| tokenizer.token_to_id(&end));
    let mut ends: Vec<u32> = named.into_iter().collect();
    for name in ["config.json", "generation_config.json"] {
        let EndTokens { eos_token_id } = read(folder, name)?;
        let listed = eos_token_id.as_array().cloned().unwrap_or_else(|| vec![eos_token_id]);
        ends.extend(listed.iter().filter_map(Json::as_u64).filter_map(|id| u32::try_from(id).ok()));
    }
    Ok(ends)
}

/// The token with which a text that is learnt from ends, where there is one.
///
/// # Errors
/// As [`vocabulary`].
pub(super) fn end(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    Ok(ends(folder, tokenizer)?.first().copied())
}

/// The bytes of each of `count` tokens: none for special ones and those that the tokenizer does not know.
fn token_bytes(tokenizer: &Tokenizer, spelling: Spelling, count: usize) -> Result<TokenBytes> {
    let (model, added) = (tokenizer.get_model(), tokenizer.get_added_tokens_decoder());
    let greatest = tokenizer::greatest(tokenizer);
    if greatest as usize >= count {
        return Err(unservable(format!("the tokenizer has the token {greatest}, the model's vocabulary has {count}")));
    }
    let mut bytes = TokenBytes::default();
    for id in 0..=greatest {
        bytes.push(|out| match added.get(&id) {
            Some(added) if added.special => {}
            Some(added) => out.extend_from_slice(added.content.as_bytes()),
            None => model.with_text(id, |token| spell(spelling, token, out)),
        });
    }
    Ok(bytes)
}

/// The chat template: a file of its own, a text, or that of a list which is called `default`.
fn template_source(folder: &Path, config: &Json) -> Result<Option<String>> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let text = String::from_utf8(crate::file::read_text(&path)?);
        return text.map(Some).map_err(|error| unservable(format!("{} is no UTF-8: {error}", path.display())));
    }
    let named = |entry: &&Json| entry.get("name").and_then(Json::as_str) == Some("default");
    let listed = config.as_array().and_then(|list| list.iter().find(named)).and_then(|entry| entry.get("template"));
    Ok(config.as_str().or_else(|| listed.and_then(Json::as_str)).map(str::to_owned))
}

/// Whether the folder has a chat template.
///
/// # Errors
/// As [`vocabulary`].
pub(crate) fn has_template(folder: &Path) -> Result<bool> {
    let config: TokenizerConfig = read(folder, "tokenizer_config.json")?;
    template_source(folder, &config.chat_template).map(|source| source.is_some())
}
