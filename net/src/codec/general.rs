//! The usual compressions, each by its library.

use std::io::{self, Read, Write};

use flate2::{Compression, read, write};

use super::{Codec, Corrupt};

/// As fast as bytes of weights are worth: higher levels take many times as long and save a hundredth.
const BROTLI_QUALITY: u32 = 5;
const BROTLI_WINDOW_BITS: u32 = 22;
const BROTLI_BUFFER_BYTES: usize = 64 * 1024;
const ZSTD_LEVEL: i32 = 1;

/// Appends what the library makes of a chunk.
pub(super) fn encode(codec: Codec, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Codec::Gzip => write::GzEncoder::new(out, Compression::default()).write_all(raw),
        Codec::Deflate => write::DeflateEncoder::new(out, Compression::default()).write_all(raw),
        Codec::Brotli => {
            brotli::CompressorWriter::new(out, BROTLI_BUFFER_BYTES, BROTLI_QUALITY, BROTLI_WINDOW_BITS).write_all(raw)
        }
        Codec::Lz4 => {
            out.extend_from_slice(&lz4_flex::block::compress(raw));
            Ok(())
        }
        Codec::Zstd => {
            out.extend_from_slice(&zstd::bulk::compress(raw, ZSTD_LEVEL)?);
            Ok(())
        }
        Codec::None | Codec::Weights => Err(io::Error::other("it is no codec of a library")),
    }
}

/// Decodes a chunk of declared length.
pub(super) fn decode(codec: Codec, bytes: &[u8], raw: &mut [u8]) -> Result<(), Corrupt> {
    let written = match codec {
        Codec::Gzip => return exactly(read::GzDecoder::new(bytes), raw),
        Codec::Deflate => return exactly(read::DeflateDecoder::new(bytes), raw),
        Codec::Brotli => return exactly(brotli::Decompressor::new(bytes, BROTLI_BUFFER_BYTES), raw),
        Codec::Lz4 => lz4_flex::block::decompress_into(bytes, raw).map_err(|error| error.to_string()),
        Codec::Zstd => zstd::bulk::decompress_to_buffer(bytes, raw).map_err(|error| error.to_string()),
        Codec::None | Codec::Weights => Err("it is no codec of a library".into()),
    };
    let written = written.map_err(|error| Corrupt::Library(error.to_lowercase()))?;
    if written == raw.len() { Ok(()) } else { Err(Corrupt::Length(written, raw.len())) }
}

/// Reads as much as was declared, after which nothing may come.
fn exactly(mut decoder: impl Read, raw: &mut [u8]) -> Result<(), Corrupt> {
    let refused = |error: io::Error| Corrupt::Library(error.to_string().to_lowercase());
    decoder.read_exact(raw).map_err(refused)?;
    match decoder.read(&mut [0]).map_err(refused)? {
        0 => Ok(()),
        _ => Err(Corrupt::Length(raw.len().saturating_add(1), raw.len())),
    }
}
