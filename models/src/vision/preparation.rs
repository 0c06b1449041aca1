//! From an image of any size to what a network takes.

use crate::{
    imaging::{Area, Filter, Resize, Rgb},
    kernels::Map,
};

/// How an image is cut, resized and scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preparation {
    /// Pixels of a side of what comes out.
    pub(crate) side: usize,
    pub(crate) crop: Crop,
    pub(crate) filter: Filter,
    /// A value v of 0 to 255 becomes (v / unit − mean) / deviation, by channel.
    pub(crate) unit: f32,
    pub(crate) mean: [f32; 3],
    pub(crate) deviation: [f32; 3],
}

/// What is kept of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crop {
    /// The square in its middle, which is then resized.
    Square,
    /// The middle of the image once its shorter side has so many pixels. Where half a pixel is over on either side,
    /// torchvision takes the even place, others the first.
    Middle { shorter: usize, to_even: bool },
    /// All of it, whatever that does to its proportions.
    Whole,
}

impl Preparation {
    /// As torchvision prepares images for networks that it trained on ImageNet.
    pub(super) const IMAGENET: Self = Self {
        side: 224,
        crop: Crop::Middle { shorter: 256, to_even: true },
        filter: Filter::Bilinear,
        unit: 255.0,
        mean: [0.485, 0.456, 0.406],
        deviation: [0.229, 0.224, 0.225],
    };

    /// The pixels that the network sees, before they are scaled.
    pub(crate) fn pixels(&self, image: &Rgb) -> Vec<u8> {
        self.resize(image.width, image.height).apply::<3>(&image.pixels, image.width)
    }

    fn resize(&self, width: usize, height: usize) -> Resize {
        let (side, filter) = (self.side, self.filter);
        let square = |left, top, side| Area { left, top, width: side, height: side };
        let whole = Area { left: 0, top: 0, width, height };
        match self.crop {
            Crop::Square => {
                let shorter = width.min(height);
                let from = square((width - shorter) / 2, (height - shorter) / 2, shorter);
                Resize { from, to: (side, side), keep: square(0, 0, side), filter }
            }
            Crop::Middle { shorter, to_even } => {
                let scaled = |size: usize| size * shorter / width.min(height);
                let to = (scaled(width), scaled(height));
                let place = |size: usize| {
                    let over = size - side;
                    over / 2 + usize::from(to_even && over % 4 == 3)
                };
                Resize { from: whole, to, keep: square(place(to.0), place(to.1), side), filter }
            }
            Crop::Whole => Resize { from: whole, to: (side, side), keep: square(0, 0, side), filter },
        }
    }

    /// Writes prepared pixels into the network's input.
    pub(crate) fn fill(&self, pixels: &[u8], map: &mut Map) {
        let scaled =
            |channel: usize, value: usize| (value as f32 / self.unit - self.mean[channel]) / self.deviation[channel];
        let tables = [0, 1, 2].map(|channel| std::array::from_fn::<f32, 256, _>(|value| scaled(channel, value)));
        for (row, pixels) in pixels.chunks_exact(3 * self.side).enumerate() {
            for (pixel, out) in pixels.chunks_exact(3).zip(map.pixels_mut(row).chunks_exact_mut(3)) {
                for (channel, out) in out.iter_mut().enumerate() {
                    *out = tables[channel][usize::from(pixel[channel])];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preparation(crop: Crop) -> Preparation {
        let (mean, deviation) = ([127.0; 3], [128.0; 3]);
        Preparation { side: 224, crop, filter: Filter::Bicubic, unit: 1.0, mean, deviation }
    }

    #[test]
    fn the_middle_is_kept() {
        let area = |left, top, width, height| Area { left, top, width, height };
        let square = preparation(Crop::Square).resize(640, 427);
        assert_eq!((square.from, square.to, square.keep), (area(106, 0, 427, 427), (224, 224), area(0, 0, 224, 224)));
        // 256 by 383: 159 rows are over, 79.5 on either side.
        for (to_even, top) in [(true, 80), (false, 79)] {
            let middle = preparation(Crop::Middle { shorter: 256, to_even }).resize(427, 640);
            assert_eq!((middle.from, middle.to), (area(0, 0, 427, 640), (256, 383)));
            assert_eq!(middle.keep, area(16, top, 224, 224));
        }
        // 161 columns are over, 80.5 on either side: 80 is even.
        let middle = preparation(Crop::Middle { shorter: 256, to_even: true }).resize(385, 256);
        assert_eq!((middle.to, middle.keep.left), ((385, 256), 80));
    }

    #[test]
    fn values_are_scaled_by_channel() {
        let one = Preparation {
            side: 1,
            mean: [0.5, 0.25, 0.0],
            deviation: [0.5, 1.0, 2.0],
            unit: 255.0,
            ..preparation(Crop::Whole)
        };
        let mut map = Map::default();
        let border = crate::kernels::Border::even(1);
        map.reshape(crate::kernels::Layout { height: 1, width: 1, channels: 3, border });
        one.fill(&[255, 0, 51], &mut map);
        assert_eq!(map.pixels(0), [1.0, -0.25, 0.1]);
    }
}
