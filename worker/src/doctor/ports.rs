//! The ports that `orion up` listens on.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use super::{Finding, State};

/// Each default port with the flag that changes it.
pub(super) const DEFAULTS: [(u16, &str); 4] =
    [(8000, "--http"), (8001, "--grpc"), (8002, "--metrics"), (8003, "--session")];

pub(super) fn finding(ports: &[(u16, &str)]) -> Finding {
    let (taken, free): (Vec<_>, Vec<_>) = ports.iter().partition(|(port, _)| is_taken(*port));
    let list = |ports: &[&(u16, &str)]| ports.iter().map(|(port, _)| port.to_string()).collect::<Vec<_>>().join(", ");
    if taken.is_empty() {
        return Finding::good("ports", format!("{} free", list(&free)));
    }
    let detail = format!("{} taken: orion is running already, or another program listens there", list(&taken));
    let flags: String = taken.iter().map(|(_, flag)| format!(" {flag} 127.0.0.1:0")).collect();
    Finding::new("ports", State::Warning, detail, Some(format!("orion up{flags}")))
}

/// Anything but "in use" is none of the port's own trouble.
fn is_taken(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let finding = finding(&[(port, "--grpc"), (0, "--http")]);
        assert_eq!(finding.state, State::Warning);
        assert!(finding.detail.starts_with(&format!("{port} taken")), "{finding:?}");
        assert_eq!(finding.mend.as_deref(), Some("orion up --grpc 127.0.0.1:0"));
        assert_eq!(super::finding(&[(0, "--http")]).state, State::Good);
    }
}
