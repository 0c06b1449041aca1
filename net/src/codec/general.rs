//! The usual compressions, each by its library: what it makes of a chunk is appended, and decoded to memory of declared length.

use std::io::{self, Read, Write};

use flate2::{Compression, read, write};

use super::Corrupt;

/// As fast as bytes of weights are worth: higher levels take many times as long and save a hundredth.
const BROTLI_QUALITY: u32 = 5;
const BROTLI_WINDOW_BITS: u32 = 22;
const BROTLI_BUFFER_BYTES: usize = 64 * 1024;
/// The first seven bits of a stream that says that its window is larger than RFC 7932 has them, of up to a gigabyte.
const BROTLI_LARGE_WINDOW: u8 = 0x11;
const ZSTD_LEVEL: i32 = 1;

pub(super) fn gzip(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    write::GzEncoder::new(out, Compression::default()).write_all(raw)
}

pub(super) fn gunzip(bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
    exactly(read::GzDecoder::new(bytes), raw)
}

pub(super) fn deflate(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    write::DeflateEncoder::new(out, Compression::default()).write_all(raw)
}

pub(super) fn inflate(bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
    exactly(read::DeflateDecoder::new(bytes), raw)
}

pub(super) fn brotli(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    brotli::CompressorWriter::new(out, BROTLI_BUFFER_BYTES, BROTLI_QUALITY, BROTLI_WINDOW_BITS).write_all(raw)
}

pub(super) fn unbrotli(bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
    // The library would take it, and reserve all of it.
    if bytes.first().is_some_and(|first| first & 0x7f == BROTLI_LARGE_WINDOW) {
        return Err(Corrupt::Library("its window is larger than 16 MiB".into()));
    }
    exactly(brotli::Decompressor::new(bytes, BROTLI_BUFFER_BYTES), raw)
}

pub(super) fn lz4(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&lz4_flex::block::compress(raw));
}

pub(super) fn unlz4(bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
    whole(lz4_flex::block::decompress_into(bytes, raw), raw)
}

pub(super) fn zstd(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&zstd::bulk::compress(raw, ZSTD_LEVEL)?);
    Ok(())
}

pub(super) fn unzstd(bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
    whole(zstd::bulk::decompress_to_buffer(bytes, raw), raw)
}

/// What a library says.
fn refused(error: impl std::fmt::Display) -> Corrupt {
    Corrupt::Library(error.to_string().to_lowercase())
}

/// All of the declared bytes must have been written.
fn whole(written: Result<usize, impl std::fmt::Display>, raw: &[u8]) -> Result<(), Corrupt> {
    match written.map_err(refused)? {
        count if count == raw.len() => Ok(()),
        count => Err(Corrupt::Length(count, raw.len())),
    }
}

/// Reads as much as was declared, after which nothing may come.
fn exactly(mut decoder: impl Read, raw: &mut [u8]) -> Result<(), Corrupt> {
    decoder.read_exact(raw).map_err(refused)?;
    match decoder.read(&mut [0]).map_err(refused)? {
        0 => Ok(()),
        _ => Err(Corrupt::Length(raw.len().saturating_add(1), raw.len())),
    }
}
