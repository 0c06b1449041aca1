use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{lanes::Kernel, portable::Portable, *};
use crate::{
    gguf::Encoding,
    mapped::{MappedBytes, MappedFile},
};

fn floats(seed: u64, count: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.random::<f32>() - 0.5).collect()
}

/// A file's bytes as a matrix; the file is gone, its mapping is not.
fn matrix(bytes: &[u8], encoding: Encoding, outputs: usize, inputs: usize) -> Matrix {
    let file = tempfile::NamedTempFile::new().unwrap();
    // One byte before, so that nothing is aligned.
    std::fs::write(file.path(), [&[0], bytes].concat()).unwrap();
    let mapped = MappedFile::open(file.path()).unwrap();
    let bytes = MappedBytes::new(&mapped, 1..bytes.len() + 1).unwrap();
    Matrix::new(bytes, encoding, outputs, inputs).unwrap()
}

const QUANTISED: [(Encoding, GgmlDType); 13] = [
    (Encoding::F16, GgmlDType::F16),
    (Encoding::Bf16, GgmlDType::BF16),
    (Encoding::Q4_0, GgmlDType::Q4_0),
    (Encoding::Q4_1, GgmlDType::Q4_1),
    (Encoding::Q5_0, GgmlDType::Q5_0),
    (Encoding::Q5_1, GgmlDType::Q5_1),
    (Encoding::Q8_0, GgmlDType::Q8_0),
    (Encoding::Q2K, GgmlDType::Q2K),
    (Encoding::Q3K, GgmlDType::Q3K),
    (Encoding::Q4K, GgmlDType::Q4K),
    (Encoding::Q5K, GgmlDType::Q5K),
    (Encoding::Q6K, GgmlDType::Q6K),
    (Encoding::Q8K, GgmlDType::Q8K),
];

/// Rows of 512 in every encoding, and what candle makes of them.
fn quantised(outputs: usize) -> Vec<(Encoding, Matrix, Vec<f32>)> {
    let plain = floats(9, outputs * 512);
    let tensor = Tensor::from_vec(plain.clone(), (outputs, 512), &Device::Cpu).unwrap();
    let mut all: Vec<_> = QUANTISED
        .iter()
        .map(|(encoding, candle)| {
            let quantised = QTensor::quantize(&tensor, *candle).unwrap();
            let values = quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            (*encoding, matrix(&quantised.data().unwrap(), *encoding, outputs, 512), values)
        })
        .collect();
    let bytes: Vec<u8> = plain.iter().flat_map(|value| value.to_le_bytes()).collect();
    all.push((Encoding::F32, matrix(&bytes, Encoding::F32, outputs, 512), plain));
    all
}

/// How a kernel is run: on what the machine has, or on what it might have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Widest,
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
}

impl On {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Widest => dispatch(kernel),
            Self::Plain => kernel.run(Portable),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value exists, so the machine has the instructions.
            Self::Avx2(lanes) => unsafe { avx2::run(kernel, lanes) },
        }
    }

    /// Those that may differ from the widest.
    fn others() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let found = avx2::Avx2::detect().map(Self::Avx2);
        #[cfg(not(target_arch = "x86_64"))]
        let found = None;
        [Self::Plain].into_iter().chain(found).collect()
    }
}

fn rounded(x: &[f32], on: On) -> Rounded {
    let mut rounded = Rounded::default();
    on.run(Round { from: x, to: &mut rounded });
    rounded
}

fn product(matrix: &Matrix, x: &[f32], on: On) -> Vec<f32> {
    let rows = x.len() / matrix.inputs;
    let mut out = vec![f32::NAN; rows * matrix.outputs];
    let to = Destination { out: Shared::new(&mut out), column: 0, stride: matrix.outputs, write: Write::Set(None) };
    let outputs = 0..matrix.outputs;
    if matrix.is_whole() {
        let unpacked = &mut Unpacked::default();
        let product = WholeProduct { matrix, x: &rounded(x, on), outputs, to, unpacked };
        if on == On::Widest { product.compute() } else { on.run(product) }
    } else {
        on.run(Product { matrix, x, outputs, to, scratch: &mut Vec::new() });
    }
    out
}

/// What a product with this matrix makes of its rows: itself, or their rounded values.
fn as_multiplied(matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    if !matrix.is_whole() {
        return x.to_vec();
    }
    let rounded = rounded(x, On::Plain);
    let blocks = rounded.quants.iter().zip(&rounded.scales);
    blocks.flat_map(|(quants, [scale, _])| quants.0.map(|quant| f32::from(quant) * scale)).collect()
}

#[test]
fn rounding_is_to_the_nearest_step_of_the_greatest() {
    let mut x = floats(5, 96);
    x[32..64].fill(0.0);
    x[64] = -3.0;
    let rounded = rounded(&x, On::Widest);
    for ((block, quants), [scale, sum]) in x.chunks(32).zip(&rounded.quants).zip(&rounded.scales) {
        let greatest = block.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert_eq!(*scale, greatest / 32767.0);
        for (value, quant) in block.iter().zip(&quants.0) {
            assert!((value - f32::from(*quant) * scale).abs() <= scale * 0.51, "{value} as {quant} of {scale}");
        }
        let whole: i32 = quants.0.iter().map(|quant| i32::from(*quant)).sum();
        assert_eq!(*sum, whole as f32 * scale);
    }
    assert_eq!(rounded.quants[2].0[0], -32767);
}

#[test]
fn what_is_no_number_stays_none_in_a_product() {
    for (encoding, matrix, _) in quantised(4).into_iter().filter(|(_, matrix, _)| matrix.is_whole()) {
        for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = floats(4, 2 * 512);
            x[517] = wrong;
            let got = product(&matrix, &x, On::Widest);
            assert!(got[..4].iter().all(|value| value.is_finite()), "{encoding}, {wrong}: the other row");
            assert!(got[4..].iter().all(|value| !value.is_finite()), "{encoding}, {wrong}: {got:?}");
        }
    }
}

#[test]
fn every_encoding_unpacks_as_candle_does() {
    for (encoding, matrix, want) in quantised(3) {
        let mut got = vec![f32::NAN; 512];
        for row in 0..3 {
            dispatch(Unpack { matrix: &matrix, row, to: &mut got });
            for (index, (got, want)) in got.iter().zip(&want[row * 512..]).enumerate() {
                // candle rounds the product before it adds the minimum.
                assert!((got - want).abs() < 1e-6, "{encoding} at {row}, {index}: {got} for {want}");
            }
        }
    }
}

#[test]
fn products_agree_with_the_plain_sum_and_with_each_row_alone() {
    for (encoding, matrix, weights) in quantised(11) {
        let x = floats(4, 70 * 512);
        let multiplied = as_multiplied(&matrix, &x);
        let alone: Vec<f32> = x.chunks(512).flat_map(|x| product(&matrix, x, On::Widest)).collect();
        for (index, got) in alone.iter().enumerate() {
            let (row, output) = (index / 11, index % 11);
            let pairs = multiplied[row * 512..][..512].iter().zip(&weights[output * 512..]);
            let want: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(*got) - want).abs() < 1e-4, "{encoding} at {row}, {output}: {got} for {want}");
        }
        for rows in (2..=9).chain([70]) {
            assert_eq!(product(&matrix, &x[..rows * 512], On::Widest), alone[..rows * 11], "{encoding}, {rows} rows");
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let x = floats(4, 7 * 512);
    for (encoding, matrix, _) in quantised(5) {
        for rows in [1, 2, 7] {
            let x = &x[..rows * 512];
            let widest = product(&matrix, x, On::Widest);
            for on in On::others() {
                assert_eq!(widest, product(&matrix, x, on), "{encoding}, {rows} rows on {on:?}");
            }
        }
    }
    let (gate, up) = (floats(1, 64).iter().map(|x| x * 400.0).collect::<Vec<_>>(), floats(2, 64));
    let gated = |portable: bool| {
        let mut gate = gate.clone();
        let kernel = Gate { gate: &mut gate, up: &up };
        if portable {
            kernel.run(Portable)
        } else {
            dispatch(kernel)
        }
        gate
    };
    assert_eq!(gated(true), gated(false));
    let attended = |portable| attend(&Heads::new(40, 3, 32), 5, 37, portable);
    assert_eq!(attended(true), attended(false));
}

/// Queries, and keys and values of a sequence of one key-value head.
struct Heads {
    size: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    blocks: Vec<Vec<Half>>,
}

impl Heads {
    fn new(tokens: usize, heads: usize, size: usize) -> Self {
        let queries = floats(1, heads * size).iter().map(|x| x * 8.0).collect();
        let halves = |seed| {
            floats(seed, tokens * size).iter().map(|value| half::f16::from_f32(*value).to_f32()).collect::<Vec<_>>()
        };
        let (keys, values) = (halves(2), halves(3));
        // What no token has been written to must not be looked at.
        let mut blocks =
            vec![vec![half::f16::NAN.to_le_bytes(); 2 * size * BLOCK_TOKENS]; tokens.div_ceil(BLOCK_TOKENS)];
        for token in 0..tokens {
            let (block, slot) = (&mut blocks[token / BLOCK_TOKENS], token % BLOCK_TOKENS);
            for at in 0..size {
                block[at * BLOCK_TOKENS + slot] = half::f16::from_f32(keys[token * size + at]).to_le_bytes();
                block[(BLOCK_TOKENS + slot) * size + at] = half::f16::from_f32(values[token * size + at]).to_le_bytes();
            }
        }
        Self { size, queries, keys, values, blocks }
    }
}

fn attend(heads: &Heads, first: usize, last: usize, portable: bool) -> Vec<f32> {
    let mut out = vec![f32::NAN; heads.queries.len()];
    let kernel = Attention {
        queries: &heads.queries,
        head_size: heads.size,
        block: |index: usize| heads.blocks[index].as_slice(),
        first,
        last,
        scores: &mut vec![7.0; 5],
        out: &mut out,
    };
    if portable {
        kernel.run(Portable)
    } else {
        dispatch(kernel)
    }
    out
}

#[test]
fn attention_agrees_with_the_plain_formula() {
    for (tokens, count, size) in [(1, 1, 16), (16, 2, 48), (17, 3, 64), (70, 5, 80), (33, 7, 128)] {
        let heads = Heads::new(tokens, count, size);
        let last = tokens - 1;
        for first in [0, last / 2, last] {
            let got = attend(&heads, first, last, false);
            for head in 0..count {
                let query = &heads.queries[head * size..][..size];
                let dot = |token: usize| -> f64 {
                    let pairs = query.iter().zip(&heads.keys[token * size..]);
                    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / (size as f64).sqrt()
                };
                let weights: Vec<f64> = (first..=last).map(|token| dot(token).exp()).collect();
                let total: f64 = weights.iter().sum();
                for at in 0..size {
                    let values = (first..=last).map(|token| f64::from(heads.values[token * size + at]));
                    let want: f64 = values.zip(&weights).map(|(value, weight)| value * weight / total).sum();
                    let got = f64::from(got[head * size + at]);
                    assert!(
                        (got - want).abs() < 1e-5,
                        "{tokens} {size} from {first}, head {head} at {at}: {got} for {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn exp_is_near_the_exact_one_and_bounded() {
    let points: Vec<f32> = (0..17_000).map(|i| i as f32 / 100.0 - 85.0).collect();
    let mut got = points.clone();
    got.resize(got.len().next_multiple_of(LANES), f32::NEG_INFINITY);
    dispatch(ExpSum { values: &mut got, greatest: 0.0, scale: 1.0 });
    for (x, got) in points.iter().zip(&got) {
        let want = f64::from(*x).exp();
        assert!((f64::from(*got) / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
    }
    let mut far = [f32::MAX, 1e9, 88.1, f32::NEG_INFINITY, f32::MIN, -1e9, -88.0, 0.0].repeat(2);
    dispatch(ExpSum { values: &mut far, greatest: 0.0, scale: 1.0 });
    assert!(far.iter().all(|value| value.is_finite() && *value > 0.0) && far[7] == 1.0 && far[3] < 2e-38, "{far:?}");
}

#[test]
fn norms_scale_to_unit_root_mean_square() {
    let (from, weight) = (floats(3, 96), floats(4, 48));
    let mut to = vec![0.0; 96];
    dispatch(Normalise { from: &from, to: &mut to, weight: &weight, epsilon: 1e-5 });
    for (index, got) in to.iter().enumerate() {
        let row = &from[index / 48 * 48..][..48];
        let mean: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 48.0;
        let want = f64::from(from[index]) / (mean + 1e-5).sqrt() * f64::from(weight[index % 48]);
        assert!((f64::from(*got) - want).abs() < 1e-6, "{index}: {got} for {want}");
    }
}
