//! Why a chunk cannot be decoded.

/// Why bytes are no encoded chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// They end too early.
    #[error("it ends too early")]
    Short,
    /// More follows than belongs to it.
    #[error("{0} bytes follow its end")]
    Long(usize),
    /// A kind of plane that there is not.
    #[error("it has a plane of kind {0}, known are 0 to 2")]
    Plane(u8),
    /// It is as long as the first, not as the second.
    #[error("it has {0} bytes, declared are {1}")]
    Length(usize, usize),
    /// What a library says.
    #[error("{0}")]
    Library(String),
    /// Lengths that are no whole code.
    #[error("the lengths of its codes do not fit each other")]
    Code,
    /// A stream that does not end with its symbols.
    #[error("a stream does not end where its symbols do")]
    Stream,
}
