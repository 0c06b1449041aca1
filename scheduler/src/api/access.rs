//! Who may speak to a listener: a bearer token on every port, and on HTTP the names under which it may be addressed.

mod host;
mod layer;
mod token;

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Request, header::AUTHORIZATION};
use orion_proto::{Code, Error, Result};

pub use layer::{GrpcAccess, GrpcAccessLayer, HttpAccess, HttpAccessLayer};
pub use token::Token;

use host::HostNames;

/// The rules of one listener. Without a token every caller passes, at no cost.
#[derive(Debug)]
pub struct Access {
    token: Option<Token>,
    hosts: HostNames,
}

impl Access {
    /// The rules of a listener bound to `bound`; `allowed_hosts` are the names given by `--allowed-host`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming an allowed host that is no host name.
    pub fn new(token: Option<Token>, bound: &[IpAddr], allowed_hosts: &[String]) -> Result<Self> {
        Ok(Self { token, hosts: HostNames::new(bound, allowed_hosts)? })
    }

    /// Checks the name by which an HTTP request addresses this server: a page that rebinds its own name to this
    /// machine's address sends that name.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when there is no name or more than one, PERMISSION_DENIED when it is not on the list.
    pub fn check_host<B>(&self, request: &Request<B>) -> Result<()> {
        self.hosts.check(request.version(), request.uri(), request.headers())
    }

    /// Checks the bearer token, for HTTP headers and gRPC metadata alike.
    ///
    /// # Errors
    /// UNAUTHENTICATED when the token is missing or wrong.
    pub fn check_token(&self, headers: &HeaderMap) -> Result<()> {
        let Some(token) = &self.token else { return Ok(()) };
        match headers.get(AUTHORIZATION).map(bearer) {
            Some(Some(presented)) if token.matches(presented) => Ok(()),
            Some(_) => Err(Error::new(Code::Unauthenticated, "the bearer token is wrong")),
            None => Err(Error::new(
                Code::Unauthenticated,
                "a token is needed, send the header 'authorization: Bearer TOKEN'",
            )),
        }
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_passes() {
        let token = Token::new("0123456789abcdef").unwrap();
        let access = Access::new(Some(token), &[], &[]).unwrap();
        let check = |value: Option<&'static str>| {
            let header = value.map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
            access.check_token(&HeaderMap::from_iter(header)).is_ok()
        };
        assert!(check(Some("Bearer 0123456789abcdef")) && check(Some("bearer  0123456789abcdef ")));
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer 0123456789abcde"),
            Some("Bearer 0123456789abcdef0123456789abcdef"),
            Some("Bearer 0123456789abcdeF"),
            Some("Basic 0123456789abcdef"),
            Some("0123456789abcdef"),
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
    }
}
