//! Who published an artifact: Ed25519 (RFC 8032) over the root of its manifest.

use std::path::Path;

use blake3::Hash;
use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _},
};
use orion_proto::{Code, Error, Result};

/// Before the root in what is signed, so that no signature of something else is taken for one of an artifact.
const CONTEXT: &[u8] = b"orion artifact root, version 1\n";

/// A publisher's signature of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The publisher's public key.
    pub key: VerifyingKey,
    /// The signature.
    pub signature: Signature,
}

/// Signs what is published.
#[derive(Debug)]
pub struct Signer(SigningKey);

impl Signer {
    /// The key of a PEM file in PKCS #8, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let key = SigningKey::from_pkcs8_pem(&read(path)?);
        key.map(Self).map_err(|error| wrong(path, "a private", "openssl genpkey -algorithm ed25519", &error))
    }

    /// Signs a root.
    pub fn sign(&self, root: &Hash) -> Signed {
        Signed { key: self.0.verifying_key(), signature: self.0.sign(&message(root)) }
    }
}

impl Signed {
    /// Reads and checks a signature of this root.
    ///
    /// # Errors
    /// PERMISSION_DENIED where it is not one.
    pub fn checked(root: &Hash, key: &[u8], signature: &[u8]) -> Result<Self> {
        let refused = || Error::new(Code::PermissionDenied, format!("the signature of artifact {root} is not valid"));
        let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok()).ok_or_else(refused)?;
        let signature = Signature::from_slice(signature).map_err(|_| refused())?;
        key.verify_strict(&message(root), &signature).map_err(|_| refused())?;
        Ok(Self { key, signature })
    }
}

/// Which publishers are believed.
#[derive(Clone, Debug, Default)]
pub struct Trust(Vec<VerifyingKey>);

impl Trust {
    /// Whether only what is signed is taken.
    pub fn is_limited(&self) -> bool {
        !self.0.is_empty()
    }

    /// The keys of PEM files, as `openssl pkey -pubout` writes them. Without any, everything is believed.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the file.
    pub fn from_files<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Result<Self> {
        let key = |path: &Path| {
            let key = VerifyingKey::from_public_key_pem(&read(path)?);
            key.map_err(|error| wrong(path, "a public", "openssl pkey -pubout", &error))
        };
        paths.into_iter().map(key).collect::<Result<_>>().map(Self)
    }

    /// Whether an artifact with this signature may be taken.
    ///
    /// # Errors
    /// PERMISSION_DENIED saying why not.
    pub fn accepts(&self, root: &Hash, signed: Option<&Signed>) -> Result<()> {
        let reason = match signed {
            _ if self.0.is_empty() => return Ok(()),
            Some(signed) if self.0.contains(&signed.key) => return Ok(()),
            Some(_) => "is signed with a key that is not trusted here",
            None => "is not signed, which is asked for here",
        };
        Err(Error::new(Code::PermissionDenied, format!("artifact {root} {reason}")))
    }
}

fn message(root: &Hash) -> Vec<u8> {
    [CONTEXT, root.as_bytes()].concat()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::invalid(format!("key file '{}' cannot be read: {error}", path.display())))
}

fn wrong(path: &Path, kind: &str, made_by: &str, error: &dyn std::fmt::Display) -> Error {
    let path = path.display();
    Error::invalid(format!("'{path}' is not {kind} Ed25519 key in PEM ({error}), make one with: {made_by}"))
}
