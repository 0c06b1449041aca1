//! From one sample rate to another.

use rubato::{Fft, FixedSync, Resampler as _, WindowFunction, audioadapter_buffers::direct::SequentialSlice};

/// Samples of one block, about: the filter's length, and so its steepness.
const BLOCK: usize = 4096;

/// Resamples one channel piece by piece; what comes out begins and ends with what went in.
pub(crate) struct Resampler {
    /// None where the rates are the same.
    fft: Option<Fft<f32>>,
    from: usize,
    to: usize,
    taken: usize,
    given: usize,
    /// Samples that come out before the first one, and are left out.
    early: usize,
    pending: Vec<f32>,
    out: Vec<f32>,
}

impl Resampler {
    /// Between these rates, in Hz.
    pub(crate) fn new(from: usize, to: usize) -> Result<Self, String> {
        let fft = || Fft::new_custom(from, to, BLOCK, 1, 1, WindowFunction::BlackmanHarris2, FixedSync::Both);
        let fft = if from == to { None } else { Some(fft().map_err(failed)?) };
        let early = fft.as_ref().map_or(0, |fft| fft.output_delay());
        let out = vec![0.0; fft.as_ref().map_or(0, |fft| fft.output_frames_max())];
        Ok(Self { fft, from, to, taken: 0, given: 0, early, pending: Vec::new(), out })
    }

    /// Samples that went in.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Takes samples, and hands on what they complete.
    pub(crate) fn push(&mut self, samples: &[f32], sink: &mut dyn FnMut(&[f32])) -> Result<(), String> {
        self.taken += samples.len();
        if self.fft.is_none() {
            sink(samples);
            return Ok(());
        }
        self.pending.extend_from_slice(samples);
        self.convert(usize::MAX, sink)
    }

    /// Hands on the rest.
    pub(crate) fn finish(mut self, sink: &mut dyn FnMut(&[f32])) -> Result<(), String> {
        let Some(block) = self.fft.as_ref().map(|fft| fft.input_frames_next()) else { return Ok(()) };
        let whole = (self.taken as u128 * self.to as u128).div_ceil(self.from as u128) as usize;
        while self.given < whole {
            self.pending.resize(block, 0.0);
            self.convert(whole - self.given, sink)?;
        }
        Ok(())
    }

    /// Converts the whole blocks that are there, and hands on `most` samples at most.
    fn convert(&mut self, most: usize, sink: &mut dyn FnMut(&[f32])) -> Result<(), String> {
        let Some(fft) = &mut self.fft else { return Ok(()) };
        let block = fft.input_frames_next();
        let blocks = self.pending.chunks_exact(block);
        let rest = blocks.remainder().len();
        for samples in blocks {
            let length = self.out.len();
            let input = SequentialSlice::new(samples, 1, block).map_err(failed)?;
            let mut output = SequentialSlice::new_mut(&mut self.out, 1, length).map_err(failed)?;
            let (_, made) = fft.process_into_buffer(&input, &mut output, None).map_err(failed)?;
            let early = made.min(self.early);
            self.early -= early;
            let made = &self.out[early..made];
            let made = &made[..made.len().min(most)];
            self.given += made.len();
            sink(made);
        }
        self.pending.drain(..self.pending.len() - rest);
        Ok(())
    }
}

fn failed(error: impl std::error::Error) -> String {
    format!("cannot be resampled: {}", error.to_string().to_lowercase())
}
