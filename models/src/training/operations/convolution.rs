//! A block of a network as one operation of the tensor library: a convolution that keeps the image's size, ReLU, and the
//! greatest of 2 × 2 pixels. What lies between stays in the cache.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{
    product::{Matrix, multiply},
    slice, values,
};

/// Images whose gradients are summed one after the other. Fixed: the sum must not depend on the number of threads.
const TOGETHER: usize = 8;

/// A block over images `[count, channels, height, width]` with a weight `[outputs, channels, kernel, kernel]` and a bias.
pub(in crate::training) struct ConvolutionBlock {
    /// Of each value that came out: which of its four pixels it was.
    kept: Mutex<Vec<u8>>,
}

/// Sizes of one application.
#[derive(Clone, Copy)]
struct Sizes {
    count: usize,
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    kernel: usize,
}

/// Scratch of one thread.
struct Room {
    columns: Vec<f32>,
    plane: Vec<f32>,
}

impl Sizes {
    fn new(images: &[usize], weight: &[usize]) -> Result<Self> {
        let (&[count, channels, height, width], &[outputs, inputs, kernel, same]) = (images, weight) else {
            bail!("a block takes images of four dimensions and a weight of four, not {images:?} and {weight:?}")
        };
        if inputs != channels || kernel != same || kernel % 2 == 0 || height < 2 || width < 2 {
            bail!("a weight of {weight:?} does not fit images of {images:?}")
        }
        Ok(Self { count, channels, height, width, outputs, kernel })
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    fn image(&self) -> usize {
        self.channels * self.pixels()
    }

    fn taps(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    fn pooled(&self) -> (usize, usize) {
        (self.height / 2, self.width / 2)
    }

    /// Values that come out of one image.
    fn out(&self) -> usize {
        self.outputs * (self.height / 2) * (self.width / 2)
    }

    fn room(&self) -> Room {
        Room { columns: vec![0.0; self.taps() * self.pixels()], plane: vec![0.0; self.outputs * self.pixels()] }
    }

    /// Calls `row(tap and row of pixels, from, to, length)` for each run of pixels that a tap sees.
    fn runs(&self, mut run: impl FnMut(usize, usize, usize)) {
        let half = (self.kernel / 2) as isize;
        let (height, width) = (self.height as isize, self.width as isize);
        for channel in 0..self.channels {
            for down in 0..self.kernel {
                for across in 0..self.kernel {
                    let tap = (channel * self.kernel + down) * self.kernel + across;
                    let (dy, dx) = (down as isize - half, across as isize - half);
                    let (first, last) = ((-dx).max(0), (width - dx).min(width));
                    for y in (-dy).max(0)..(height - dy).min(height) {
                        let to = tap * self.pixels() + (y * width + first) as usize;
                        let from = channel * self.pixels() + ((y + dy) * width + first + dx) as usize;
                        let length = (last - first).max(0) as usize;
                        run(to, from, length);
                    }
                }
            }
        }
    }

    /// What each tap sees, `[taps, pixels]`. What lies outside the image stays zero.
    fn gather(&self, image: &[f32], columns: &mut [f32]) {
        self.runs(|to, from, length| columns[to..to + length].copy_from_slice(&image[from..from + length]));
    }

    /// Adds what each tap saw to where it saw it.
    fn scatter(&self, columns: &[f32], image: &mut [f32]) {
        self.runs(|at, to, length| {
            image[to..to + length].iter_mut().zip(&columns[at..at + length]).for_each(|(sum, value)| *sum += value);
        });
    }

    /// Of each square of four, the greatest with its bias where that is above zero, and which it was.
    fn pool(&self, plane: &[f32], bias: &[f32], out: &mut [f32], kept: &mut [u8]) {
        let (height, width) = self.pooled();
        let planes = plane.chunks_exact(self.pixels()).zip(bias);
        let outs = out.chunks_exact_mut(height * width).zip(kept.chunks_exact_mut(height * width));
        for ((plane, bias), (out, kept)) in planes.zip(outs) {
            for y in 0..height {
                let upper = &plane[2 * y * self.width..][..2 * width];
                let lower = &plane[(2 * y + 1) * self.width..][..2 * width];
                let rows = upper.chunks_exact(2).zip(lower.chunks_exact(2));
                let outs = out[y * width..][..width].iter_mut().zip(&mut kept[y * width..][..width]);
                for ((upper, lower), (out, kept)) in rows.zip(outs) {
                    let (high, high_at) = if upper[1] > upper[0] { (upper[1], 1) } else { (upper[0], 0) };
                    let (low, low_at) = if lower[1] > lower[0] { (lower[1], 3) } else { (lower[0], 2) };
                    let (value, at) = if low > high { (low, low_at) } else { (high, high_at) };
                    (*out, *kept) = ((value + bias).max(0.0), at);
                }
            }
        }
    }

    /// The gradient before the pooling, from that after it.
    fn unpool(&self, out: &[f32], grad: &[f32], kept: &[u8], plane: &mut [f32]) {
        let (height, width) = self.pooled();
        plane.fill(0.0);
        let all = out.chunks_exact(height * width).zip(grad.chunks_exact(height * width));
        let all = all.zip(kept.chunks_exact(height * width)).zip(plane.chunks_exact_mut(self.pixels()));
        for (((out, grad), kept), plane) in all {
            for index in 0..height * width {
                let (y, x, at) = (index / width, index % width, usize::from(kept[index]));
                let value = if out[index] > 0.0 { grad[index] } else { 0.0 };
                plane[(2 * y + at / 2) * self.width + 2 * x + at % 2] = value;
            }
        }
    }
}

impl ConvolutionBlock {
    pub(in crate::training) fn new() -> Self {
        Self { kept: Mutex::default() }
    }
}

impl CustomOp3 for ConvolutionBlock {
    fn name(&self) -> &'static str {
        "convolution-block"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
        bias: &CpuStorage,
        bias_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::new(images_at.dims(), weight_at.dims())?;
        let (images, weight) = (slice(images, images_at)?, slice(weight, weight_at)?);
        let bias = slice(bias, bias_at)?;
        let mut out = vec![0.0; sizes.count * sizes.out()];
        let mut kept = vec![0; out.len()];
        let weight = Matrix::new(weight, sizes.outputs, sizes.taps());
        let parts = out.par_chunks_exact_mut(sizes.out()).zip(kept.par_chunks_exact_mut(sizes.out()));
        parts.zip(images.par_chunks_exact(sizes.image())).for_each_init(
            || sizes.room(),
            |room, ((out, kept), image)| {
                sizes.gather(image, &mut room.columns);
                let columns = Matrix::new(&room.columns, sizes.taps(), sizes.pixels());
                multiply(weight, columns, &mut room.plane, false);
                sizes.pool(&room.plane, bias, out, kept);
            },
        );
        *self.kept.lock() = kept;
        let (height, width) = sizes.pooled();
        Ok((CpuStorage::F32(out), Shape::from((sizes.count, sizes.outputs, height, width))))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::new(images.dims(), weight.dims())?;
        let kept = std::mem::take(&mut *self.kept.lock());
        let (seen, weights) = (values(images)?, values(weight)?);
        let (out, grad) = (values(out)?, values(grad)?);
        // The first block's images are no function of what is learnt.
        let wanted = images.track_op();
        let mut into = vec![0.0; if wanted { seen.len() } else { 0 }];
        let many = (TOGETHER * sizes.out(), TOGETHER * sizes.image());
        let given = out.par_chunks(many.0).zip(grad.par_chunks(many.0)).zip(kept.par_chunks(many.0));
        let given = given.zip(seen.par_chunks(many.1));
        let given = given.map(|(((out, grad), kept), images)| Seen { out, grad, kept, images });
        let parts: Vec<Part> = if wanted {
            let given = given.zip(into.par_chunks_mut(many.1));
            given.map(|(seen, into)| Part::of(&sizes, &weights, &seen, into)).collect()
        } else {
            given.map(|seen| Part::of(&sizes, &weights, &seen, &mut [])).collect()
        };
        let mut parts = parts.into_iter();
        let Some(mut sum) = parts.next() else { bail!("a block of no images has no gradient") };
        parts.for_each(|part| sum.add(&part));
        let device = weight.device();
        let into = wanted.then(|| Tensor::from_vec(into, images.shape(), device)).transpose()?;
        let weight = Tensor::from_vec(sum.weight, weight.shape(), device)?;
        Ok((into, Some(weight), Some(Tensor::from_vec(sum.bias, bias.shape(), device)?)))
    }
}

/// What a block saw and gave of a few images, and what is asked of what it gave.
struct Seen<'a> {
    out: &'a [f32],
    grad: &'a [f32],
    kept: &'a [u8],
    images: &'a [f32],
}

/// The gradient of a few images.
struct Part {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Part {
    fn of(sizes: &Sizes, weights: &[f32], seen: &Seen<'_>, into: &mut [f32]) -> Self {
        let mut part = Self { weight: vec![0.0; weights.len()], bias: vec![0.0; sizes.outputs] };
        let (mut room, mut back) =
            (sizes.room(), vec![0.0; if into.is_empty() { 0 } else { sizes.taps() * sizes.pixels() }]);
        let weights = Matrix::new(weights, sizes.outputs, sizes.taps());
        let given = seen.out.chunks_exact(sizes.out()).zip(seen.grad.chunks_exact(sizes.out()));
        let given = given.zip(seen.kept.chunks_exact(sizes.out())).zip(seen.images.chunks_exact(sizes.image()));
        for (index, (((out, grad), kept), image)) in given.enumerate() {
            sizes.unpool(out, grad, kept, &mut room.plane);
            sizes.gather(image, &mut room.columns);
            let plane = Matrix::new(&room.plane, sizes.outputs, sizes.pixels());
            let columns = Matrix::new(&room.columns, sizes.taps(), sizes.pixels());
            multiply(plane, columns.across(), &mut part.weight, true);
            for (sum, plane) in part.bias.iter_mut().zip(room.plane.chunks_exact(sizes.pixels())) {
                *sum += plane.iter().sum::<f32>();
            }
            if !into.is_empty() {
                multiply(weights.across(), plane, &mut back, false);
                sizes.scatter(&back, &mut into[index * sizes.image()..][..sizes.image()]);
            }
        }
        part
    }

    fn add(&mut self, other: &Self) {
        self.weight.iter_mut().zip(&other.weight).for_each(|(sum, value)| *sum += value);
        self.bias.iter_mut().zip(&other.bias).for_each(|(sum, value)| *sum += value);
    }
}
