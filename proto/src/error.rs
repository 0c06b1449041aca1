//! The closed error table: every failure that leaves Orion is one of these codes.

use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

/// A result whose error is one of the table.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is; the table below says what each means to gRPC, to HTTP and to a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are gRPC's own
pub enum Code {
    InvalidArgument,
    NotFound,
    Unauthenticated,
    PermissionDenied,
    FailedPrecondition,
    ResourceExhausted,
    DeadlineExceeded,
    Unavailable,
    Unimplemented,
    Cancelled,
    Internal,
}

/// Bytes of a message.
const MESSAGE_BYTES: usize = 1024;

struct Row {
    code: Code,
    name: &'static str,
    grpc: tonic::Code,
    http: u16,
    /// Whether the same request may succeed later or elsewhere.
    retry: bool,
}

#[rustfmt::skip]
const TABLE: [Row; 11] = [
    Row { code: Code::InvalidArgument,    name: "INVALID_ARGUMENT",    grpc: tonic::Code::InvalidArgument,    http: 400, retry: false },
    Row { code: Code::NotFound,           name: "NOT_FOUND",           grpc: tonic::Code::NotFound,           http: 404, retry: false },
    Row { code: Code::Unauthenticated,    name: "UNAUTHENTICATED",     grpc: tonic::Code::Unauthenticated,    http: 401, retry: false },
    Row { code: Code::PermissionDenied,   name: "PERMISSION_DENIED",   grpc: tonic::Code::PermissionDenied,   http: 403, retry: false },
    Row { code: Code::FailedPrecondition, name: "FAILED_PRECONDITION", grpc: tonic::Code::FailedPrecondition, http: 409, retry: false },
    Row { code: Code::ResourceExhausted,  name: "RESOURCE_EXHAUSTED",  grpc: tonic::Code::ResourceExhausted,  http: 429, retry: true },
    Row { code: Code::DeadlineExceeded,   name: "DEADLINE_EXCEEDED",   grpc: tonic::Code::DeadlineExceeded,   http: 504, retry: false },
    Row { code: Code::Unavailable,        name: "UNAVAILABLE",         grpc: tonic::Code::Unavailable,        http: 503, retry: true },
    Row { code: Code::Unimplemented,      name: "UNIMPLEMENTED",       grpc: tonic::Code::Unimplemented,      http: 501, retry: false },
    Row { code: Code::Cancelled,          name: "CANCELLED",           grpc: tonic::Code::Cancelled,          http: 499, retry: false },
    Row { code: Code::Internal,           name: "INTERNAL",            grpc: tonic::Code::Internal,           http: 500, retry: false },
];

impl Code {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name as it stands in logs, metrics and on the session's wire.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The code of that name; an unknown name is INTERNAL, since only a newer peer could have sent it.
    pub fn from_name(name: &str) -> Self {
        TABLE.iter().find(|row| row.name == name).map_or(Code::Internal, |row| row.code)
    }

    /// The HTTP status.
    pub fn http(self) -> u16 {
        self.row().http
    }

    /// Whether the same request may succeed later or elsewhere.
    pub fn may_retry(self) -> bool {
        self.row().retry
    }
}

/// A failure as a client sees it: lowercase message, no stop, naming what was wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Which row of the table.
    pub code: Code,
    /// What failed, which name or number was wrong, what would be right.
    pub message: String,
    /// When trying again makes sense, if that is known.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of this code. A message longer than 1 KiB is cut, and control characters leave it: parts of it may come
    /// from a client or a worker, and it travels in headers.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > MESSAGE_BYTES {
            let cut = (0..=MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
            message.push('…');
        }
        if message.contains(char::is_control) {
            message = message.replace(char::is_control, " ");
        }
        Self { code, message, retry_after: None }
    }

    /// INVALID_ARGUMENT.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The same with a time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Whole seconds for a Retry-After header, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|d| d.as_secs().saturating_add(u64::from(d.subsec_nanos() > 0)).max(1))
    }

    /// What another node said; a code that is not of the table is INTERNAL.
    pub fn of_status(status: &tonic::Status) -> Self {
        let code = TABLE.iter().find(|row| row.grpc == status.code()).map_or(Code::Internal, |row| row.code);
        Self::new(code, status.message())
    }

    /// The same in milliseconds, rounded up, for clients that can wait more finely.
    pub fn retry_after_milliseconds(&self) -> Option<u64> {
        self.retry_after.map(|d| u64::try_from(d.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

/// With a time to come back, the status carries it three times: `retry-after` (seconds) and `retry-after-ms` as metadata,
/// and `google.rpc.RetryInfo` in `grpc-status-details-bin`, which gRPC libraries read.
impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let code = error.code.row().grpc;
        let (Some(seconds), Some(milliseconds)) = (error.retry_after_seconds(), error.retry_after_milliseconds())
        else {
            return tonic::Status::new(code, error.message);
        };
        let mut metadata = MetadataMap::new();
        metadata.insert("retry-after", MetadataValue::from(seconds));
        metadata.insert("retry-after-ms", MetadataValue::from(milliseconds));
        let details = ErrorDetails::with_retry_info(error.retry_after);
        tonic::Status::with_error_details_and_metadata(code, error.message, details, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_names_are_unique() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code as usize, index);
            assert_eq!(Code::from_name(row.name), row.code);
        }
    }

    #[test]
    fn foreign_text_in_a_message_is_bounded_and_plain() {
        let error = Error::invalid(format!("model '{}\n\x1b[31m' is unknown", "ä".repeat(5000)));
        assert!(error.message.len() < 1100 && !error.message.contains(char::is_control));
        assert_eq!(Error::invalid("a\nb").message, "a b");
    }

    #[test]
    fn retry_after_reaches_the_client_rounded_up() {
        let error = Error::new(Code::ResourceExhausted, "queue is full").retry_after(Duration::from_millis(1200));
        let status = tonic::Status::from(error);
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.metadata().get("retry-after").map(|v| v.as_bytes()), Some(b"2".as_slice()));
        assert_eq!(status.metadata().get("retry-after-ms").map(|v| v.as_bytes()), Some(b"1200".as_slice()));
        let details = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(details, Some(Duration::from_millis(1200)));
        let at_once = Error::new(Code::ResourceExhausted, "queue is full").retry_after(Duration::from_nanos(1));
        assert_eq!((at_once.retry_after_seconds(), at_once.retry_after_milliseconds()), (Some(1), Some(1)));
        assert_eq!(Error::invalid("x").retry_after(Duration::ZERO).retry_after_seconds(), Some(1));
        let plain = tonic::Status::from(Error::invalid("x"));
        assert!(plain.metadata().is_empty() && plain.details().is_empty());
    }
}
