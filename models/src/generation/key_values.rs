//! The memory of all sequences' keys and values, in blocks of sixteen tokens.

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;
use orion_proto::{Code, Error, Result};

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
    memory: MmapMut,
    layout: Layout,
}

impl KeyValues {
    /// So many blocks. The system gives their memory when they are first written, and has it back when they are dropped: an
    /// allocator would keep it, and clear it before it is used again.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where the system has none.
    pub(crate) fn new(config: &DecoderConfig, blocks: usize) -> Result<Self> {
        let layout = Layout { layers: config.layers, heads: config.key_value_heads, head_size: config.head_size };
        let (block, _) = layout.head(1, 0, 0);
        let bytes = blocks.saturating_mul(block).saturating_mul(size_of::<f32>());
        let memory = MmapMut::map_anon(bytes).map_err(|error| {
            let reason = error.to_string().to_lowercase();
            Error::new(Code::ResourceExhausted, format!("{bytes} bytes of keys and values cannot be had: {reason}"))
        })?;
        // A hint: with small pages attention is a little slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        Ok(Self { memory, layout })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn values(&mut self) -> &mut [f32] {
        // SAFETY: a mapping begins at a page's border, any bytes are values, and these are borrowed as long as the memory.
        let (_, values, _) = unsafe { self.memory.align_to_mut() };
        values
    }
}
