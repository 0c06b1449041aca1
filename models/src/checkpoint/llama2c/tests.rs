use crate::tokenizer::Tokenizer;
use proptest::prelude::*;

use super::*;

/// Two layers, four columns, two heads over one, six tokens; element `n` of the file has the value `n`.
const SIZES: [i32; 7] = [4, 3, 2, 2, 1, 6, 5];

fn model(sizes: [i32; 7], floats: usize) -> Vec<u8> {
    let header = sizes.map(i32::to_le_bytes).concat();
    header.into_iter().chain((0..floats).flat_map(|n| (n as f32).to_le_bytes())).collect()
}

/// Elements after the header.
fn floats(tied: bool) -> usize {
    let layer = 4 + 4 * 4 + 2 * (2 * 4) + 4 * 4 + 4 + 3 * (3 * 4);
    6 * 4 + 2 * layer + 4 + 2 * 5 + if tied { 0 } else { 6 * 4 }
}

#[test]
fn tensors_get_hugging_face_s_names_and_its_order_of_rows() {
    let file = model(SIZES, floats(true));
    let header = Header::read(&file).unwrap();
    let views = header.views(file.len()).unwrap();
    assert_eq!(views.len(), 1 + 2 * 9 + 1);
    let values = |name: &str| {
        let view = &views.iter().find(|view| view.0 == name).unwrap().1;
        let mut floats = Vec::new();
        view.runs().for_each(|run| view.element.extend_f32(&file[run], &mut floats));
        (view.shape.clone(), floats.iter().map(|&f| f as usize).collect::<Vec<_>>())
    };
    assert_eq!(values("model.embed_tokens.weight"), (vec![6, 4], (0..24).collect()));
    // After 24 of embeddings and 8 of norms. Heads of two rows: neighbours are halves, nothing moves.
    let query = 24 + 8 + 16;
    assert_eq!(values("model.layers.1.self_attn.q_proj.weight"), (vec![4, 4], (query..query + 16).collect()));
    let down = floats(true) - 10 - 4 - 2 * 12 - 12;
    assert_eq!(values("model.layers.1.mlp.down_proj.weight"), (vec![4, 3], (down..down + 12).collect()));
    assert_eq!(values("model.norm.weight").1[0], floats(true) - 10 - 4);
    // One head of four rows: the even ones, then the odd ones.
    let wide = [4, 3, 2, 1, 1, 6, 5];
    let file = model(wide, floats(true) + 2 * 2 * 8 + 10);
    let views = Header::read(&file).unwrap().views(file.len()).unwrap();
    let view = &views.iter().find(|view| view.0 == "model.layers.0.self_attn.k_proj.weight").unwrap().1;
    let rows: Vec<usize> = view.runs().map(|run| (run.start - 28) / 4 - (24 + 8 + 32)).collect();
    assert_eq!(rows, [0, 8, 4, 12]);
}

#[test]
fn a_classifier_of_its_own_is_found_by_the_negative_vocabulary() {
    let mut sizes = SIZES;
    sizes[5] = -6;
    let file = model(sizes, floats(false));
    let header = Header::read(&file).unwrap();
    assert_eq!(header.views(file.len()).unwrap().last().unwrap().0, "lm_head.weight");
    let config = header.config();
    assert_eq!((&config["vocab_size"], &config["tie_word_embeddings"]), (&json!(6), &json!(false)));
}

#[test]
fn headers_that_do_not_fit_are_refused() {
    let whole = model(SIZES, floats(true));
    let with = |index: usize, size: i32| {
        let mut sizes = SIZES;
        sizes[index] = size;
        model(sizes, floats(true))
    };
    for (file, words) in [
        (whole[..27].to_vec(), "has 27 bytes"),
        (whole[..whole.len() - 1].to_vec(), "its header says"),
        (with(0, -4), "is -4"),
        (with(3, 0), "is 0"),
        (with(3, 3), "4 columns do not fit 3 heads"),
        (with(2, 1 << 20), "its header says"),
        (with(5, i32::MIN), "is 2147483647"),
    ] {
        let error = Header::read(&file).unwrap_err();
        assert!(error.message.contains(words), "{words}: {error}");
    }
}

/// Special tokens, bytes, then letters, joint tokens with their scores, and runs of spaces with one score for all.
fn tokens() -> Vec<(String, f32)> {
    let mut tokens: Vec<(String, f32)> = ["<unk>", "\n<s>\n", "\n</s>\n"].map(|token| (token.to_owned(), 0.0)).into();
    tokens.extend((0..=255u8).map(|byte| (char::from(byte).to_string(), 0.0)));
    let joint = [" a", "an", "na", "ana", "bb", "bbbb", "ban", "b ", "anan", "é ", "\n\n"];
    tokens.extend(joint.iter().enumerate().map(|(n, token)| (token.to_string(), -(n as f32))));
    tokens.extend((2..=7).map(|n| (" ".repeat(n), -1e9)));
    tokens.extend([" ", "a", "n", "b", "é", "\n"].iter().enumerate().map(|(n, t)| (t.to_string(), -100.0 - n as f32)));
    tokens
}

fn tokenizer_bin(tokens: &[(String, f32)]) -> Vec<u8> {
    let entry = |(token, score): &(String, f32)| {
        [&score.to_le_bytes()[..], &(token.len() as i32).to_le_bytes(), token.as_bytes()].concat()
    };
    [27i32.to_le_bytes().to_vec(), tokens.iter().flat_map(entry).collect()].concat()
}

/// What `run.c` does, on ids that sentencepiece gives: characters, else bytes; then the best pair, the leftmost first.
fn encode(tokens: &[(String, f32)], text: &str) -> Vec<u32> {
    let id = |piece: &str| (FIRST_TEXT..tokens.len()).find(|&id| tokens[id].0 == piece);
    let mut ids = Vec::new();
    for character in if text.is_empty() { String::new() } else { format!(" {text}") }.chars() {
        match id(&character.to_string()) {
            Some(id) => ids.push(id),
            None => ids.extend(character.to_string().bytes().map(|byte| usize::from(byte) + 3)),
        }
    }
    let piece = |id: usize| if id < FIRST_TEXT { "\0" } else { tokens[id].0.as_str() };
    loop {
        let mut best: Option<(f32, usize, usize)> = None;
        for at in 1..ids.len() {
            let joint = id(&format!("{}{}", piece(ids[at - 1]), piece(ids[at])));
            if let Some(joint) = joint.filter(|&joint| best.is_none_or(|best| tokens[joint].1 > best.0)) {
                best = Some((tokens[joint].1, at, joint));
            }
        }
        let Some((_, at, joint)) = best else { break };
        ids[at - 1] = joint;
        ids.remove(at);
    }
    ids.into_iter().map(|id| id as u32).collect()
}

const FIRST_TEXT: usize = 259;

fn tokenizer() -> Tokenizer {
    let bin = tokenizer_bin(&tokens());
    let json = Vocabulary::read(&bin, tokens().len()).unwrap().to_json().unwrap();
    crate::tokenizer::parse(&serde_json::to_vec(&json).unwrap()).unwrap()
}

#[test]
fn a_start_token_comes_first_and_decoding_gives_the_text_back() {
    let tokenizer = tokenizer();
    for text in ["banana", "  ban  an é\n\n\n", "x\u{1F600}y", "", "b b     b"] {
        let encoded = tokenizer.encode(text, true).unwrap();
        assert_eq!(encoded.get_ids()[0], START_ID, "{text:?}");
        assert_eq!(encoded.get_ids()[1..], encode(&tokens(), text), "{text:?}");
        assert_eq!(tokenizer.decode(encoded.get_ids(), true).unwrap(), text);
    }
}

const START_ID: u32 = 1;

#[test]
fn tokenizers_that_are_not_whole_are_refused() {
    let good = tokens();
    let read = |tokens: &[(String, f32)], count: usize| Vocabulary::read(&tokenizer_bin(tokens), count);
    let with = |id: usize, token: &str, score: f32| {
        let mut tokens = good.clone();
        tokens[id] = (token.to_owned(), score);
        tokens
    };
    for (tokens, count, words) in [
        (good.clone(), good.len() + 1, "the model"),
        (good.clone(), good.len() - 1, "more than the model's"),
        (with(5, "x", 0.0), good.len(), "token 5 is not what it must be"),
        (with(270, "", 0.0), good.len(), "token 270 is not"),
        (with(270, "x", f32::NAN), good.len(), "the score NaN"),
        (with(270, &"x".repeat(257), 0.0), good.len(), "257 bytes"),
        (good[..10].to_vec(), 10, "has 10 tokens"),
    ] {
        let error = read(&tokens, count).unwrap_err();
        assert!(error.message.contains(words), "{words}: {error}");
    }
    let twice = read(&with(270, "an", 0.0), good.len()).unwrap().to_json().unwrap_err();
    assert!(twice.message.contains("are the same, 'an'"), "{twice}");
    let cut = tokenizer_bin(&good);
    let error = Vocabulary::read(&cut[..cut.len() - 1], good.len()).unwrap_err();
    assert!(error.message.contains("is cut off"), "{error}");
}

proptest! {
    #[test]
    fn text_is_encoded_as_run_c_does(text in "([abn é\n]|   |an|bb|x){0,40}") {
        let encoded = tokenizer().encode(text.as_str(), false).unwrap();
        prop_assert_eq!(encoded.get_ids(), encode(&tokens(), &text));
    }

    #[test]
    fn changed_and_cut_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(), cuts in any::<bool>(),
    ) {
        let (mut weights, mut bin) = (model(SIZES, floats(true)), tokenizer_bin(&tokens()));
        for (at, byte) in changes {
            let (first, second) = (at.index(40), at.index(bin.len()));
            (weights[first], bin[second]) = (byte, byte);
        }
        if cuts {
            weights.truncate(cut.index(weights.len()));
            bin.truncate(cut.index(bin.len()));
        }
        if let Ok(header) = Header::read(&weights) {
            let views = header.views(weights.len()).unwrap();
            prop_assert!(views.iter().flat_map(|view| view.1.runs()).all(|run| run.end <= weights.len()));
        }
        let _ = Vocabulary::read(&bin, tokens().len()).map(|vocabulary| vocabulary.to_json());
    }
}
