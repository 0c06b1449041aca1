//! Names of models and workers: what may stand in a path, a metric label or a log line.

use crate::{Error, Result, datatype::shortened};

/// Whether a name is `^[A-Za-z0-9._-]{1,128}$` and not a path step (`.`, `..`).
pub fn valid_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// A model's name that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(String);

impl ModelName {
    /// Checks a name.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what a name looks like.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if valid_name(&name) {
            return Ok(Self(name));
        }
        Err(Error::invalid(format!(
            "model name '{}' is not valid, it must be 1 to 128 of the characters A-Z a-z 0-9 . _ - and not '.' or '..'",
            shortened(&name)
        )))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_no_paths_pass() {
        for good in ["minilm", "a", "Qwen2.5-0.5B_x", &"x".repeat(128), "...", "..a"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a b", "ä", "a\0", "\n", &"x".repeat(129)] {
            assert!(!valid_name(bad), "{bad:?}");
            assert!(ModelName::new(bad).is_err());
        }
    }
}
