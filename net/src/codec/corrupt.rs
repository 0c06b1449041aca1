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
    #[error("it has a plane of kind {0}, known are 0 to 3")]
    Plane(u8),
    /// A kind of difference that there is not.
    #[error("it is a difference of kind {0}, known are 0 to 2")]
    Difference(u8),
    /// The base is as long as the first, the chunk as the second.
    #[error("its base has {0} bytes, it {1}")]
    Base(usize, usize),
    /// It is as long as the first, not as the second.
    #[error("it has {0} bytes, declared are {1}")]
    Length(usize, usize),
    /// What a library says.
    #[error("{0}")]
    Library(String),
    /// Lengths that are no whole code.
    #[error("the lengths of its codes do not fit each other")]
    Code,
    /// What was decoded has another hash.
    #[error("it has another hash")]
    Address,
    /// A stream that does not end with its symbols.
    #[error("a stream does not end where its symbols do")]
    Stream,
}
