//! The memory of all sequences' keys and values, in blocks of sixteen tokens.

use super::{config::DecoderConfig, kernels::BLOCK_TOKENS};

/// Where a block's parts lie. A block holds, layer after layer and head after head, keys then values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    layers: usize,
    heads: usize,
    head_size: usize,
}

impl Layout {
    /// Where a block holds one head of one layer, and how many values that are.
    pub(crate) fn head(&self, block: u32, layer: usize, head: usize) -> (usize, usize) {
        let length = 2 * self.head_size * BLOCK_TOKENS;
        (((block as usize * self.layers + layer) * self.heads + head) * length, length)
    }
}

/// Blocks of keys and values.
pub(crate) struct KeyValues {
    values: Vec<f32>,
    layout: Layout,
}

impl KeyValues {
    /// So many blocks. The system gives their memory when they are first written.
    pub(crate) fn new(config: &DecoderConfig, blocks: usize) -> Self {
        let layout = Layout { layers: config.layers, heads: config.key_value_heads, head_size: config.head_size };
        let (block, _) = layout.head(1, 0, 0);
        Self { values: vec![0.0; blocks.saturating_mul(block)], layout }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn values(&mut self) -> &mut [f32] {
        &mut self.values
    }
}
