use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::*;
use crate::kernels::{Map, Threads};

fn pixel(name: &str, outputs: usize, limits: Limits) -> Convolve {
    let (norm, padding) = (None, Padding::Even(0));
    Convolve { name: name.into(), biased: true, norm, outputs, side: 1, stride: 1, padding, depthwise: false, limits }
}

#[test]
fn same_padding_puts_the_odd_pixel_at_the_end() {
    let around = |size, side, stride| {
        let Border { top, bottom, .. } = same(size, size, side, stride);
        (top, bottom)
    };
    // (224 → 112), (112 → 112), (56 → 28 with 5), (7 → 7 with 5), (7 → 4 with 1).
    let found = [around(224, 3, 2), around(112, 3, 1), around(56, 5, 2), around(7, 5, 1), around(7, 1, 2)];
    assert_eq!(found, [(0, 1), (1, 1), (1, 2), (2, 2), (0, 0)]);
}

#[test]
fn a_map_is_kept_until_it_was_added() {
    let mut network = Network::new(4, 4, 3);
    let first = network.convolve(network.output(), pixel("a", 8, Limits::RELU), None).unwrap();
    let second = network.convolve(first, pixel("b", 16, Limits::RELU), None).unwrap();
    let third = network.convolve(second, pixel("c", 8, Limits::RELU), None).unwrap();
    let last = network.convolve(third, pixel("d", 8, Limits::NONE), Some(first)).unwrap();
    assert_eq!(last, network.output());
    let Storage { places, .. } = Storage::of(&network);
    // The input's place is free for the third map, the second's for the last, the first's is not.
    assert_eq!(places, [0, 1, 0, 2, 0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let mut network = Network::new(4, 4, 3);
    let wide = Convolve { side: 7, ..pixel("a", 8, Limits::NONE) };
    let refused = network.convolve(network.output(), wide, None).unwrap_err();
    assert!(refused.contains("window of 7 pixels sees no more than 4 by 4"), "{refused}");
    let input = network.output();
    let refused = network.convolve(input, pixel("a", 8, Limits::NONE), Some(input)).unwrap_err();
    assert!(refused.contains("(4, 4, 3) cannot be added to one of (4, 4, 8)"), "{refused}");
    assert_eq!(network.output(), input);
}

/// Candle's convolution of `[1, channels, height, width]` and what follows it, from the same tensors.
fn by_candle(vars: &VarBuilder<'_>, x: &Tensor, convolve: &Convolve, added: Option<&Tensor>) -> Tensor {
    let Convolve { name, outputs, side, stride, .. } = convolve;
    let channels = x.dim(1).unwrap();
    let inputs = if convolve.depthwise { 1 } else { channels };
    let weight = vars.get((*outputs, inputs, *side, *side), &format!("{name}.weight")).unwrap();
    let border = match convolve.padding {
        Padding::Even(pixels) => Border::even(pixels),
        Padding::Same => same(x.dim(2).unwrap(), x.dim(3).unwrap(), *side, *stride),
    };
    let x = x.pad_with_zeros(2, border.top, border.bottom).unwrap();
    let x = x.pad_with_zeros(3, border.left, border.right).unwrap();
    let mut x = x.conv2d(&weight, 0, *stride, 1, channels / inputs).unwrap();
    let column = |name: String| vars.get(*outputs, &name).unwrap().reshape((1, *outputs, 1, 1)).unwrap();
    if convolve.biased {
        x = x.broadcast_add(&column(format!("{name}.bias"))).unwrap();
    }
    if let Some(norm) = &convolve.norm {
        let [gamma, beta, mean, variance] = norm.tensors().map(column);
        let deviation = (variance + norm.epsilon).unwrap().sqrt().unwrap();
        x = x.broadcast_sub(&mean).unwrap().broadcast_div(&deviation).unwrap();
        x = x.broadcast_mul(&gamma).unwrap().broadcast_add(&beta).unwrap();
    }
    if let Some(added) = added {
        x = (x + added).unwrap();
    }
    x.clamp(convolve.limits.0.max(-1e9), convolve.limits.1.min(1e9)).unwrap()
}

#[test]
fn a_network_gives_what_candle_s_operations_give() {
    let norm = |name: &str| Some(BatchNorm { name: name.into(), epsilon: 1e-3 });
    let plain =
        |name: &str, outputs, limits| Convolve { norm: norm(&format!("{name}_norm")), ..pixel(name, outputs, limits) };
    let mut network = Network::new(19, 14, 3);
    let stem = Convolve { side: 3, stride: 2, padding: Padding::Same, ..plain("stem", 10, Limits::RELU6) };
    let first = network.convolve(network.output(), stem.clone(), None).unwrap();
    let wide = Convolve { biased: false, ..plain("wide", 40, Limits::RELU6) };
    network.convolve(first, wide.clone(), None).unwrap();
    let deep = Convolve { side: 5, padding: Padding::Same, depthwise: true, ..plain("deep", 40, Limits::RELU6) };
    network.convolve(network.output(), deep.clone(), None).unwrap();
    let back = plain("back", 10, Limits::NONE);
    let joined = network.convolve(network.output(), back.clone(), Some(first)).unwrap();
    let down = Convolve { side: 3, stride: 2, padding: Padding::Even(1), ..pixel("down", 33, Limits::RELU) };
    network.convolve(joined, down.clone(), None).unwrap();

    let folder = tempfile::tempdir().unwrap();
    made::write(folder.path(), &network.tensors());
    let layers = Layers::load(network, &Checkpoint::open(folder.path()).unwrap(), Precision::F32, &|_| {}).unwrap();
    let vars = Checkpoint::open(folder.path()).unwrap().into_vars(DType::F32, &Device::Cpu);
    let image: Vec<f32> = (0..19 * 14 * 3).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
    let fill = |map: &mut Map| {
        image.chunks_exact(14 * 3).enumerate().for_each(|(row, pixels)| map.pixels_mut(row).copy_from_slice(pixels));
    };
    let take = |map: &Map| (0..map.layout().height).flat_map(|row| map.pixels(row).to_vec()).collect::<Vec<f32>>();

    let x = Tensor::from_vec(image.clone(), (1, 19, 14, 3), &Device::Cpu).unwrap().permute((0, 3, 1, 2)).unwrap();
    let first = by_candle(&vars, &x.contiguous().unwrap(), &stem, None);
    let x = by_candle(&vars, &by_candle(&vars, &first, &wide, None), &deep, None);
    let x = by_candle(&vars, &by_candle(&vars, &x, &back, Some(&first)), &down, None);
    let wanted: Vec<f32> = x.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    // Twice: the second image finds the memory of the first.
    for threads in [Threads::One, Threads::All] {
        let got = layers.run(threads, fill, take);
        assert_eq!(got.len(), wanted.len());
        for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            assert!((got - wanted).abs() < 1e-4, "{threads:?} at {index}: {got} for {wanted}");
        }
    }
}
