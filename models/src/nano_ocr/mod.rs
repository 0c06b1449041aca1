//! The family `text-recognition`: an image of a line of text to the text, by a CRNN (Shi, Bai and Yao, 2015):
//! convolutions, a bidirectional LSTM over the columns, one character or none for each.

use orion_proto::{Datatype, InferAnswer, ModelSpec, Payload, Result, Tensor, encode_bytes_elements};

mod alphabet;
mod lstm;
mod network;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use source::{MODEL_TYPE, Source};

use crate::{
    Model, ModelRequest,
    checkpoint::Checkpoint,
    convnet::Layers,
    imaging::{Area, Filter, Refusal, Resize, Rgb, Row, Rows, sample, sample_photo},
    kernels::{Activation, Linear, Map, Threads},
};
use alphabet::Alphabet;
use lstm::Lstm;
use network::{FEATURES, HEIGHT, HIDDEN, WIDTH};

/// The family's name.
const FAMILY: &str = "text-recognition";

/// A loaded reader of lines of text.
pub(crate) struct Reader {
    spec: ModelSpec,
    layers: Layers,
    lstm: Lstm,
    /// From both directions to a score for each character, and for none.
    head: Linear,
    alphabet: Alphabet,
    /// A typical file, for warm-up.
    photo: Vec<u8>,
}

impl Reader {
    /// Brings the weights into memory.
    pub(crate) fn load(spec: ModelSpec, source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let checkpoint = Checkpoint::open(&source.folder)?;
        let layers = Layers::load(source.network.clone(), &checkpoint, source.precision, progress)?;
        let lstm = Lstm::load(&checkpoint, FEATURES, HIDDEN, source.precision)?;
        let classes = source.alphabet.classes();
        let weight = checkpoint.floats("fc.weight", &[classes, 2 * HIDDEN])?;
        let bias = checkpoint.floats("fc.bias", &[classes])?;
        let head = Linear::held_in(source.precision, &weight, bias, Activation::None);
        Ok(Self { spec, layers, lstm, head, alphabet: source.alphabet.clone(), photo: sample_photo(160, 48)? })
    }

    /// The features of each column, from left to right.
    fn columns(&self, threads: Threads, row: Row<'_>) -> std::result::Result<Vec<f32>, Refusal> {
        let pixels = prepared(&row.decode()?);
        Ok(self.layers.run(threads, |map| fill(&pixels, map), |map| map.pixels(0).to_vec()))
    }

    /// Each row's scores of every character in every column, or why it has none.
    fn scores(&self, rows: &[Row<'_>]) -> Vec<std::result::Result<Vec<f32>, Refusal>> {
        let columns = Threads::share(rows.len(), |row, threads| self.columns(threads, rows[row]));
        let good: Vec<f32> = columns.iter().flatten().flatten().copied().collect();
        let hidden = self.lstm.forward(&good, columns.iter().flatten().count());
        let classes = self.alphabet.classes();
        let mut scores = vec![0.0; hidden.len() / (2 * HIDDEN) * classes];
        self.head.forward(&hidden, &mut scores);
        let mut rest = scores.as_slice();
        let mut own = |columns: Vec<f32>| {
            let (own, others) = rest.split_at(columns.len() / FEATURES * classes);
            rest = others;
            own.to_vec()
        };
        columns.into_iter().map(|row| row.map(&mut own)).collect()
    }
}

/// Grey, of the size that the network takes.
fn prepared(image: &Rgb) -> Vec<u8> {
    let all = |width, height| Area { left: 0, top: 0, width, height };
    let from = all(image.width, image.height);
    let resize = Resize { from, to: (WIDTH, HEIGHT), keep: all(WIDTH, HEIGHT), filter: Filter::Bilinear };
    resize.apply::<1>(&image.grey(), image.width)
}

/// Scaled to −1 to 1.
fn fill(pixels: &[u8], map: &mut Map) {
    for (row, pixels) in pixels.chunks_exact(WIDTH).enumerate() {
        let scaled = |pixel: &u8| (f32::from(*pixel) / 255.0 - 0.5) / 0.5;
        map.pixels_mut(row).iter_mut().zip(pixels).for_each(|(out, pixel)| *out = scaled(pixel));
    }
}

impl Model for Reader {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let rows = Rows::of(&self.spec, &batch);
        let all = rows.all();
        // A request may have more rows than a batch should: the columns of all at once would be large.
        let scores = all.chunks(self.spec.max_batch_rows).flat_map(|some| self.scores(some));
        let texts = scores.map(|row| row.map(|scores| self.alphabet.greedy(&scores)));
        let answer = |texts: Result<Vec<String>>| -> Result<InferAnswer> {
            let texts = texts?;
            let (shape, data) = (vec![texts.len() as i64], Payload::from(encode_bytes_elements(&texts)));
            let output = Tensor { name: "text".into(), datatype: Datatype::Bytes, shape, data };
            Ok(InferAnswer { outputs: vec![output], ..InferAnswer::default() })
        };
        rows.by_request(texts).into_iter().map(answer).collect()
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        sample(rows, &self.photo)
    }
}
