//! The mel filter bank: triangles over the bins of a Fourier transform.

/// One band: what each bin from `first` on adds to it.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) first: usize,
    pub(super) weights: Vec<f32>,
}

/// Bands from 0 to half the sample rate whose middles are equally far apart in mels, each of the same area.
///
/// Slaney, "Auditory Toolbox", 1998: what librosa's `filters.mel` computes.
pub(super) fn mel_filters(mels: usize, transform: usize, sample_rate: usize) -> Vec<Filter> {
    let top = to_mels(sample_rate as f64 / 2.0);
    let edge = |index: usize| to_hertz(top * index as f64 / (mels + 1) as f64);
    let hertz = |bin: usize| (bin * sample_rate) as f64 / transform as f64;
    let filter = |band: usize| {
        let (low, middle, high) = (edge(band), edge(band + 1), edge(band + 2));
        let weight = |bin: usize| {
            let (rise, fall) = ((hertz(bin) - low) / (middle - low), (high - hertz(bin)) / (high - middle));
            (rise.min(fall).max(0.0) * 2.0 / (high - low)) as f32
        };
        let all: Vec<f32> = (0..=transform / 2).map(weight).collect();
        let first = all.iter().position(|weight| *weight > 0.0).unwrap_or(0);
        let weights = all[first..].iter().copied().take_while(|weight| *weight > 0.0).collect();
        Filter { first, weights }
    };
    (0..mels).map(filter).collect()
}

/// Where the scale turns from linear to logarithmic.
const BREAK_HERTZ: f64 = 1000.0;
const HERTZ_PER_MEL: f64 = 200.0 / 3.0;
/// 27 mels of the logarithmic part are a factor of 6.4.
const MELS_PER_E: f64 = 27.0;

fn to_mels(hertz: f64) -> f64 {
    if hertz < BREAK_HERTZ {
        return hertz / HERTZ_PER_MEL;
    }
    BREAK_HERTZ / HERTZ_PER_MEL + (hertz / BREAK_HERTZ).ln() * MELS_PER_E / 6.4f64.ln()
}

fn to_hertz(mels: f64) -> f64 {
    let linear = BREAK_HERTZ / HERTZ_PER_MEL;
    if mels < linear {
        return mels * HERTZ_PER_MEL;
    }
    BREAK_HERTZ * ((mels - linear) * 6.4f64.ln() / MELS_PER_E).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// The weights of OpenAI's `mel_filters.npz` that are not zero.
    #[derive(Deserialize)]
    struct Expected {
        first: Vec<usize>,
        weights: Vec<Vec<f32>>,
    }

    #[test]
    fn the_bank_is_the_one_that_whisper_was_trained_with() {
        let text = include_str!("../../../tests/data/expected/whisper-mel-filters.json");
        let expected: Expected = serde_json::from_str(text).unwrap();
        let filters = mel_filters(80, 400, 16_000);
        assert_eq!(filters.len(), expected.first.len());
        for (filter, (first, weights)) in filters.iter().zip(expected.first.iter().zip(&expected.weights)) {
            assert_eq!((filter.first, filter.weights.len()), (*first, weights.len()));
            for (got, want) in filter.weights.iter().zip(weights) {
                assert!((got - want).abs() < 1e-8, "{got} for {want}");
            }
        }
    }
}
