//! What `orion.toml` says of generating text.

use orion_proto::{Error, GeneratorSpec, Result};
use serde::Deserialize;

/// Tokens of a block of the cache, which is the least that it can hold.
const BLOCK_TOKENS: u64 = 16;
/// The share of the machine's memory that a cache takes where nobody says how large it is.
const MEMORY_SHARE: u64 = 8;

/// The table `[generation]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Generation {
    /// Generations that run in one step.
    max_sequences: u32,
    /// Tokens that a prompt and its answer may have together; none: what the model was trained for.
    context_tokens: Option<u32>,
    /// Tokens whose keys and values fit the cache; none: those of full contexts, within a share of the memory.
    cache_tokens: Option<u64>,
    /// Whether keys and values are kept for prompts that begin alike.
    pub(crate) prefix_cache: bool,
}

impl Default for Generation {
    fn default() -> Self {
        Self { max_sequences: 16, context_tokens: None, cache_tokens: None, prefix_cache: true }
    }
}

impl Generation {
    pub(super) fn check(&self) -> Result<()> {
        for (key, value, least, most) in [
            ("max_sequences", u64::from(self.max_sequences), 1, 1024),
            ("context_tokens", self.context_tokens.map_or(BLOCK_TOKENS, u64::from), 2, 1 << 24),
            ("cache_tokens", self.cache_tokens.unwrap_or(BLOCK_TOKENS), BLOCK_TOKENS, 1 << 32),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Error::invalid(format!("generation.{key} is {value}, it must be {least} to {most}")));
            }
        }
        Ok(())
    }

    /// What a model holds at once that was trained for so many positions and takes so many bytes of cache a token.
    pub(crate) fn limits(&self, trained: usize, token_bytes: u64, chat: bool) -> GeneratorSpec {
        let trained = u32::try_from(trained).unwrap_or(u32::MAX);
        let context = self.context_tokens.unwrap_or(trained).min(trained);
        let full = u64::from(context.next_multiple_of(BLOCK_TOKENS as u32)).saturating_mul(self.max_sequences.into());
        let within = || full.min(memory_bytes() / MEMORY_SHARE / token_bytes.max(1));
        let blocks = self.cache_tokens.unwrap_or_else(within) / BLOCK_TOKENS;
        let cache_tokens = blocks.max(1) * BLOCK_TOKENS;
        let context_tokens = u32::try_from(cache_tokens).unwrap_or(u32::MAX).min(context);
        GeneratorSpec { context_tokens, max_sequences: self.max_sequences, cache_tokens, chat }
    }
}

/// Memory of this machine, or of the control group that it is.
fn memory_bytes() -> u64 {
    let Ok(mut system) = sysinfo::System::new() else { return 0 };
    system.refresh_memory();
    let group = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    system.total_memory().min(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_whole_blocks_and_bounds_the_context() {
        let settings = Generation { cache_tokens: Some(100), max_sequences: 3, ..Generation::default() };
        let limits = settings.limits(1000, 8, true);
        assert_eq!((limits.cache_tokens, limits.context_tokens, limits.max_sequences), (96, 96, 3));
        let limits = Generation { context_tokens: Some(50), ..Generation::default() }.limits(1000, 8, true);
        assert_eq!((limits.cache_tokens, limits.context_tokens), (64 * 16, 50));
        // A token that takes all memory leaves one block.
        assert_eq!(Generation::default().limits(1000, u64::MAX, false).cache_tokens, 16);
    }
}
