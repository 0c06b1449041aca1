//! Each operation beside the same made of the tensor library's own, forwards and backwards.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::softmax;

use super::{Attention, ConvolutionBlock, CrossEntropy, Dense, Gelu, Norm, RmsNorm, Rotation};

fn random(shape: &[usize]) -> Var {
    Var::from_tensor(&Tensor::randn(0f32, 1f32, shape, &Device::Cpu).unwrap()).unwrap()
}

/// That both are the same, and so are their gradients by each of these.
fn same(own: &Tensor, want: &Tensor, by: &[&Var]) {
    let close = |what: &str, a: &Tensor, b: &Tensor| {
        let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let size = b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(gap <= 1e-5 * size.max(1.0), "{what}: {gap} of {size}");
    };
    close("forwards", own, want);
    let weights = Tensor::randn(0f32, 1f32, own.shape(), &Device::Cpu).unwrap();
    let gradients = |out: &Tensor| (out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let (own, want) = (gradients(own), gradients(want));
    for (at, var) in by.iter().enumerate() {
        close(&format!("by {at}"), own.get(var).unwrap(), want.get(var).unwrap());
    }
}

#[test]
fn a_product_is_the_librarys() {
    for (rows, inputs, outputs) in [(1, 1, 1), (70, 33, 130), (128, 64, 2)] {
        let (x, weight) = (random(&[rows, inputs]), random(&[outputs, inputs]));
        let own = x.apply_op2(&weight, Dense).unwrap();
        same(&own, &x.matmul(&weight.t().unwrap()).unwrap(), &[&x, &weight]);
    }
}

#[test]
fn what_does_not_learn_is_given_no_gradient() {
    let (x, weight) = (random(&[3, 4]), random(&[5, 4]));
    let out = x.apply_op2(&weight.as_detached_tensor(), Dense).unwrap();
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&x).is_some() && gradients.get(&weight).is_none());
}

#[test]
fn attention_is_that_of_each_text_alone() {
    for (heads, key_heads, causal) in [(4, 4, false), (6, 2, true), (1, 1, true)] {
        let (lengths, width) = (vec![3, 1, 70], 8);
        let tokens: usize = lengths.iter().sum();
        let (query, [key, value]) =
            (random(&[tokens, heads * width]), [0; 2].map(|_| random(&[tokens, key_heads * width])));
        let own = Attention { lengths: lengths.clone(), heads, key_heads, causal };
        let own = query.apply_op3(&key, &value, own).unwrap();
        let mut from = 0;
        let mut texts = Vec::new();
        for tokens in lengths {
            let part = |rows: &Var, own: usize| {
                let rows = rows.narrow(0, from, tokens).unwrap().reshape((tokens, own, 1, width)).unwrap();
                let rows = rows.broadcast_as((tokens, own, heads / own, width)).unwrap();
                let rows = rows.reshape((tokens, heads, width)).unwrap();
                rows.transpose(0, 1).unwrap().contiguous().unwrap()
            };
            let scores = part(&query, heads).matmul(&part(&key, key_heads).t().unwrap()).unwrap();
            let hidden = (0..tokens * tokens).map(|at| if causal && at % tokens > at / tokens { -1e9 } else { 0f32 });
            let hidden = Tensor::from_vec(hidden.collect(), (1, tokens, tokens), &Device::Cpu).unwrap();
            let scores = (scores * (width as f64).powf(-0.5)).unwrap().broadcast_add(&hidden).unwrap();
            let seen = softmax(&scores, D::Minus1).unwrap().matmul(&part(&value, key_heads)).unwrap();
            texts.push(seen.transpose(0, 1).unwrap().reshape((tokens, heads * width)).unwrap());
            from += tokens;
        }
        same(&own, &Tensor::cat(&texts, 0).unwrap(), &[&query, &key, &value]);
    }
}

#[test]
fn normalised_rows_are_the_librarys() {
    let (x, weight, bias) = (random(&[130, 48]), random(&[48]), random(&[48]));
    let own = x.apply_op3(&weight, &bias, Norm { epsilon: 1e-5 }).unwrap();
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
    let deviation = (centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + 1e-5).unwrap().sqrt().unwrap();
    let normal = centred.broadcast_div(&deviation).unwrap();
    let want = normal.broadcast_mul(&weight).unwrap().broadcast_add(&bias).unwrap();
    same(&own, &want, &[&x, &weight, &bias]);
}

#[test]
fn gelu_is_the_librarys() {
    let x = random(&[7, 300]);
    assert_eq!(x.dtype(), DType::F32);
    same(&x.apply_op1(Gelu).unwrap(), &x.gelu_erf().unwrap(), &[&x]);
}

#[test]
fn the_root_of_mean_squares_is_the_librarys() {
    let (x, weight) = (random(&[130, 48]), random(&[48]));
    let size = (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + 1e-5).unwrap().sqrt().unwrap();
    let want = x.broadcast_div(&size).unwrap().broadcast_mul(&weight).unwrap();
    same(&x.apply_op2(&weight, RmsNorm { epsilon: 1e-5 }).unwrap(), &want, &[&x, &weight]);
}

#[test]
fn a_rotation_is_the_librarys() {
    let (tokens, heads, width) = (7, 3, 8);
    let x = random(&[tokens, heads * width]);
    let angles: Vec<f32> = (0..tokens * width / 2).map(|at| at as f32 * 0.37).collect();
    let table = |of: fn(f32) -> f32| -> Vec<f32> { angles.iter().map(|angle| of(*angle)).collect() };
    let own = Rotation { cosines: table(f32::cos), sines: table(f32::sin), width };
    let tensor = |of| Tensor::from_vec(table(of), (tokens, width / 2), &Device::Cpu).unwrap();
    let rows = x.reshape((1, tokens, heads, width)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    let want = candle_nn::rotary_emb::rope_slow(&rows, &tensor(f32::cos), &tensor(f32::sin)).unwrap();
    let want = want.transpose(1, 2).unwrap().reshape((tokens, heads * width)).unwrap();
    same(&x.apply_op1(own).unwrap(), &want, &[&x]);
}

#[test]
fn cross_entropy_is_the_librarys() {
    let logits = random(&[5, 70]);
    let targets = [3u32, 0, 69, 8, 8];
    let own = logits.apply_op1(CrossEntropy { targets: targets.to_vec(), weights: vec![0.2; 5] }).unwrap();
    let targets = Tensor::from_slice(&targets, 5, &Device::Cpu).unwrap();
    same(&own, &candle_nn::loss::cross_entropy(&logits, &targets).unwrap(), &[&logits]);
}

#[test]
fn a_block_is_the_librarys() {
    let (images, weight, bias) = (random(&[9, 3, 8, 10]), random(&[5, 3, 3, 3]), random(&[5]));
    let own = images.apply_op3(&weight, &bias, ConvolutionBlock::new()).unwrap();
    let seen = images.conv2d(&weight, 1, 1, 1, 1).unwrap();
    let seen = seen.broadcast_add(&bias.reshape((1, 5, 1, 1)).unwrap()).unwrap().relu().unwrap();
    // The library's own pooling has a quarter of its gradient.
    let squares = seen.reshape((9, 5, 4, 2, 5, 2)).unwrap();
    same(&own, &squares.max(5).unwrap().max(3).unwrap(), &[&images, &weight, &bias]);
}
