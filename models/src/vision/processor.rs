//! Hugging Face's `preprocessor_config.json`: how a folder wants its images prepared.

use std::path::Path;

use orion_proto::Result;
use serde::Deserialize;

use super::preparation::{Crop, Preparation};
use crate::{file::read_json, imaging::Filter, unservable};

const FILE: &str = "preprocessor_config.json";
/// Pixels of a side.
const MOST_SIDE: usize = 1 << 10;
/// From this size on ConvNeXt's processor does not crop.
const UNCROPPED: usize = 384;

/// The keys that say something of the result. What changed its default between versions of the library must be said.
#[derive(Debug, Deserialize)]
struct Processor {
    size: Option<Size>,
    #[serde(default = "yes")]
    do_resize: bool,
    crop_pct: Option<f64>,
    #[serde(default)]
    do_center_crop: bool,
    crop_size: Option<Size>,
    resample: Option<u32>,
    #[serde(default = "yes")]
    do_rescale: bool,
    rescale_factor: Option<f64>,
    #[serde(default = "yes")]
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shorter { shortest_edge: usize },
    Both { height: usize, width: usize },
}

fn yes() -> bool {
    true
}

/// Reads the file; without one images are prepared as torchvision does.
pub(super) fn read(folder: &Path) -> Result<Preparation> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(Preparation::IMAGENET);
    }
    let refused = |reason: String| unservable(format!("{}: {reason}", path.display()));
    let processor: Processor = read_json(&path)?;
    processor.preparation().map_err(refused)
}

impl Processor {
    fn preparation(&self) -> std::result::Result<Preparation, String> {
        if !self.do_resize {
            return Err("do_resize is false, the network takes one size only".into());
        }
        let (side, crop) = self.crop(said(self.size, "size")?)?;
        if !(1..=MOST_SIDE).contains(&side) {
            return Err(format!("the image has a side of {side} pixels, it must be 1 to {MOST_SIDE}"));
        }
        if let Crop::Middle { shorter, .. } = crop
            && !(side..=4 * MOST_SIDE).contains(&shorter)
        {
            let most = 4 * MOST_SIDE;
            return Err(format!(
                "a shorter side of {shorter} pixels is cropped to {side}, it must be {side} to {most}"
            ));
        }
        let filter = match said(self.resample, "resample")? {
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            other => return Err(format!("resample {other} is not served, only 2 (bilinear) and 3 (bicubic)")),
        };
        let (mean, deviation) = match self.do_normalize {
            true => (said(self.image_mean, "image_mean")?, said(self.image_std, "image_std")?),
            false => ([0.0; 3], [1.0; 3]),
        };
        let factor = if self.do_rescale { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let unit = (1.0 / factor) as f32;
        let positive = |value: &f32| value.is_finite() && *value > 0.0;
        if !positive(&unit) || !deviation.iter().all(positive) || !mean.iter().all(|value| value.is_finite()) {
            return Err("rescale_factor and image_std must be above 0, image_mean a number".into());
        }
        Ok(Preparation { side, crop, filter, unit, mean, deviation })
    }

    /// The side of what comes out, and how it is cut.
    fn crop(&self, wanted: Size) -> std::result::Result<(usize, Crop), String> {
        let size = wanted.square()?;
        if self.do_center_crop {
            let side = self.crop_size.unwrap_or(wanted).square()?;
            return Ok((side, Crop::Middle { shorter: size, to_even: false }));
        }
        if matches!(wanted, Size::Both { .. }) || size >= UNCROPPED {
            return Ok((size, Crop::Whole));
        }
        let share = self.crop_pct.unwrap_or(0.875);
        if !(share > 0.0 && share <= 1.0) {
            return Err(format!("crop_pct is {share}, it must be above 0 and at most 1"));
        }
        Ok((size, Crop::Middle { shorter: (size as f64 / share) as usize, to_even: false }))
    }
}

fn said<T>(value: Option<T>, key: &str) -> std::result::Result<T, String> {
    value.ok_or_else(|| format!("{key} is missing"))
}

impl Size {
    fn square(self) -> std::result::Result<usize, String> {
        match self {
            Self::Side(side) | Self::Shorter { shortest_edge: side } => Ok(side),
            Self::Both { height, width } if height == width => Ok(height),
            Self::Both { height, width } => {
                Err(format!("an image of {height} by {width} pixels is not served, only squares"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a whole file in which some keys say something else.
    fn preparation(keys: &str) -> std::result::Result<Preparation, String> {
        let whole = r#"{"size": 224, "resample": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}"#;
        let mut whole: serde_json::Map<String, serde_json::Value> = serde_json::from_str(whole).unwrap();
        whole.extend(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(keys).unwrap());
        whole.retain(|_, value| !value.is_null());
        serde_json::from_value::<Processor>(whole.into()).unwrap().preparation()
    }

    #[test]
    fn each_kind_of_cropping_is_understood() {
        let middle = |shorter| Crop::Middle { shorter, to_even: false };
        for (keys, side, crop) in [
            (r#"{"size": 224, "crop_pct": 0.875, "resample": 3}"#, 224, middle(256)),
            (r#"{"size": {"shortest_edge": 224}}"#, 224, middle(256)),
            (r#"{"size": 384}"#, 384, Crop::Whole),
            (r#"{"size": {"height": 224, "width": 224}}"#, 224, Crop::Whole),
            (r#"{"size": {"shortest_edge": 448}, "do_center_crop": true, "crop_size": 448}"#, 448, middle(448)),
            (r#"{"size": 256, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}}"#, 224, middle(256)),
        ] {
            let found = preparation(keys).unwrap();
            assert_eq!((found.side, found.crop), (side, crop), "{keys}");
        }
        let plain = preparation(r#"{"do_normalize": false, "rescale_factor": 0.5, "resample": 3}"#).unwrap();
        assert_eq!((plain.unit, plain.mean, plain.deviation), (2.0, [0.0; 3], [1.0; 3]));
        assert_eq!(plain.filter, Filter::Bicubic);
    }

    #[test]
    fn what_would_be_prepared_wrongly_is_named() {
        for (keys, words) in [
            (r#"{"size": {"height": 224, "width": 192}}"#, "224 by 192 pixels"),
            (r#"{"size": 0}"#, "side of 0 pixels"),
            (r#"{"size": 99999}"#, "side of 99999 pixels"),
            (r#"{"crop_pct": 0.0}"#, "crop_pct is 0"),
            (r#"{"crop_pct": 1e-300}"#, "shorter side of"),
            (r#"{"size": 200, "do_center_crop": true, "crop_size": 224}"#, "pixels is cropped to 224"),
            (r#"{"resample": 0}"#, "resample 0"),
            (r#"{"resample": null}"#, "resample is missing"),
            (r#"{"image_mean": null}"#, "image_mean is missing"),
            (r#"{"do_resize": false}"#, "do_resize is false"),
            (r#"{"rescale_factor": 0.0}"#, "rescale_factor"),
            (r#"{"image_std": [0.2, 0.0, 0.2]}"#, "image_std"),
        ] {
            let refused = preparation(keys).unwrap_err();
            assert!(refused.contains(words), "{keys}: {refused}");
        }
    }
}
