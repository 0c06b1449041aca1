//! Requests for warm-up.

use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};
use orion_proto::{Code, Datatype, Error, Payload, Result, Tensor, encode_bytes_elements};

use super::INPUT;
use crate::ModelRequest;

/// Of a hundred; what cameras use.
const QUALITY: u8 = 85;

/// A JPEG file of this size that is neither empty nor noise.
pub(crate) fn sample_photo(width: u16, height: u16) -> Result<Vec<u8>> {
    let pixel = |x: u16, y: u16| [(x ^ y) as u8, (x / 2) as u8, ((x * 7 + y * 5) % 256) as u8];
    let pixels: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, QUALITY)
        .write_image(&pixels, width.into(), height.into(), ExtendedColorType::Rgb8)
        .map_err(|error| Error::new(Code::Internal, format!("a sample could not be encoded: {error}")))?;
    Ok(file)
}

/// A request that brings one file in each of its rows.
pub(crate) fn sample(rows: usize, file: &[u8]) -> ModelRequest {
    let data = Payload::from(encode_bytes_elements(&vec![file; rows]));
    let image = Tensor { name: INPUT.into(), datatype: Datatype::Bytes, shape: vec![rows as i64], data };
    ModelRequest { inputs: vec![image], ..ModelRequest::default() }
}
