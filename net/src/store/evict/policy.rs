//! The policies by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Which artifact leaves first; written as `lru`, `lfu`, `fifo`, `ttl:3600` or `adaptive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Policy {
    /// The one whose last use is longest ago.
    Lru,
    /// The one that was used least often; a use counts half after 512 others.
    Lfu,
    /// The one that came first.
    Fifo,
    /// As `Lru`, and what was not used for so long leaves even while there is room.
    Ttl {
        /// Seconds since the last use, at least 1.
        seconds: u64,
    },
    /// The one that is least likely to be used next, by what foretold the uses so far best: recency or frequency.
    #[default]
    Adaptive,
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown eviction policy {0:?}: it is lru, lfu, fifo, adaptive or ttl:SECONDS, with 1 second or more")]
pub struct UnknownPolicy(String);

impl fmt::Display for Policy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lru => out.pad("lru"),
            Self::Lfu => out.pad("lfu"),
            Self::Fifo => out.pad("fifo"),
            Self::Ttl { seconds } => out.pad(&format!("ttl:{seconds}")),
            Self::Adaptive => out.pad("adaptive"),
        }
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let seconds = || name.strip_prefix("ttl:")?.parse().ok().filter(|seconds| *seconds > 0);
        match name {
            "lru" => Ok(Self::Lru),
            "lfu" => Ok(Self::Lfu),
            "fifo" => Ok(Self::Fifo),
            "adaptive" => Ok(Self::Adaptive),
            // A long wrong name must not push the right ones out of the message.
            _ => seconds()
                .map(|seconds| Self::Ttl { seconds })
                .ok_or_else(|| UnknownPolicy(name.chars().take(64).collect())),
        }
    }
}

impl TryFrom<String> for Policy {
    type Error = UnknownPolicy;

    fn try_from(name: String) -> Result<Self, UnknownPolicy> {
        name.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.to_string()
    }
}
