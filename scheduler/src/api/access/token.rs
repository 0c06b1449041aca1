//! A bearer token: read from a file that only its owner can read, compared in constant time, never printed.

use std::{io::Read, path::Path};

use orion_proto::{Code, Error, Result};
use subtle::ConstantTimeEq;

const SHORTEST: usize = 16;
const LONGEST: u64 = 4096;

/// A secret that clients and workers send.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token of at least 16 visible ASCII characters.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it is shorter or holds what a header cannot.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() < SHORTEST {
            return Err(Error::invalid(format!(
                "the token has {} characters, it must have {SHORTEST} or more: openssl rand -hex 32",
                text.len()
            )));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("the token must be one word of visible ASCII characters"));
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Reads a token file; white space around the token is left out.
    ///
    /// # Errors
    /// NOT_FOUND when it cannot be read, PERMISSION_DENIED when others can read it too, INVALID_ARGUMENT when its
    /// content is no token.
    pub fn from_file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let unreadable =
            |error: std::io::Error| Error::new(Code::NotFound, format!("token file '{shown}' cannot be read: {error}"));
        let file = std::fs::File::open(path).map_err(unreadable)?;
        refuse_readable_by_others(path, &file.metadata().map_err(unreadable)?)?;
        let mut text = String::new();
        // A path that names a device would never end.
        file.take(LONGEST).read_to_string(&mut text).map_err(unreadable)?;
        Self::new(text.trim()).map_err(|error| Error::invalid(format!("token file '{shown}': {error}")))
    }

    /// The token itself, for whoever has to send it.
    pub fn reveal(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether `presented` is the token. Takes a time that depends on the length of `presented` alone.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let mut same = presented.len().ct_eq(&self.0.len());
        for (presented, own) in presented.iter().zip(self.0.iter().cycle()) {
            same &= presented.ct_eq(own);
        }
        same.into()
    }
}

fn refuse_readable_by_others(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match metadata.permissions().mode() & 0o007 {
        0 => Ok(()),
        _ => Err(Error::new(
            Code::PermissionDenied,
            format!(
                "token file '{0}' is open to every user of this machine, close it: chmod 600 '{0}'",
                path.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_must_be_private_and_hold_one_long_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |content: &str, mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::from_file(&path)
        };
        let token = read("  0123456789abcdef\n", 0o600).unwrap();
        assert!(token.matches(b"0123456789abcdef") && !token.matches(b"") && !token.matches(b"0123456789abcdex"));
        assert!(!format!("{token:?}").contains("0123"));
        let error = read("0123456789abcdef", 0o604).unwrap_err();
        assert!(error.message.contains(&format!("chmod 600 '{}'", path.display())), "{error}");
        assert!(read("0123456789abcde", 0o600).unwrap_err().message.contains("16 or more"));
        assert!(read("0123456789 abcdef", 0o600).is_err());
        assert_eq!(Token::from_file(&folder.path().join("none")).unwrap_err().code, Code::NotFound);
    }
}
