//! The memory of all sequences' keys and values, in blocks of sixteen tokens.

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;
use orion_proto::{Code, Error, Result};

use super::{
    config::DecoderConfig,
    kernels::{BLOCK_TOKENS, Half, Shared},
};

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

/// What the numbers of a cache are: with weights of half precision, or quantised, more would not make answers better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    F32,
    F16,
}

impl Width {
    /// Bytes of a number.
    fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<Half>(),
        }
    }

    /// Bytes of a token's keys and values.
    pub(crate) fn token_bytes(self, config: &DecoderConfig) -> u64 {
        config.token_values().saturating_mul(self.bytes() as u64)
    }
}

/// The blocks' numbers, while a step is computed.
#[derive(Clone, Copy)]
pub(crate) enum Cache<'a> {
    F32(Shared<'a, f32>),
    F16(Shared<'a, Half>),
}

/// Blocks of keys and values.
pub(crate) struct KeyValues {
    memory: MmapMut,
    width: Width,
    layout: Layout,
}

impl KeyValues {
    /// So many blocks. The system gives their memory when they are first written, and has it back when they are dropped: an
    /// allocator would keep it, and clear it before it is used again.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where the system has none.
    pub(crate) fn new(config: &DecoderConfig, width: Width, blocks: usize) -> Result<Self> {
        let layout = Layout { layers: config.layers, heads: config.key_value_heads, head_size: config.head_size };
        let (block, _) = layout.head(1, 0, 0);
        let bytes = blocks.saturating_mul(block).saturating_mul(width.bytes());
        let memory = MmapMut::map_anon(bytes).map_err(|error| {
            let reason = error.to_string().to_lowercase();
            Error::new(Code::ResourceExhausted, format!("{bytes} bytes of keys and values cannot be had: {reason}"))
        })?;
        // A hint: with small pages attention is a little slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        Ok(Self { memory, width, layout })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn width(&self) -> Width {
        self.width
    }

    pub(crate) fn share(&mut self) -> Cache<'_> {
        // SAFETY: a mapping begins at a page's border, any bytes are numbers, and these are borrowed as long as the memory.
        unsafe {
            match self.width {
                Width::F32 => Cache::F32(Shared::new(self.memory.align_to_mut().1)),
                Width::F16 => Cache::F16(Shared::new(self.memory.align_to_mut().1)),
            }
        }
    }
}
