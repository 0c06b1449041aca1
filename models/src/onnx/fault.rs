//! Why an operator gave no result.

use orion_proto::{Code, Error};

/// A refusal of what came in, or a failure of the tensor library.
#[derive(Debug)]
pub(super) enum Fault {
    /// Inputs or attributes that the operator cannot take; the message says what and why.
    Refused(String),
    /// The tensor library failed.
    Failed(candle_core::Error),
}

/// What an operator gives.
pub(super) type Outcome<T> = Result<T, Fault>;

/// A refusal with a message as of `format!`.
macro_rules! refused {
    ($($part:tt)*) => { $crate::onnx::fault::Fault::Refused(format!($($part)*)) };
}
pub(super) use refused;

impl From<candle_core::Error> for Fault {
    fn from(error: candle_core::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Refused(message)
    }
}

impl Fault {
    /// As an error that leaves the evaluator, naming the node.
    pub(super) fn at(self, node: &str) -> Error {
        match self {
            Self::Refused(message) => Error::invalid(format!("{node}: {message}")),
            Self::Failed(error) => {
                // Only the first line: what follows is a trace of the library's own.
                let text = error.to_string().to_lowercase();
                Error::new(Code::Internal, format!("{node}: {}", text.lines().next().unwrap_or_default()))
            }
        }
    }
}
