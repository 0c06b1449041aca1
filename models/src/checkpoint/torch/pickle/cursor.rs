//! Reading a pickle's opcodes and their arguments, never beyond its end.

use orion_proto::Result;

use super::machine::broken;

/// What is left of a pickle.
pub(super) struct Cursor<'p> {
    bytes: &'p [u8],
    at: usize,
}

impl<'p> Cursor<'p> {
    pub(super) fn new(bytes: &'p [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next so many bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'p [u8]> {
        let end = self.at.checked_add(count);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            let left = self.bytes.len() - self.at;
            return Err(broken(format!("at byte {} it declares {count} bytes, {left} are left", self.at)));
        };
        self.at += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| broken(format!("it ends at byte {}", self.at)))
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length of eight bytes.
    pub(super) fn length(&mut self) -> Result<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| broken(format!("it declares {length} bytes, {} are left", self.left())))
    }

    /// The next so many bytes as text.
    pub(super) fn text(&mut self, count: usize) -> Result<&'p str> {
        let at = self.at;
        std::str::from_utf8(self.take(count)?).map_err(|_| broken(format!("its text at byte {at} is not UTF-8")))
    }

    /// Text up to a line's end.
    pub(super) fn line(&mut self) -> Result<&'p str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(broken(format!("its line at byte {} does not end", self.at)));
        };
        let line = self.text(length)?;
        self.at += 1;
        Ok(line)
    }

    /// A little-endian whole number of any length, where it fits.
    pub(super) fn long(&mut self, length: usize) -> Result<i64> {
        let taken = self.take(length)?;
        if length > 8 {
            return Err(broken(format!("it holds a whole number of {length} bytes, at most 8 are read")));
        }
        // The last byte's top bit is the sign.
        let fill = if taken.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..length].copy_from_slice(taken);
        Ok(i64::from_le_bytes(wide))
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
}
