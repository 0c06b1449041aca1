//! The entries of a zip archive that stores them as they are, which is how PyTorch writes its files.
//!
//! Our own and not a crate's: what is needed is the place of each entry in a mapped file, nothing is unpacked, and each
//! number is checked against the file here. Layout: PKWARE's APPNOTE 6.3.10, with the ZIP64 records.

use std::{collections::HashMap, ops::Range};

use orion_proto::{Error, Result};

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Bytes of the fixed part of each record.
const END_BYTES: usize = 22;
const CENTRAL_BYTES: usize = 46;
/// A comment at the archive's end has at most so many bytes.
const MOST_COMMENT: usize = 0xffff;
const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
/// The extra field that holds numbers beyond four bytes.
const ZIP64: u16 = 1;

/// An entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What is stored of it.
    bytes: Range<usize>,
    method: u16,
    crc: u32,
}

impl Entry {
    /// Its bytes, where they are stored as they are and their checksum fits.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying which it is; the caller names the entry.
    pub(super) fn whole(&self, file: &[u8]) -> Result<Range<usize>> {
        if self.method != STORED {
            let method = self.method;
            return Err(Error::invalid(format!("is compressed (method {method}), PyTorch stores entries as they are")));
        }
        if crc32fast::hash(file.get(self.bytes.clone()).unwrap_or_default()) != self.crc {
            return Err(Error::invalid("is damaged, its checksum is wrong"));
        }
        Ok(self.bytes.clone())
    }
}

/// Every entry, by name.
///
/// # Errors
/// INVALID_ARGUMENT saying what is wrong; the caller names the file.
pub(super) fn entries(file: &[u8]) -> Result<HashMap<&str, Entry>> {
    let (mut at, count) = directory(file)?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        let (name, entry, next) = central(file, at)?;
        if entries.insert(name, entry).is_some() {
            return Err(broken(format!("entry '{name}' is there twice")));
        }
        at = next;
    }
    Ok(entries)
}

const BROKEN: &str = "its zip archive cannot be read: ";

fn broken(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{BROKEN}{reason}"))
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N]> {
    let found = file.get(at..).and_then(|rest| rest.first_chunk()).copied();
    found.ok_or_else(|| broken(format!("{N} bytes at {at} are beyond its end at {}", file.len())))
}

fn u16_at(file: &[u8], at: usize) -> Result<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Result<u32> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Result<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

/// A place in the file.
fn place(file: &[u8], at: u64) -> Result<usize> {
    let place = usize::try_from(at).ok().filter(|&place| place <= file.len());
    place.ok_or_else(|| broken(format!("it points at byte {at}, it ends at {}", file.len())))
}

/// Where the central directory begins, and how many entries it has.
fn directory(file: &[u8]) -> Result<(usize, u64)> {
    let last = file.len().checked_sub(END_BYTES).ok_or_else(|| broken("it is too short"))?;
    let end = (last.saturating_sub(MOST_COMMENT)..=last).rev().find(|&at| file[at..].starts_with(&END));
    let end = end.ok_or_else(|| broken("its end record is missing; is the file cut off?"))?;
    let (mut count, mut start) = (u64::from(u16_at(file, end + 10)?), u64::from(u32_at(file, end + 16)?));
    // The ZIP64 record, found through its locator just before, holds what the old one has no room for.
    if let Some(locator) = end.checked_sub(20).filter(|&at| file[at..].starts_with(&LOCATOR_64)) {
        let wide = place(file, u64_at(file, locator + 8)?)?;
        if !file[wide..].starts_with(&END_64) {
            return Err(broken(format!("there is no ZIP64 record at {wide}")));
        }
        (count, start) = (u64_at(file, wide + 32)?, u64_at(file, wide + 48)?);
    }
    let start = place(file, start)?;
    if count > ((file.len() - start) / CENTRAL_BYTES) as u64 {
        return Err(broken(format!("it declares {count} entries, its directory has no room for them")));
    }
    Ok((start, count))
}

/// The entry whose directory record is at `at`, and where the next record begins.
fn central(file: &[u8], at: usize) -> Result<(&str, Entry, usize)> {
    if bytes(file, at)? != CENTRAL {
        return Err(broken(format!("there is no directory record at {at}")));
    }
    let length = |field| u16_at(file, at + field).map(usize::from);
    let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
    let extra_at = at + CENTRAL_BYTES + name;
    let name = file.get(at + CENTRAL_BYTES..extra_at).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.ok_or_else(|| broken(format!("the name at {} is not UTF-8", at + CENTRAL_BYTES)))?;
    let refused = |reason: String| broken(format!("entry '{name}' {reason}"));
    if u16_at(file, at + 8)? & ENCRYPTED != 0 {
        return Err(refused("is encrypted".into()));
    }
    let extra_end = extra_at + extra;
    let mut wide = Wide::find(file, extra_at, extra_end)?;
    let length = wide.or_narrow(u32_at(file, at + 24)?)?;
    let packed = wide.or_narrow(u32_at(file, at + 20)?)?;
    let local = wide.or_narrow(u32_at(file, at + 42)?)?;
    let method = u16_at(file, at + 10)?;
    if packed != length && method == STORED {
        return Err(refused(format!("declares {length} bytes and stores {packed}")));
    }
    let bytes = stored(file, place(file, local)?, packed)
        .map_err(|error| refused(format!("is wrong: {}", error.message.trim_start_matches(BROKEN))))?;
    Ok((name, Entry { bytes, method, crc: u32_at(file, at + 16)? }, extra_end + comment))
}

/// The bytes after the local record at `at`.
fn stored(file: &[u8], at: usize, length: u64) -> Result<Range<usize>> {
    if bytes(file, at)? != LOCAL {
        return Err(broken(format!("there is no record at {at}")));
    }
    let skipped = usize::from(u16_at(file, at + 26)?) + usize::from(u16_at(file, at + 28)?);
    let start = at + 30 + skipped;
    let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
    let range = end.filter(|&end| end <= file.len()).map(|end| start..end);
    range.ok_or_else(|| broken(format!("its {length} bytes from {start} on reach beyond the file's {}", file.len())))
}

/// Numbers of a ZIP64 extra field, of which each is there only where the record's own says so.
struct Wide<'f> {
    file: &'f [u8],
    at: usize,
    end: usize,
}

impl<'f> Wide<'f> {
    fn find(file: &'f [u8], mut at: usize, end: usize) -> Result<Self> {
        while at + 4 <= end {
            let (kind, length) = (u16_at(file, at)?, usize::from(u16_at(file, at + 2)?));
            at += 4;
            if kind == ZIP64 {
                return Ok(Self { file, at, end: end.min(at + length) });
            }
            at += length;
        }
        Ok(Self { file, at: end, end })
    }

    fn or_narrow(&mut self, narrow: u32) -> Result<u64> {
        if narrow != u32::MAX || self.at + 8 > self.end {
            return Ok(u64::from(narrow));
        }
        self.at += 8;
        u64_at(self.file, self.at - 8)
    }
}
