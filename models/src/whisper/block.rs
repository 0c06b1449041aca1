//! What the blocks of encoder and decoder share.

use orion_proto::Result;

use super::weights::Weights;
use crate::kernels::{Activation, Linear, Norm};

/// Self-attention without its middle: the norm before it, the products into it and out of it.
pub(super) struct SelfAttention {
    pub(super) norm: Norm,
    pub(super) query_key_value: Linear,
    pub(super) out: Linear,
}

impl SelfAttention {
    /// Of the block of that name.
    pub(super) fn load(weights: &Weights<'_>, block: &str, head_size: usize) -> Result<Self> {
        Ok(Self {
            norm: weights.norm(&format!("{block}.attn_ln"))?,
            query_key_value: weights.projections(&format!("{block}.attn"), &["query", "key", "value"], head_size)?,
            out: weights.linear(&format!("{block}.attn.out"), Activation::None)?,
        })
    }
}

/// The two dense layers and the norm before them.
pub(super) struct Mlp {
    pub(super) norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Mlp {
    /// Of the block of that name.
    pub(super) fn load(weights: &Weights<'_>, block: &str) -> Result<Self> {
        Ok(Self {
            norm: weights.norm(&format!("{block}.mlp_ln"))?,
            up: weights.linear(&format!("{block}.mlp.0"), Activation::Gelu)?,
            down: weights.linear(&format!("{block}.mlp.2"), Activation::None)?,
        })
    }

    /// Of `x` `[rows, d]`, normalised, into `out`; `inner` is room for what lies between the layers.
    pub(super) fn forward(&self, x: &[f32], inner: &mut [f32], out: &mut [f32]) {
        self.up.forward(x, inner);
        self.down.forward(inner, out);
    }
}
