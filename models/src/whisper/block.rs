//! What the blocks of encoder and decoder share.

use orion_proto::Result;

use super::checkpoint::Checkpoint;
use crate::kernels::{Activation, Linear, Norm};

/// Self-attention without its middle: the norm before it, the products into it and out of it.
pub(super) struct SelfAttention {
    pub(super) norm: Norm,
    pub(super) query_key_value: Linear,
    pub(super) out: Linear,
}

impl SelfAttention {
    /// Of the block of that name.
    pub(super) fn load(checkpoint: &Checkpoint<'_>, block: &str, head_size: usize) -> Result<Self> {
        Ok(Self {
            norm: checkpoint.norm(&format!("{block}.attn_ln"))?,
            query_key_value: checkpoint.projections(&format!("{block}.attn"), &["query", "key", "value"], head_size)?,
            out: checkpoint.linear(&format!("{block}.attn.out"), Activation::None)?,
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
    pub(super) fn load(checkpoint: &Checkpoint<'_>, block: &str) -> Result<Self> {
        Ok(Self {
            norm: checkpoint.norm(&format!("{block}.mlp_ln"))?,
            up: checkpoint.linear(&format!("{block}.mlp.0"), Activation::Gelu)?,
            down: checkpoint.linear(&format!("{block}.mlp.2"), Activation::None)?,
        })
    }

    /// Of `x` `[rows, d]`, normalised, into `out`; `inner` is room for what lies between the layers.
    pub(super) fn forward(&self, x: &[f32], inner: &mut [f32], out: &mut [f32]) {
        self.up.forward(x, inner);
        self.down.forward(inner, out);
    }
}
