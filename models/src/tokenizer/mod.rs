//! Text to tokens, by what a `tokenizer.json` says: the tokenizers library around a model that may be our own.

mod bpe;
mod growth;
mod model;

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;
use serde_json::Value as Json;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder, TokenizerImpl,
};

use self::bpe::BpeFile;
pub(crate) use self::{
    bpe::{Bpe, Rules},
    model::TokenModel,
};
use crate::{file, unservable};

/// A tokenizer that neither pads nor cuts.
pub(crate) type Tokenizer =
    TokenizerImpl<TokenModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The parts of the file. Its normaliser is looked at before it is built; its decoder the library reads from values alone, it
/// panics where the text is broken there.
#[derive(Deserialize)]
struct Parts<M> {
    version: Option<String>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Json,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    #[serde(default)]
    decoder: Json,
    model: M,
}

/// Reads and builds a tokenizer.
///
/// # Errors
/// NOT_FOUND or FAILED_PRECONDITION naming the file and what is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Tokenizer> {
    file::check_regular(path)?;
    let text = file::read_text(path)?;
    // The library expects more of some parts than it has checked, such as a precompiled map of characters.
    let parsed = std::panic::catch_unwind(|| parse(&text));
    let parsed = parsed.unwrap_or_else(|_| Err("it does not hold what its parts need".into()));
    parsed.map_err(|reason| unservable(format!("{} cannot be read: {reason}", path.display())))
}

/// The greatest id of a token, its own or an added one.
pub(crate) fn greatest(tokenizer: &Tokenizer) -> u32 {
    let added = tokenizer.get_added_tokens_decoder().keys().copied().max();
    added.max(tokenizer.get_model().greatest()).unwrap_or_default()
}

/// What a library says.
fn said(error: impl std::fmt::Display) -> String {
    error.to_string().to_lowercase()
}

pub(crate) fn parse(text: &[u8]) -> std::result::Result<Tokenizer, String> {
    let text = std::str::from_utf8(text).map_err(said)?;
    // Nearly all of the file is its model: which it is would take as long to find out as to try.
    if let Ok(parts) = serde_json::from_str::<Parts<BpeFile<'_>>>(text)
        && parts.model.is_plain()
    {
        return build(parts, |file| file.build().map(TokenModel::Bpe));
    }
    let parts: Parts<ModelWrapper> = serde_json::from_str(text).map_err(said)?;
    build(parts, |model| Ok(TokenModel::Library(Box::new(model))))
}

fn build<M>(
    parts: Parts<M>,
    model: impl FnOnce(M) -> std::result::Result<TokenModel, String>,
) -> std::result::Result<Tokenizer, String> {
    if let Some(version) = parts.version.filter(|version| version != "1.0") {
        return Err(format!("its version is {version}, known is 1.0"));
    }
    growth::check(&parts.normalizer, &parts.added_tokens)?;
    let normalizer: Option<NormalizerWrapper> =
        serde_json::from_value(parts.normalizer).map_err(|error| format!("its normalizer: {}", said(error)))?;
    let decoder: Option<DecoderWrapper> =
        serde_json::from_value(parts.decoder).map_err(|error| format!("its decoder: {}", said(error)))?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model(parts.model)?)
        .with_normalizer(normalizer)
        .with_pre_tokenizer(parts.pre_tokenizer)
        .with_post_processor(parts.post_processor)
        .with_decoder(decoder)
        .build()
        .map_err(said)?;
    tokenizer.add_tokens(&parts.added_tokens);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;
