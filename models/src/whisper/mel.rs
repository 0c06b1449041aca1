//! The logarithmic mel spectrogram, computed while samples arrive.

use std::{f32::consts::PI, sync::Arc};

use rayon::prelude::*;
use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

use super::filters::{Filter, mel_filters};

/// Samples a second.
pub(super) const SAMPLE_RATE: usize = 16_000;
/// Frames a second.
pub(super) const FRAMES_PER_SECOND: usize = SAMPLE_RATE / HOP;
/// Samples of one transform.
const TRANSFORM: usize = 400;
/// Samples from one frame to the next.
const HOP: usize = 160;
/// Frames of one piece of work.
const PIECE: usize = 64;

/// What turns samples into frames.
pub(super) struct MelTransform {
    filters: Vec<Filter>,
    window: Vec<f32>,
    transform: Arc<dyn RealToComplex<f32>>,
}

/// The frames of one audio.
pub(super) struct Spectrogram {
    /// `[frames, mels]`: the base-10 logarithm of each band's power, 1e-10 at least.
    values: Vec<f32>,
    mels: usize,
    greatest: f32,
}

/// Samples that arrive, and the frames of those that have.
pub(super) struct SpectrogramBuilder<'a> {
    transform: &'a MelTransform,
    values: Vec<f32>,
    /// What no finished frame has left behind: a frame reaches half a transform to both sides of its sample.
    pending: Vec<f32>,
    samples: usize,
}

impl MelTransform {
    /// With so many bands.
    pub(super) fn new(mels: usize) -> Self {
        let hann = |n: usize| 0.5 - 0.5 * (2.0 * PI * n as f32 / TRANSFORM as f32).cos();
        Self {
            filters: mel_filters(mels, TRANSFORM, SAMPLE_RATE),
            window: (0..TRANSFORM).map(hann).collect(),
            transform: RealFftPlanner::new().plan_fft_forward(TRANSFORM),
        }
    }

    /// Begins an audio.
    pub(super) fn begin(&self) -> SpectrogramBuilder<'_> {
        SpectrogramBuilder { transform: self, values: Vec::new(), pending: Vec::new(), samples: 0 }
    }

    /// The frames whose first samples lie `HOP` apart.
    fn frames(&self, samples: &[f32], frames: &mut [f32]) {
        let mels = self.filters.len();
        let pieces = frames.par_chunks_mut(PIECE * mels).enumerate();
        let scratch = || (vec![0.0; TRANSFORM], self.transform.make_output_vec(), self.transform.make_scratch_vec());
        pieces.for_each_init(scratch, |(windowed, spectrum, scratch), (piece, frames)| {
            for (index, frame) in frames.chunks_exact_mut(mels).enumerate() {
                let samples = &samples[(piece * PIECE + index) * HOP..][..TRANSFORM];
                windowed.iter_mut().zip(samples).zip(&self.window).for_each(|((out, x), w)| *out = x * w);
                let transformed = self.transform.process_with_scratch(windowed, spectrum, scratch);
                debug_assert!(transformed.is_ok(), "the buffers are of the transform's own making");
                self.bands(spectrum, frame);
            }
        });
    }

    fn bands(&self, spectrum: &[Complex<f32>], frame: &mut [f32]) {
        let power = |value: &Complex<f32>| value.re * value.re + value.im * value.im;
        for (Filter { first, weights }, band) in self.filters.iter().zip(frame) {
            let sum: f32 = spectrum[*first..].iter().zip(weights).map(|(value, weight)| power(value) * weight).sum();
            *band = sum.max(1e-10).log10();
        }
    }
}

impl SpectrogramBuilder<'_> {
    /// Takes the next samples.
    pub(super) fn extend(&mut self, samples: &[f32]) {
        let was_mirrored = self.is_mirrored();
        self.samples += samples.len();
        self.pending.extend_from_slice(samples);
        if !was_mirrored && self.is_mirrored() {
            self.mirror();
        }
        let whole = self.pending.len().saturating_sub(TRANSFORM - HOP) / HOP;
        // Many at once, so that there is something to share out.
        if self.is_mirrored() && whole >= 8 * PIECE {
            self.compute(whole);
        }
    }

    /// Ends the audio, as if silence followed.
    pub(super) fn finish(mut self) -> Spectrogram {
        let mels = self.transform.filters.len();
        let left = self.samples / HOP - self.values.len() / mels;
        if left > 0 {
            if !self.is_mirrored() {
                self.pending.resize(TRANSFORM / 2 + 1, 0.0);
                self.mirror();
            }
            self.pending.resize((left - 1) * HOP + TRANSFORM, 0.0);
            self.compute(left);
        }
        let greatest = self.values.iter().copied().fold(f32::MIN, f32::max);
        Spectrogram { values: self.values, mels, greatest }
    }

    /// Whether enough came to mirror.
    fn is_mirrored(&self) -> bool {
        self.samples > TRANSFORM / 2
    }

    /// Puts before the first sample the reflection of what follows it.
    fn mirror(&mut self) {
        let reflected: Vec<f32> = self.pending[1..=TRANSFORM / 2].iter().rev().copied().collect();
        self.pending.splice(..0, reflected);
    }

    fn compute(&mut self, frames: usize) {
        let (mels, done) = (self.transform.filters.len(), self.values.len());
        self.values.resize(done + frames * mels, 0.0);
        self.transform.frames(&self.pending, &mut self.values[done..]);
        self.pending.drain(..frames * HOP);
    }
}

impl Spectrogram {
    /// How many frames there are.
    pub(super) fn frames(&self) -> usize {
        self.values.len() / self.mels
    }

    /// So many frames from one on, as the encoder reads them: `[frames + 2, mels]`, the first and the last row zero, as
    /// is what lies behind the audio's end.
    ///
    /// What is 8 powers of ten below the audio's loudest band is raised to that, and all is brought near −1 to 1.
    pub(super) fn window(&self, from: usize, frames: usize) -> Vec<f32> {
        let mut window = vec![0.0; (frames + 2) * self.mels];
        let held = &self.values[from.min(self.frames()) * self.mels..];
        let rows = window[self.mels..].iter_mut().take(frames * self.mels);
        rows.zip(held).for_each(|(out, value)| *out = (value.max(self.greatest - 8.0) + 4.0) / 4.0);
        window
    }
}

/// The spectrogram of each row of samples, as the encoder reads it: `[rows, mels, frames]`, and how many frames there are.
pub(crate) fn log_mel(samples: &[f32], rows: usize, mels: usize) -> (Vec<f32>, usize) {
    let transform = MelTransform::new(mels);
    let width = samples.len().checked_div(rows).unwrap_or(0);
    let frames = width / HOP;
    let mut values = Vec::with_capacity(rows * mels * frames);
    for row in samples.chunks(width.max(1)).take(rows) {
        let mut builder = transform.begin();
        builder.extend(row);
        let window = builder.finish().window(0, frames);
        let of_band = |band: usize| window[mels..].iter().skip(band).step_by(mels).take(frames).copied();
        values.extend((0..mels).flat_map(of_band));
    }
    values.resize(rows * mels * frames, 0.0);
    (values, frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(samples: usize) -> Vec<f32> {
        (0..samples).map(|n| (n as f32 * 0.3).sin() * 0.5).collect()
    }

    #[test]
    fn pieces_of_any_size_give_the_same_frames() {
        let transform = MelTransform::new(80);
        for samples in [0, 1, 159, 160, 200, 201, 399, 16_000, 250_001] {
            let audio = tone(samples);
            let by = |piece: usize| {
                let mut builder = transform.begin();
                audio.chunks(piece).for_each(|samples| builder.extend(samples));
                builder.finish()
            };
            let whole = by(samples.max(1));
            assert_eq!(whole.frames(), samples / HOP);
            for piece in [1 + samples / 7, 160, 4096] {
                assert_eq!(by(piece).values, whole.values, "{samples} samples by {piece}");
            }
        }
    }

    #[test]
    fn a_tone_is_in_its_band_and_windows_are_framed_by_zeros() {
        let transform = MelTransform::new(80);
        let mut builder = transform.begin();
        builder.extend(&tone(SAMPLE_RATE));
        let spectrogram = builder.finish();
        // 0.3 radians a sample are 764 Hz: 11.46 mels of 45.25 in 81 steps, so band 19 or 20.
        let frame = &spectrogram.values[50 * 80..51 * 80];
        let loudest = (0..80).max_by(|a, b| frame[*a].total_cmp(&frame[*b])).unwrap();
        assert!((19..=20).contains(&loudest), "{loudest}");
        let window = spectrogram.window(90, 20);
        assert_eq!(window.len(), 22 * 80);
        assert!(window[..80].iter().chain(&window[11 * 80..]).all(|x| *x == 0.0));
        let rows = &window[80..11 * 80];
        let greatest = (spectrogram.greatest + 4.0) / 4.0;
        assert!(rows.iter().all(|x| (greatest - 2.0..=greatest).contains(x)) && rows.iter().any(|x| *x != 0.0));
        assert!(spectrogram.window(1000, 3).iter().all(|x| *x == 0.0));
    }
}
