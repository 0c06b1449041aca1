//! From a window of the spectrogram to what the decoder listens to.

use orion_proto::Result;

use super::{
    Source,
    block::{Mlp, SelfAttention},
    weights::Weights,
};
use crate::kernels::{Linear, Norm, attend};

/// Whisper's encoder: two convolutions, then blocks that normalise before their layers.
///
/// Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022.
pub(super) struct Encoder {
    convolutions: [Linear; 2],
    positions: Vec<f32>,
    blocks: Vec<(SelfAttention, Mlp)>,
    norm: Norm,
    mels: usize,
    d: usize,
    heads: usize,
    inner: usize,
}

impl Encoder {
    /// Reads and packs the weights.
    pub(super) fn load(weights: &Weights<'_>, source: &Source) -> Result<Self> {
        let config = &source.config;
        let (d, heads) = (config.d_model, config.encoder_attention_heads);
        let block = |index: usize| {
            let name = format!("encoder.blocks.{index}");
            Ok((SelfAttention::load(weights, &name, d / heads)?, Mlp::load(weights, &name)?))
        };
        Ok(Self {
            convolutions: [weights.convolution("encoder.conv1")?, weights.convolution("encoder.conv2")?],
            positions: weights.floats("encoder.positional_embedding")?,
            blocks: (0..config.encoder_layers).map(block).collect::<Result<_>>()?,
            norm: weights.norm("encoder.ln_post")?,
            mels: config.num_mel_bins,
            d,
            heads,
            inner: config.encoder_inner(),
        })
    }

    /// Of a window `[frames + 2, mels]`, with a row of zeros before and behind it, `[frames / 2, d]`.
    pub(super) fn encode(&self, window: &[f32]) -> Vec<f32> {
        let Self { d, mels, .. } = *self;
        let frames = window.len() / mels - 2;
        let positions = frames / 2;
        let mut x = vec![0.0; positions * d];
        let mut normalised = vec![0.0; positions * d];
        let mut added = self.positions.clone();
        let mut wide = vec![0.0; (positions * self.inner.max(4 * d)).max((frames + 2) * d)];

        // Rows of zeros stand for what lies outside, here too.
        let convolved = &mut wide[..(frames + 2) * d];
        convolved[..d].fill(0.0);
        convolved[(frames + 1) * d..].fill(0.0);
        self.convolutions[0].forward_strided(window, mels, frames, &mut convolved[d..(frames + 1) * d]);
        self.convolutions[1].forward_strided(convolved, 2 * d, positions, &mut x);

        for (attention, mlp) in &self.blocks {
            attention.norm.add_before(&mut x, &added, &mut normalised);
            let (all, attended) = wide.split_at_mut(3 * positions * d);
            let attended = &mut attended[..positions * d];
            attention.query_key_value.forward(&normalised, all);
            attend(all, &[positions], self.heads, attended);
            attention.out.forward(attended, &mut added);
            mlp.norm.add_before(&mut x, &added, &mut normalised);
            mlp.forward(&normalised, &mut wide[..positions * self.inner], &mut added);
        }
        self.norm.add_before(&mut x, &added, &mut normalised);
        normalised
    }
}
