//! Reading a header front to back, never beyond its end.

use orion_proto::{Error, Result};

/// A place in a file's bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next bytes; `what` names them where the file ends before.
    pub(super) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| {
            let left = rest.len();
            Error::invalid(format!("{what} takes {count} bytes at {}, {left} are left", self.position))
        })?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| Error::invalid(format!("{what} is cut")))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A text with its length before it.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str> {
        let length = self.u64(what)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes)
            .map_err(|error| Error::invalid(format!("{what} at {} is no UTF-8: {error}", self.position)))
    }

    /// Refuses a count of things that take at least `each` bytes where the file has not so many left.
    pub(super) fn check_count(&self, count: u64, each: usize, what: &str) -> Result<()> {
        let most = self.left() / each;
        if usize::try_from(count).is_ok_and(|count| count <= most) {
            return Ok(());
        }
        Err(Error::invalid(format!("it declares {count} {what}, its {} bytes hold at most {most}", self.bytes.len())))
    }
}
