//! Signed URLs, as each network that delivers contents checks them.

use std::fmt::Write;

use base64::{
    Engine,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD, URL_SAFE},
    },
};
use hmac::{Hmac, Mac};
use jiff::{Timestamp, tz::TimeZone};
use rsa::{Pkcs1v15Sign, RsaPrivateKey, pkcs1::DecodeRsaPrivateKey, pkcs8::DecodePrivateKey};
use serde::Deserialize;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use url::{Url, form_urlencoded::byte_serialize};

/// Who checks a signed URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    /// Cloudflare's token authentication, `is_timed_hmac_valid_v0`.
    Cloudflare,
    /// CloudFront's signed URL with a canned policy.
    CloudFront,
    /// Google Cloud CDN's signed URL.
    Google,
    /// A service's shared access signature of Azure Blob Storage, of version 2020-12-06, over the container.
    Azure,
    /// Fastly's URL token.
    Fastly,
    /// `expires` and a hexadecimal HMAC-SHA256 over path and expiry as `signature`.
    Custom,
}

/// Signs URLs.
#[derive(Clone)]
pub(super) struct Signature {
    scheme: Scheme,
    key: Key,
    key_id: String,
    seconds: u64,
}

#[derive(Clone)]
enum Key {
    Bytes(Vec<u8>),
    Rsa(Box<RsaPrivateKey>),
}

impl Signature {
    /// Reads a key in the form in which its network gives it out.
    pub(super) fn new(scheme: Scheme, key: &str, key_id: Option<&str>, seconds: u64) -> Result<Self, String> {
        let text = key.trim();
        let decoded = |engine: &GeneralPurpose, what: &str| {
            engine.decode(text).map_err(|_| format!("key must be {what}, as its network gives it out"))
        };
        let key = match scheme {
            Scheme::CloudFront => {
                let key = RsaPrivateKey::from_pkcs8_pem(text).or_else(|_| RsaPrivateKey::from_pkcs1_pem(text));
                Key::Rsa(Box::new(key.map_err(|_| "key must be an RSA private key in PEM")?))
            }
            Scheme::Google => Key::Bytes(decoded(&any_padding(&base64::alphabet::URL_SAFE), "base64url")?),
            Scheme::Fastly | Scheme::Azure => Key::Bytes(decoded(&any_padding(&base64::alphabet::STANDARD), "base64")?),
            Scheme::Cloudflare | Scheme::Custom => Key::Bytes(text.as_bytes().to_vec()),
        };
        let key_id = match (scheme, key_id) {
            (Scheme::CloudFront, None) => return Err("key_id must name the key pair".into()),
            (Scheme::Google, None) => return Err("key_id must name the key".into()),
            (Scheme::Azure, None) => return Err("key_id must name the storage account".into()),
            (_, key_id) => key_id.unwrap_or_default().to_owned(),
        };
        Ok(Self { scheme, key, key_id, seconds })
    }

    /// The URL with its signature, at `now` in seconds since 1970.
    ///
    /// # Errors
    /// What the key cannot do.
    pub(super) fn sign(&self, mut url: Url, now: u64) -> Result<Url, String> {
        let (path, expires) = (url.path().to_owned(), now.saturating_add(self.seconds));
        let addition = match (&self.key, self.scheme) {
            (Key::Rsa(key), _) => {
                let policy = format!(
                    r#"{{"Statement":[{{"Resource":"{url}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}"#
                );
                let hash = Sha1::digest(policy.as_bytes());
                let signed = key.sign(Pkcs1v15Sign::new::<Sha1>(), &hash).map_err(|error| error.to_string())?;
                let signed = STANDARD.encode(signed).replace('+', "-").replace('=', "_").replace('/', "~");
                format!("Expires={expires}&Signature={signed}&Key-Pair-Id={}", self.key_id)
            }
            (Key::Bytes(key), Scheme::Cloudflare) => {
                let signed = STANDARD.encode(hmac_sha256(key, &format!("{path}{now}")));
                format!("verify={now}-{}", encoded(&signed))
            }
            (Key::Bytes(key), Scheme::Fastly) => {
                format!("token={expires}_{}", hex(&hmac_sha1(key, &format!("{path}{expires}"))))
            }
            (Key::Bytes(key), Scheme::Google) => {
                let begun = format!("Expires={expires}&KeyName={}", self.key_id);
                let whole = with_query(url.clone(), &begun);
                format!("{begun}&Signature={}", URL_SAFE.encode(hmac_sha1(key, whole.as_str())))
            }
            (Key::Bytes(key), Scheme::Azure) => self.shared_access(key, &url, expires)?,
            (Key::Bytes(key), Scheme::Custom | Scheme::CloudFront) => {
                format!("expires={expires}&signature={}", hex(&hmac_sha256(key, &format!("{path}{expires}"))))
            }
        };
        url = with_query(url, &addition);
        Ok(url)
    }

    /// See *Create a service SAS*, version 2020-12-06.
    fn shared_access(&self, key: &[u8], url: &Url, expires: u64) -> Result<String, String> {
        // An emulator has the account as the first part of the path.
        let parts = url.path_segments().into_iter().flatten();
        let container = parts.into_iter().find(|part| *part != self.key_id).unwrap_or_default();
        let expiry = i64::try_from(expires).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let expiry = expiry.ok_or("seconds are too many")?.to_zoned(TimeZone::UTC);
        let expiry = expiry.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (version, resource) = ("2020-12-06", format!("/blob/{}/{container}", self.key_id));
        let to_sign = format!("r\n\n{expiry}\n{resource}\n\n\n\n{version}\nc\n\n\n\n\n\n\n");
        let signed = STANDARD.encode(hmac_sha256(key, &to_sign));
        Ok(format!("sv={version}&sr=c&sp=r&se={}&sig={}", encoded(&expiry), encoded(&signed)))
    }
}

fn any_padding(alphabet: &base64::alphabet::Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}

fn with_query(mut url: Url, addition: &str) -> Url {
    let query = match url.query().filter(|query| !query.is_empty()) {
        Some(query) => format!("{query}&{addition}"),
        None => addition.to_owned(),
    };
    url.set_query(Some(&query));
    url
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

fn hmac_sha1(key: &[u8], text: &str) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(scheme: Scheme, key: &str, key_id: &str, url: &str) -> String {
        let signature = Signature::new(scheme, key, Some(key_id), 3600).unwrap();
        signature.sign(Url::parse(url).unwrap(), 1_700_000_000).unwrap().to_string()
    }

    /// Made with Python's `hmac` and `base64` after each network's documentation.
    #[test]
    fn signatures_are_those_of_each_networks_documentation() {
        let url = "https://cdn.example/a/b c";
        assert_eq!(
            signed(Scheme::Cloudflare, "secret", "", url),
            "https://cdn.example/a/b%20c?verify=1700000000-gBFGM1bJ0u%2ByJcaC0igbBzBrj%2FrE0AauevL0CM4PszM%3D"
        );
        assert_eq!(
            signed(Scheme::Fastly, "c2VjcmV0", "", url),
            "https://cdn.example/a/b%20c?token=1700003600_f4ca3281443326fa751c6a4874cf5efec78c8a04"
        );
        assert_eq!(
            signed(Scheme::Google, "c2VjcmV0", "k", url),
            "https://cdn.example/a/b%20c?Expires=1700003600&KeyName=k&Signature=d-isr0Oh0fEE8-SecLdv6W6o1mo="
        );
        assert_eq!(
            signed(Scheme::Custom, "secret", "", url),
            "https://cdn.example/a/b%20c?expires=1700003600&signature=6009776ea04776685950630683fcbfadc37e740d6a80cfa530377905260fb5c0"
        );
    }

    #[test]
    fn a_key_of_the_wrong_kind_is_refused() {
        for (scheme, key) in [(Scheme::CloudFront, "secret"), (Scheme::Fastly, "not base64!"), (Scheme::Google, "+/")] {
            let error = Signature::new(scheme, key, Some("k"), 1).err().unwrap();
            assert!(error.contains("key must be"), "{error}");
        }
    }
}
