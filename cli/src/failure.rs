//! Why a command did not do what it was asked, and the exit status that says so.

use std::{fmt, io};

use orion_net::root_cause;
use orion_proto::Code;

/// Exit statuses other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// No worker could take it (now): trying again later may help.
    NotPlaced = 2,
}

/// A command's failure as it is printed: `error: <message>`, then a hint where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// What failed, what was wrong and what would be right.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Failure {
    /// A plain failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hint: None }
    }

    /// The same with something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        self.hint.iter().try_for_each(|hint| writeln!(f, "hint: {hint}"))
    }
}

impl From<orion_proto::Error> for Failure {
    fn from(error: orion_proto::Error) -> Self {
        let exit = if error.code == Code::Unavailable || error.code == Code::ResourceExhausted {
            Exit::NotPlaced
        } else {
            Exit::Failed
        };
        Self { exit, message: error.message, hint: None }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // A status with a source was made on this side: the connection broke, no server refused.
        if let Some(cause) = std::error::Error::source(&status) {
            return Self::new(format!("the connection to the server failed: {}", root_cause(cause)));
        }
        let exit = match status.code() {
            tonic::Code::Unavailable | tonic::Code::ResourceExhausted => Exit::NotPlaced,
            _ => Exit::Failed,
        };
        let message = match status.message() {
            "" => format!("the server answered {:?}", status.code()),
            message => message.to_owned(),
        };
        let hint = match status.code() {
            tonic::Code::Unauthenticated => Some("give the server's token with --token-file FILE".to_owned()),
            _ => None,
        };
        Self { exit, message, hint }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(format!("standard output cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_for_want_of_a_place_exits_with_2() {
        use tonic::{Code, Status};
        let exit = |code| Failure::from(Status::new(code, "x")).exit;
        assert_eq!(exit(Code::ResourceExhausted), Exit::NotPlaced);
        assert_eq!(exit(Code::Unavailable), Exit::NotPlaced);
        assert_eq!(exit(Code::NotFound), Exit::Failed);
        assert_eq!(exit(Code::DeadlineExceeded), Exit::Failed);
        let broken = Status::from_error(Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer")));
        let failure = Failure::from(broken);
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.to_string(), "error: the connection to the server failed: reset by peer\n");
    }
}
