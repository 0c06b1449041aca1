use std::collections::BTreeSet;

use proptest::{prelude::*, sample::Index};
use tokenizers::{Model, models::bpe::BPE};

use super::*;

/// What the library makes of a word: ids and bytes.
fn expected(library: &BPE, word: &str) -> Result<Vec<Piece>, String> {
    let tokens = library.tokenize(word).map_err(|error| error.to_string())?;
    let piece = |token: &tokenizers::Token| Piece { id: token.id, bytes: token.offsets.1 - token.offsets.0 };
    Ok(tokens.iter().map(piece).collect())
}

/// A vocabulary over few characters, some of its bytes, and merges of which each makes a token of two.
fn made(cuts: &[(Index, Index)], bytes: &[u8]) -> (Vec<String>, Vec<(String, String)>) {
    let mut tokens: Vec<String> = ["a", "b", "c", "é"].map(str::to_owned).into();
    let mut merges = Vec::new();
    for (left, right) in cuts {
        let (left, right) = (left.get(&tokens).clone(), right.get(&tokens).clone());
        let joined = format!("{left}{right}");
        if !tokens.contains(&joined) {
            tokens.push(joined);
        }
        merges.push((left, right));
    }
    tokens.push("<unk>".into());
    tokens.extend(bytes.iter().collect::<BTreeSet<_>>().into_iter().map(|byte| format!("<{byte:#04X}>")));
    (tokens, merges)
}

proptest! {
    #[test]
    fn words_are_cut_as_the_library_cuts_them(
        cuts in prop::collection::vec(any::<(Index, Index)>(), 0..40),
        bytes in prop::collection::vec(0xc0u8..=0xff, 0..60),
        (fuse, fallback, ignore, named) in any::<(bool, bool, bool, bool)>(),
        words in prop::collection::vec("[abcéñ€x]{0,24}", 1..8),
    ) {
        let (tokens, merges) = made(&cuts, &[&bytes[..], &[0x82, 0xac, 0xb1]].concat());
        let unknown = named.then(|| "<unk>".to_owned());
        let vocab: tokenizers::models::bpe::Vocab = tokens.iter().cloned().zip(0..).collect();
        let builder = BPE::builder().fuse_unk(fuse).byte_fallback(fallback).ignore_merges(ignore);
        let builder = unknown.iter().fold(builder, |builder, name| builder.unk_token(name.clone()));
        let library = builder.vocab_and_merges(vocab, merges.clone()).build().unwrap();
        let rules = Rules { unknown, fuse_unknown: fuse, byte_fallback: fallback, ignore_merges: ignore };
        let texts = tokens.iter().map(String::as_str).zip(0..);
        let own = Bpe::new(texts, merges.iter().map(|(left, right)| (&**left, &**right)), rules).unwrap();
        for word in words.iter().filter(|word| !word.is_empty()) {
            prop_assert_eq!(own.pieces(word), expected(&library, word), "{}", word);
        }
    }
}

fn model(fields: &str) -> String {
    format!(r#"{{"vocab": {{"a": 0, "b": 1, "\u0061b": 3, "c d": 4, "c": 5}}, {fields}}}"#)
}

#[test]
fn both_forms_of_merges_are_read_and_other_models_are_left_to_the_library() {
    for merges in [r#"[["a", "b"]]"#, r#"["a b"]"#, r#"["\u0061 b"]"#] {
        let text = model(&format!(r#""type": "BPE", "dropout": null, "end_of_word_suffix": "", "merges": {merges}"#));
        let file: BpeFile<'_> = serde_json::from_str(&text).unwrap();
        assert!(file.is_plain(), "{merges}");
        let bpe = file.build().unwrap();
        assert_eq!(bpe.pieces("aba").unwrap(), [(3, 2), (0, 1)].map(|(id, bytes)| Piece { id, bytes }), "{merges}");
        assert_eq!(
            (bpe.len(), bpe.text(2), bpe.text(4), bpe.text(9), bpe.id("ab")),
            (5, None, Some("c d"), None, Some(3))
        );
    }
    for other in [
        model(r#""merges": [], "type": "WordPiece""#),
        model(r#""merges": [], "dropout": 0.1"#),
        model(r#""merges": [], "end_of_word_suffix": "</w>""#),
        model(r#""merges": [], "continuing_subword_prefix": "@@""#),
        model(r#""merges": [["a", "b", "c"]]"#),
        model(r#""merges": ["a b c"]"#),
        model(r##""merges": ["#version: 0.2", "a b"]"##),
        model(r#""unk_token": "a""#),
        r#"{"vocab": {"a": 4000000000}, "merges": []}"#.into(),
    ] {
        assert!(!serde_json::from_str::<BpeFile<'_>>(&other).is_ok_and(|file| file.is_plain()), "{other}");
    }
    for (merges, missing) in [(r#"["a x"]"#, "'x'"), (r#"["b a"]"#, "'ba'")] {
        let text = model(&format!(r#""merges": {merges}"#));
        let error = serde_json::from_str::<BpeFile<'_>>(&text).unwrap().build().unwrap_err();
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn a_text_that_comes_again_has_its_last_id() {
    for tokens in [
        &[("a", 0), ("b", 1), ("aa", 2), ("ab", 3), ("ab", 4)][..],
        &[("ab", 3), ("a", 0), ("b", 9), ("aa", 2), ("ab", 1), ("b", 0)],
        &[("a", 0), ("b", 1), ("aa", 2), ("ab", 0), ("a", 5), ("a", 3)],
    ] {
        let merges = [("a", "a"), ("a", "b")];
        let own = Bpe::new(tokens.iter().copied(), merges.into_iter(), Rules::default()).unwrap();
        let vocab: tokenizers::models::bpe::Vocab = tokens.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect();
        let owned = merges.map(|(left, right)| (left.to_owned(), right.to_owned())).to_vec();
        let library = BPE::builder().vocab_and_merges(vocab.clone(), owned).build().unwrap();
        for word in ["ab", "aab", "abaa"] {
            assert_eq!(own.pieces(word), expected(&library, word), "{tokens:?}: {word}");
        }
        assert_eq!(
            own.tokens().map(|(text, id)| (text.to_owned(), id)).collect::<tokenizers::models::bpe::Vocab>(),
            vocab
        );
        assert!((0..10).all(|id| own.text(id).is_none_or(|text| vocab[text] == id)), "{tokens:?}");
    }
}
