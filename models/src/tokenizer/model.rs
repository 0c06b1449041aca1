//! What cuts a word into tokens: our own byte-pair encoding, or one of the library's models.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use tokenizers::{
    Model, ModelWrapper, Token,
    models::{TrainerWrapper, bpe::BpeTrainer},
};

use super::bpe::{self, Bpe};

/// One of both.
#[derive(Debug)]
pub(crate) enum TokenModel {
    Bpe(Bpe),
    Library(Box<ModelWrapper>),
}

impl TokenModel {
    /// The greatest of its tokens' ids.
    pub(super) fn greatest(&self) -> Option<u32> {
        match self {
            Self::Bpe(bpe) => bpe.tokens().map(|(_, id)| id).max(),
            Self::Library(model) => model.get_vocab().values().copied().max(),
        }
    }

    /// Gives a token's text to a function, if it has one.
    pub(crate) fn with_text(&self, id: u32, take: impl FnOnce(&str)) {
        match self {
            Self::Bpe(bpe) => bpe.text(id).map_or((), take),
            Self::Library(model) => model.id_to_token(id).as_deref().map_or((), take),
        }
    }
}

impl Model for TokenModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        let bpe = match self {
            Self::Bpe(bpe) => bpe,
            Self::Library(model) => return model.tokenize(word),
        };
        let mut start = 0;
        let token = |piece: bpe::Piece| {
            let end = start + piece.bytes;
            let text = bpe.text(piece.id).unwrap_or_default().to_owned();
            Token::new(piece.id, text, (std::mem::replace(&mut start, end), end))
        };
        Ok(bpe.pieces(word)?.into_iter().map(token).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Bpe(bpe) => bpe.id(token),
            Self::Library(model) => model.token_to_id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Bpe(bpe) => bpe.text(id).map(str::to_owned),
            Self::Library(model) => model.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Bpe(bpe) => bpe.tokens().map(|(text, id)| (text.to_owned(), id)).collect(),
            Self::Library(model) => model.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Bpe(bpe) => bpe.len(),
            Self::Library(model) => model.get_vocab_size(),
        }
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("a tokenizer is read, not written".into())
    }

    fn get_trainer(&self) -> TrainerWrapper {
        BpeTrainer::default().into()
    }
}
