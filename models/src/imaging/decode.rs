//! JPEG, PNG and WebP files to pixels. What a file says of itself is checked before it is decoded.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{budget::Budget, jpeg};

/// Bytes of a file.
const MOST_FILE_BYTES: usize = 32 << 20;
/// Pixels of a side.
const MOST_SIDE: u32 = 16_384;
/// Bytes that decoding one image may take, and all images that are decoded at once: 33 million pixels of 8-bit RGB.
const MOST_DECODING_BYTES: u64 = 384 << 20;
/// Bytes that a pixel takes beside those of its own format: as RGB, and the coefficients of a progressive JPEG.
const WORKING_BYTES: u64 = 3 + 6;

static DECODING: Budget = Budget::new(MOST_DECODING_BYTES);

/// An image: rows of pixels of red, green and blue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rgb {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Rgb {
    /// Its brightness (ITU-R BT.601), as Pillow rounds it.
    pub(crate) fn grey(&self) -> Vec<u8> {
        let one = |pixel: &[u8]| {
            let sum = u32::from(pixel[0]) * 19_595 + u32::from(pixel[1]) * 38_470 + u32::from(pixel[2]) * 7_471;
            ((sum + (1 << 15)) >> 16) as u8
        };
        self.pixels.chunks_exact(3).map(one).collect()
    }
}

/// Decodes a file as it lies there: transparency is dropped, a camera's rotation is not followed.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(crate) fn decode(file: &[u8]) -> Result<Rgb, String> {
    // A decoder that panics fails this file, not the whole batch.
    let failed = |_| Err("it cannot be decoded: its decoder failed on it".to_owned());
    catch_unwind(AssertUnwindSafe(|| decoded(file))).unwrap_or_else(failed)
}

fn decoded(file: &[u8]) -> Result<Rgb, String> {
    if file.len() > MOST_FILE_BYTES {
        return Err(format!("the file has {} bytes, at most {MOST_FILE_BYTES} are taken", file.len()));
    }
    let format = match image::guess_format(file) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => format,
        Ok(other) => return Err(format!("it is a {other:?} file, only JPEG, PNG and WebP are taken")),
        Err(_) if file.is_empty() => return Err("the file is empty, it must be a JPEG, PNG or WebP".into()),
        Err(_) => return Err("it does not begin as a JPEG, PNG or WebP file does".into()),
    };
    if format == ImageFormat::Jpeg && !jpeg::is_whole(file) {
        return Err("it is a JPEG file that ends before its end mark, it must be whole".into());
    }
    let broken = |error: image::ImageError| format!("it cannot be decoded: {}", error.to_string().to_lowercase());
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_DECODING_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("it has {width} by {height} pixels, it must have one"));
    }
    if width.max(height) > MOST_SIDE {
        return Err(format!("it has {width} by {height} pixels, a side may have {MOST_SIDE}"));
    }
    let bytes = decoder.total_bytes().saturating_add(u64::from(width) * u64::from(height) * WORKING_BYTES);
    if bytes > MOST_DECODING_BYTES {
        return Err(format!(
            "it has {width} by {height} pixels, decoding them takes {bytes} bytes, at most {MOST_DECODING_BYTES} are used"
        ));
    }
    let pixels = DECODING.with(bytes, || DynamicImage::from_decoder(decoder).map(|image| image.into_rgb8().into_raw()));
    Ok(Rgb { width: width as usize, height: height as usize, pixels: pixels.map_err(broken)? })
}
