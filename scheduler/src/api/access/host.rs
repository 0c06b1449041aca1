//! The names by which an HTTP listener may be addressed, against DNS rebinding.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, Version, header::HOST};
use orion_proto::{Code, Error, Result};

/// Lowercase names without ports; addresses of version 6 without brackets.
#[derive(Debug)]
pub(super) struct HostNames {
    names: Vec<String>,
    /// Bound to every address of the machine: any address will do, since only a name can be rebound.
    any_address: bool,
}

impl HostNames {
    pub(super) fn new(bound: &[IpAddr], allowed: &[String]) -> Result<Self> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        names.extend(bound.iter().map(IpAddr::to_string));
        names.extend(machine_name());
        for name in allowed {
            let (host, _) = name_and_port(name).filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
                Error::invalid(format!("--allowed-host '{name}' is no host name, it must look like gpu7.example.org"))
            })?;
            names.push(host.to_ascii_lowercase());
        }
        Ok(Self { names, any_address: bound.iter().any(IpAddr::is_unspecified) })
    }

    pub(super) fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let mut given = headers.get_all(HOST).iter();
        let header = given.next();
        if given.next().is_some() {
            return Err(Error::invalid("the request has several Host headers, it must have one"));
        }
        if let Some(authority) = uri.authority() {
            self.check_name(authority.as_str())?;
        } else if header.is_none() && version >= Version::HTTP_11 {
            return Err(Error::invalid("the request has no Host header, it must name the server"));
        }
        let Some(header) = header else { return Ok(()) };
        self.check_name(header.to_str().map_err(|_| Error::invalid("the Host header is not ASCII"))?)
    }

    fn check_name(&self, authority: &str) -> Result<()> {
        let Some((host, _)) = name_and_port(authority) else {
            return Err(Error::invalid("the Host header must be a name or an address, with a port or without"));
        };
        let known = self.names.iter().any(|name| name.eq_ignore_ascii_case(host));
        if known || (self.any_address && host.parse::<IpAddr>().is_ok()) {
            return Ok(());
        }
        let shown: String = host.chars().take(128).collect();
        Err(Error::new(
            Code::PermissionDenied,
            format!("host '{shown}' is not a name of this server, allow it with --allowed-host {shown}"),
        ))
    }
}

/// Splits `name:port`, `[address]:port` and both without a port; `None` when it is none of these.
fn name_and_port(authority: &str) -> Option<(&str, &str)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let port = match rest.strip_prefix(':') {
        Some(port) => port,
        None if rest.is_empty() => "",
        None => return None,
    };
    let valid = host.bytes().all(in_name) && port.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| (host.strip_suffix('.').unwrap_or(host), port))
}

fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn code(names: &HostNames, host: Option<&'static str>) -> Option<Code> {
        let headers = HeaderMap::from_iter(host.map(|host| (HOST, HeaderValue::from_static(host))));
        names.check(Version::HTTP_11, &Uri::from_static("/v2"), &headers).err().map(|error| error.code)
    }

    #[test]
    fn only_the_servers_own_names_pass() {
        let names = HostNames::new(&["10.0.0.7".parse().unwrap()], &["gpu7.Example.org:8000".into()]).unwrap();
        for own in ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "10.0.0.7", "gpu7.example.org."] {
            assert_eq!(code(&names, Some(own)), None, "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "10.0.0.8:8000", "[::2]", ""] {
            assert_eq!(code(&names, Some(foreign)), Some(Code::PermissionDenied), "{foreign}");
        }
        for broken in ["user@localhost", "localhost:80:90", "[::1", "[::1]x", "local host", "a/b"] {
            assert_eq!(code(&names, Some(broken)), Some(Code::InvalidArgument), "{broken}");
        }
        assert_eq!(code(&names, None), Some(Code::InvalidArgument));
        if let Some(name) = machine_name() {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(&name).unwrap())]);
            assert!(names.check(Version::HTTP_11, &Uri::from_static("/"), &headers).is_ok());
        }
        assert!(HostNames::new(&[], &["http://x/".into()]).is_err());
    }

    #[test]
    fn bound_to_every_address_any_address_passes_but_no_name() {
        let names = HostNames::new(&["0.0.0.0".parse().unwrap()], &[]).unwrap();
        assert_eq!(code(&names, Some("192.168.1.5:8000")), None);
        assert_eq!(code(&names, Some("evil.example")), Some(Code::PermissionDenied));
    }

    #[test]
    fn the_name_in_the_request_line_counts_too() {
        let names = HostNames::new(&[], &[]).unwrap();
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        let absolute = Uri::from_static("http://evil.example/v2");
        assert!(names.check(Version::HTTP_11, &absolute, &headers).is_err());
        assert!(names.check(Version::HTTP_2, &Uri::from_static("http://localhost/v2"), &HeaderMap::new()).is_ok());
        assert!(names.check(Version::HTTP_2, &absolute, &HeaderMap::new()).is_err());
        let twice = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        let mut twice = twice;
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(names.check(Version::HTTP_11, &Uri::from_static("/"), &twice).is_err());
    }
}
