use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use orion_proto::{
    Code, Datatype, ModelName, ModelPolicy, ModelSpec, Payload, Tensor, TensorSpec, encode_bytes_elements,
};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::{GivenUp, ModelRequest};

fn pixel(x: u32, y: u32) -> Rgba<u8> {
    Rgba([(x * 17 + y) as u8, (y * 31) as u8, (x * y) as u8, (x * 5) as u8])
}

/// A file of 21 by 13 pixels.
fn file(format: ImageFormat) -> Vec<u8> {
    let image = DynamicImage::ImageRgba8(RgbaImage::from_fn(21, 13, pixel));
    let image = if format == ImageFormat::Jpeg { DynamicImage::ImageRgb8(image.into_rgb8()) } else { image };
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// The beginning of a PNG file that says it has so many pixels of red, green, blue and opacity.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let fields = [&b"IHDR"[..], &width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    let bit = |sum: u32, _: u32| if sum & 1 == 1 { 0xEDB8_8320 ^ sum >> 1 } else { sum >> 1 };
    let sum = fields.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), bit));
    [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], fields.as_slice(), &(!sum).to_be_bytes(), b"\0\0\0\0IDAT\x35\xaf\x06\x1e"]
        .concat()
}

#[test]
fn each_format_is_read_and_transparency_dropped() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
        let image = decode(&file(format)).unwrap();
        assert_eq!((image.width, image.height, image.pixels.len()), (21, 13, 3 * 21 * 13));
        let most = if format == ImageFormat::Jpeg { 255 } else { 0 };
        for (index, found) in image.pixels.chunks_exact(3).enumerate() {
            let Rgba(wanted) = pixel(index as u32 % 21, index as u32 / 21);
            let differs = found.iter().zip(wanted).any(|(a, b)| a.abs_diff(b) > most);
            assert!(!differs, "{format:?} {index}: {found:?} for {wanted:?}");
        }
    }
}

#[test]
fn brightness_is_rounded_as_pillow_does() {
    let image = Rgb { width: 4, height: 1, pixels: vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 200, 77] };
    // Image.fromarray(...).convert("L")
    assert_eq!(image.grey(), [76, 150, 29, 129]);
}

#[test]
fn hostile_files_are_refused_by_what_is_wrong() {
    let (png, jpeg, webp) = (file(ImageFormat::Png), file(ImageFormat::Jpeg), file(ImageFormat::WebP));
    // The canvas of a WebP file without loss: 14 bits each for width and height less 1, from byte 21 on.
    let mut large = webp.clone();
    large[21..25].copy_from_slice(&(0x3FFE_u32 | 0x3FFE << 14).to_le_bytes());
    for (file, words) in [
        (Vec::new(), "the file is empty, it must be a JPEG, PNG or WebP"),
        (b"a text".to_vec(), "does not begin as a JPEG, PNG or WebP"),
        (b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), "it is a Gif file, only JPEG, PNG and WebP"),
        (vec![0; (32 << 20) + 1], "33554433 bytes, at most 33554432"),
        (png[..png.len() / 2].to_vec(), "it cannot be decoded"),
        (webp[..webp.len() / 2].to_vec(), "it cannot be decoded"),
        (jpeg[..jpeg.len() / 2].to_vec(), "ends before its end mark"),
        (jpeg[..3].to_vec(), "ends before its end mark"),
        (png_header(16_000, 16_000), "16000 by 16000 pixels, decoding them takes 3328000000 bytes, at most 402653184"),
        (png_header(20_000, 1), "20000 by 1 pixels, a side may have 16384"),
        (png_header(2_000_000_000, 2_000_000_000), ""),
        (png_header(1, 16_385), "1 by 16385 pixels, a side may have 16384"),
        (png_header(64, 64), "it cannot be decoded"),
        (large, "16383 by 16383 pixels, decoding them takes"),
    ] {
        let refused = decode(&file).unwrap_err();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}

#[test]
fn what_lies_behind_a_jpeg_s_end_does_not_matter() {
    let jpeg = file(ImageFormat::Jpeg);
    let plain = decode(&jpeg).unwrap();
    for tail in [&b"\0\0\0"[..], b"\xFF\xDA\0\x04more", &jpeg[..100]] {
        assert_eq!(decode(&[&jpeg[..], tail].concat()).unwrap(), plain);
    }
}

proptest! {
    #[test]
    fn cut_or_flipped_files_never_panic(format in 0usize..3, at in 0usize..2000, bit in 0u8..8, cut in 0usize..2000) {
        let mut file = file([ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP][format]);
        let at = at % file.len();
        file[at] ^= 1 << bit;
        file.truncate(file.len().min(cut + 8));
        if let Ok(image) = decode(&file) {
            prop_assert_eq!(image.pixels.len(), 3 * image.width * image.height);
        }
    }
}

#[test]
fn resized_pixels_are_pillow_s() {
    #[derive(Deserialize)]
    struct Expected {
        width: usize,
        height: usize,
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        filter: String,
        to: (usize, usize),
        pixels: Vec<u8>,
    }
    let text = include_str!("../../../tests/data/expected/resize.json");
    let Expected { width, height, cases } = serde_json::from_str(text).unwrap();
    let value = |x: usize, y: usize, c: usize| (x * x * 5 + y * 13 + x * y * (c + 1) + 61 * c) as u8;
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels: Vec<u8> = places.flat_map(|(x, y)| (0..3).map(move |c| value(x, y, c))).collect();
    for Case { filter, to, pixels: wanted } in cases {
        let filter = if filter == "bicubic" { Filter::Bicubic } else { Filter::Bilinear };
        let area = |(width, height)| Area { left: 0, top: 0, width, height };
        let whole = Resize { from: area((width, height)), to, keep: area(to), filter };
        let found = whole.apply::<3>(&pixels, width);
        // Where one side grows and the other shrinks, newer versions of Pillow go down before they go across, and clip
        // between the two.
        if (to.0 > width) == (to.1 > height) {
            assert_eq!(found, wanted, "{filter:?} {to:?}");
        }
        // A part is the same part of the whole.
        let keep = Area { left: to.0 / 3, top: to.1 / 2, width: to.0 - to.0 / 3, height: 1 };
        let part = Resize { keep, ..whole }.apply::<3>(&pixels, width);
        assert_eq!(part, found[3 * (keep.top * to.0 + keep.left)..][..3 * keep.width], "{filter:?} {to:?}");
    }
}

#[test]
fn nothing_outside_its_area_is_seen() {
    let (width, height) = (9, 8);
    let (from, to) = (Area { left: 2, top: 3, width: 4, height: 4 }, (3, 5));
    let keep = Area { left: 0, top: 0, width: 3, height: 5 };
    let inside = |x: usize, y: usize| (2..6).contains(&x) && (3..7).contains(&y);
    let image = |outside: u8| -> Vec<u8> {
        let value = |x: usize, y: usize| if inside(x, y) { (x * 20 + y * 3) as u8 } else { outside };
        (0..height).flat_map(|y| (0..width).map(move |x| value(x, y))).collect()
    };
    let resize = Resize { from, to, keep, filter: Filter::Bicubic };
    assert_eq!(resize.apply::<1>(&image(0), width), resize.apply::<1>(&image(255), width));
}

#[test]
fn results_go_back_to_the_requests_that_brought_the_rows() {
    let spec = ModelSpec {
        name: ModelName::new("m").unwrap(),
        version: "1".into(),
        family: "test".into(),
        inputs: vec![TensorSpec::new(INPUT, Datatype::Bytes, [-1])],
        outputs: Vec::new(),
        max_batch_rows: 8,
        memory_bytes: 0,
        inline: false,
        policy: ModelPolicy::default(),
        generator: None,
    };
    let request = |files: &[&[u8]]| {
        let data = Payload::from(encode_bytes_elements(files));
        let tensor = Tensor::new(INPUT, Datatype::Bytes, vec![files.len() as i64], data).unwrap();
        ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
    };
    let png = file(ImageFormat::Png);
    let batch = [
        request(&[&png, &png]),
        request(&[&png, b"bad", b"worse"]),
        ModelRequest::default(),
        request(&[]),
        request(&[&png]),
        request(&[&png]),
    ];
    batch[4].given_up.set();
    let rows = Rows::of(&spec, &batch);
    let all = rows.all();
    let results: Vec<_> = all.iter().enumerate().map(|(index, row)| row.decode().map(|_| index)).collect();
    assert_eq!(results[5], Err(Refusal::GivenUp));
    let answers = rows.by_request(results);
    let of = |index: usize| answers[index].as_ref().map_err(|error| (error.code, error.message.clone()));
    assert_eq!((of(0), of(3), of(5)), (Ok(&vec![0, 1]), Ok(&vec![]), Ok(&vec![6])));
    let (code, message) = of(1).unwrap_err();
    assert!(code == Code::InvalidArgument && message.starts_with("element 1 of input 'image': it does not begin"));
    assert!(of(2).is_err_and(|(_, message)| message.contains("'image' of model 'm' is missing")));
    assert_eq!(of(4).unwrap_err().0, GivenUp::error().code);
}
