//! Safetensors files with made weights, for tests.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Seeded tensors of these shapes: near 1 where they scale, near 0 elsewhere.
fn tensors<N: AsRef<str>>(shapes: &[(N, Vec<usize>)]) -> HashMap<String, Tensor> {
    let mut random = StdRng::seed_from_u64(7);
    let mut tensor = |(name, shape): &(N, Vec<usize>)| {
        let name = name.as_ref();
        let scales = name.ends_with("running_var") || (name.ends_with(".weight") && shape.len() == 1);
        let (middle, depth) = (if scales { 1.0 } else { 0.0 }, shape.iter().skip(1).product::<usize>().max(1));
        let spread = 2.0 / (depth as f32).sqrt();
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| middle + (random.random::<f32>() - 0.5) * if scales { 0.5 } else { spread })
            .collect();
        (name.to_owned(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap())
    };
    shapes.iter().map(&mut tensor).collect()
}

/// Writes a folder's `model.safetensors` anew.
pub(crate) fn write<N: AsRef<str>>(folder: &Path, shapes: &[(N, Vec<usize>)]) {
    candle_core::safetensors::save(&tensors(shapes), folder.join("model.safetensors")).unwrap();
}

/// Puts tensors into a folder's `model.safetensors` in place of those of the same names.
pub(crate) fn add<N: AsRef<str>>(folder: &Path, shapes: &[(N, Vec<usize>)]) {
    let path = folder.join("model.safetensors");
    let mut all = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    all.extend(tensors(shapes));
    candle_core::safetensors::save(&all, path).unwrap();
}
