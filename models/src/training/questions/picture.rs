//! From an image's file to what a network sees of it.

use orion_proto::Error;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::imaging::{Area, Filter, Resize, Rgb, decode};

/// Images of one size: three channels, each around its mean, in deviations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Of values from 0 to 1.
    pub(super) mean: [f32; 3],
    pub(super) deviation: [f32; 3],
}

impl Picture {
    /// Of the size of the first of these, with their means.
    pub(super) fn of(
        files: impl Iterator<Item = Result<Vec<u8>, Error>>,
        wrong: impl Fn(usize, &str) -> Error,
    ) -> Result<Self, Error> {
        let mut picture = Self { height: 0, width: 0, mean: [0.0; 3], deviation: [1.0; 3] };
        let mut sums = [[0f64; 2]; 3];
        let mut count = 0.0;
        for (index, file) in files.enumerate() {
            let (file, wrong) = (file?, |why: String| wrong(index, &format!("its image: {why}")));
            if index == 0 {
                let Rgb { width, height, .. } = decode(&file).map_err(&wrong)?;
                (picture.height, picture.width) = (height, width);
            }
            let values = picture.values(&file).map_err(&wrong)?;
            count += (values.len() / 3) as f64;
            for (sums, channel) in sums.iter_mut().zip(values.chunks_exact(values.len() / 3)) {
                channel.iter().map(|value| f64::from(*value)).for_each(|value| {
                    sums[0] += value;
                    sums[1] += value * value;
                });
            }
        }
        for (channel, [sum, squares]) in sums.into_iter().enumerate() {
            let mean = sum / f64::max(count, 1.0);
            picture.mean[channel] = mean as f32;
            // A channel that is the same everywhere has none.
            picture.deviation[channel] = (squares / f64::max(count, 1.0) - mean * mean).max(1e-4).sqrt() as f32;
        }
        Ok(picture)
    }

    /// Channels, height, width.
    pub(super) fn shape(&self) -> [usize; 3] {
        [3, self.height, self.width]
    }

    /// The values of a file; one of another size is made as large.
    pub(super) fn values(&self, file: &[u8]) -> Result<Vec<f32>, String> {
        let Rgb { width, height, mut pixels } = decode(file)?;
        if (height, width) != (self.height, self.width) {
            let area = |width, height| Area { left: 0, top: 0, width, height };
            let (to, keep) = ((self.width, self.height), area(self.width, self.height));
            let resize = Resize { from: area(width, height), to, keep, filter: Filter::Bilinear };
            pixels = resize.apply::<3>(&pixels, width);
        }
        let channel = |channel: usize| {
            let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
            let values = pixels.iter().skip(channel).step_by(3);
            values.map(move |value| (f32::from(*value) / 255.0 - mean) / deviation)
        };
        Ok((0..3).flat_map(channel).collect())
    }

    /// The same of many, at once.
    pub(super) fn all(&self, files: &[&[u8]]) -> Vec<Result<Vec<f32>, String>> {
        files.par_iter().map(|file| self.values(file)).collect()
    }
}
