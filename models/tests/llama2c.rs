//! A tiny model in llama2.c's format, converted, recognised by its configuration, and run: against what `run.c` computes,
//! written down once more plainly and in double precision on the file as it was before.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, in its helpers too")]

use std::{fs, path::Path};

use orion_models::{
    Generator, Precision,
    checkpoint::{Conversion, convert},
    inspect, load,
};
use orion_proto::{Generation, ModelName, Priority, Prompt, TokenProbability};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const WIDTH: usize = 64;
const INNER: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KEY_VALUE_HEADS: usize = 2;
const HEAD: usize = WIDTH / HEADS;
const NARROW: usize = KEY_VALUE_HEADS * HEAD;
const VOCABULARY: usize = 288;
const POSITIONS: usize = 32;

/// The tensors in the file's order; each layer's lie one after the other.
struct Weights {
    embeddings: Vec<f32>,
    attention_norms: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    outputs: Vec<f32>,
    inner_norms: Vec<f32>,
    gates: Vec<f32>,
    downs: Vec<f32>,
    ups: Vec<f32>,
    norm: Vec<f32>,
    /// Where the embeddings are not the classifier too.
    classifier: Option<Vec<f32>>,
}

impl Weights {
    fn seeded(tied: bool) -> Self {
        let mut random = StdRng::seed_from_u64(11);
        let mut around = |middle: f32, count: usize| -> Vec<f32> {
            (0..count).map(|_| middle + (random.random::<f32>() - 0.5) * 0.8).collect()
        };
        Self {
            embeddings: around(0.0, VOCABULARY * WIDTH),
            attention_norms: around(1.0, LAYERS * WIDTH),
            queries: around(0.0, LAYERS * WIDTH * WIDTH),
            keys: around(0.0, LAYERS * NARROW * WIDTH),
            values: around(0.0, LAYERS * NARROW * WIDTH),
            outputs: around(0.0, LAYERS * WIDTH * WIDTH),
            inner_norms: around(1.0, LAYERS * WIDTH),
            gates: around(0.0, LAYERS * INNER * WIDTH),
            downs: around(0.0, LAYERS * WIDTH * INNER),
            ups: around(0.0, LAYERS * INNER * WIDTH),
            norm: around(1.0, WIDTH),
            classifier: (!tied).then(|| around(0.0, VOCABULARY * WIDTH)),
        }
    }

    /// The file: its header, the tensors, and what it holds of rotations, which nobody reads.
    fn file(&self) -> Vec<u8> {
        let vocabulary = if self.classifier.is_some() { -(VOCABULARY as i32) } else { VOCABULARY as i32 };
        let sizes = [WIDTH, INNER, LAYERS, HEADS, KEY_VALUE_HEADS].map(|size| size as i32);
        let header = sizes.into_iter().chain([vocabulary, POSITIONS as i32]).flat_map(i32::to_le_bytes);
        let rotations = vec![f32::NAN; 2 * POSITIONS * HEAD / 2];
        let tensors = [
            &self.embeddings,
            &self.attention_norms,
            &self.queries,
            &self.keys,
            &self.values,
            &self.outputs,
            &self.inner_norms,
            &self.gates,
            &self.downs,
            &self.ups,
            &self.norm,
            &rotations,
        ];
        let floats = tensors.into_iter().chain(&self.classifier).flatten().flat_map(|float| float.to_le_bytes());
        header.chain(floats).collect()
    }

    /// What `run.c` computes: the logits after the last of the tokens.
    fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        let part = |all: &[f32], layer: usize| {
            all.chunks(all.len() / LAYERS).nth(layer).unwrap().iter().map(|w| f64::from(*w)).collect::<Vec<f64>>()
        };
        let wide = |all: &[f32]| all.iter().map(|w| f64::from(*w)).collect::<Vec<f64>>();
        let embeddings = wide(&self.embeddings);
        let mut rows: Vec<Vec<f64>> =
            tokens.iter().map(|token| embeddings[*token as usize * WIDTH..][..WIDTH].to_vec()).collect();
        for layer in 0..LAYERS {
            let normal: Vec<_> = rows.iter().map(|row| normalised(row, &part(&self.attention_norms, layer))).collect();
            let turned = |weight: &[f32]| -> Vec<Vec<f64>> {
                let weight = part(weight, layer);
                normal.iter().enumerate().map(|(position, x)| rotated(multiply(&weight, x), position)).collect()
            };
            let (queries, keys) = (turned(&self.queries), turned(&self.keys));
            let values: Vec<_> = normal.iter().map(|x| multiply(&part(&self.values, layer), x)).collect();
            for (at, row) in rows.iter_mut().enumerate() {
                let attended: Vec<f64> = (0..HEADS)
                    .flat_map(|head| {
                        let own = head / (HEADS / KEY_VALUE_HEADS) * HEAD;
                        let query = &queries[at][head * HEAD..][..HEAD];
                        let score = |key: &Vec<f64>| (dot(query, &key[own..own + HEAD]) / (HEAD as f64).sqrt()).exp();
                        let weights: Vec<f64> = keys[..=at].iter().map(score).collect();
                        let total: f64 = weights.iter().sum();
                        let values = &values[..=at];
                        (own..own + HEAD)
                            .map(|i| weights.iter().zip(values).map(|(w, value)| w * value[i]).sum::<f64>() / total)
                            .collect::<Vec<f64>>()
                    })
                    .collect();
                add(row, &multiply(&part(&self.outputs, layer), &attended));
                let x = normalised(row, &part(&self.inner_norms, layer));
                let (gate, up) = (multiply(&part(&self.gates, layer), &x), multiply(&part(&self.ups, layer), &x));
                let inner: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
                add(row, &multiply(&part(&self.downs, layer), &inner));
            }
        }
        let last = normalised(rows.last().unwrap(), &wide(&self.norm));
        multiply(&wide(self.classifier.as_ref().unwrap_or(&self.embeddings)), &last)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn multiply(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| dot(row, x)).collect()
}

fn add(row: &mut [f64], more: &[f64]) {
    row.iter_mut().zip(more).for_each(|(x, more)| *x += more);
}

fn normalised(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let scale = (dot(x, x) / x.len() as f64 + 1e-5).sqrt();
    x.iter().zip(weight).map(|(x, w)| x / scale * w).collect()
}

/// Neighbours are a pair, as in `run.c`; in the converted file the halves of a head are.
fn rotated(mut x: Vec<f64>, position: usize) -> Vec<f64> {
    for (number, pair) in x.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let angle = position as f64 / 10_000f64.powf((2 * number % HEAD) as f64 / HEAD as f64);
        let [a, b] = *pair;
        *pair = [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()];
    }
    x
}

/// `tokenizer.bin` of bytes and a few letters.
fn tokenizer() -> Vec<u8> {
    let special = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from).into_iter();
    let letters = (0..VOCABULARY - 259).map(|n| char::from_u32(0x3b1 + n as u32).unwrap().to_string());
    let tokens = special.chain((0..=255u8).map(|byte| char::from(byte).to_string())).chain(letters);
    let entry =
        |token: String| [&0f32.to_le_bytes()[..], &(token.len() as i32).to_le_bytes(), token.as_bytes()].concat();
    [9i32.to_le_bytes().to_vec(), tokens.flat_map(entry).collect()].concat()
}

fn converted(weights: &Weights, precision: Option<Precision>, folder: &Path) -> Box<dyn Generator> {
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).unwrap();
        folder.join(name)
    };
    let conversion = Conversion {
        source: write("model.bin", &weights.file()),
        tokenizer: Some(write("tokenizer.bin", &tokenizer())),
        folder: folder.join("served"),
        precision,
        ..Conversion::default()
    };
    convert(&conversion, &|_| {}).unwrap();
    let manifest = inspect(&ModelName::new("tiny").unwrap(), &conversion.folder).unwrap();
    assert_eq!(manifest.spec.family, "text-generation");
    load(&manifest, &|_| {}).unwrap().generator().unwrap()
}

/// Tokens, and of each the likeliest with their logarithms.
fn answer(model: &mut dyn Generator, generation: &Generation) -> Vec<(u32, Vec<TokenProbability>)> {
    model.add(1, Priority::Normal, generation).unwrap();
    let mut given = Vec::new();
    for _ in 0..100 {
        for (_, delta) in model.step() {
            let delta = delta.unwrap();
            given.extend(delta.tokens.into_iter().zip(delta.logprobs));
            if delta.finish.is_some() {
                return given;
            }
        }
    }
    panic!("the generation does not end");
}

#[test]
fn a_converted_model_computes_what_run_c_does() {
    for (tied, precision, most) in [(true, None, 2e-4), (false, None, 2e-4), (true, Some(Precision::Bf16), 0.3)] {
        let weights = Weights::seeded(tied);
        let folder = tempfile::tempdir().unwrap();
        let mut model = converted(&weights, precision, folder.path());
        let mut tokens = vec![1, 70, 3, 280, 141, 9];
        let generation = Generation {
            max_tokens: Some(12),
            logprobs: Some(5),
            ignore_end: true,
            ..Generation::new(Prompt::Tokens(tokens.clone()))
        };
        let given = answer(&mut *model, &generation);
        assert_eq!(given.len(), 12);
        for (token, told) in given {
            let logits = weights.logits(&tokens);
            let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            for TokenProbability { token, logprob, .. } in told {
                let want = logits[token as usize] - total;
                assert!((f64::from(logprob) - want).abs() < most, "token {token} has {logprob}, not {want}");
            }
            tokens.push(token);
        }
    }
}
