//! The greatest value of a window, and the mean of a map.

use pulp::{Arch, Simd, WithSimd};

use super::{
    map::{Map, Window},
    output::Output,
    threads::Threads,
};

/// Of `x` into `out`, whose layout says what comes out. The border counts as zeros: `x` is not negative.
pub(crate) fn greatest(threads: Threads, window: &Window, x: &Map, out: &mut Map) {
    let layout = *out.layout();
    let (output, arch) = (Output::new(out.values_mut()), Arch::new());
    threads.each(layout.height, |row| {
        let at = layout.inside(row, 0);
        // SAFETY: `out` is held by this call; each task has a row of its own.
        let out = unsafe { output.piece(at, layout.width * layout.channels) };
        arch.dispatch(Row { window, x, row, out });
    });
}

struct Row<'a> {
    window: &'a Window,
    x: &'a Map,
    row: usize,
    out: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (layout, side) = (self.x.layout(), self.window.side);
        for (column, out) in self.out.chunks_exact_mut(layout.channels).enumerate() {
            let first = layout.seen(self.window, self.row, column);
            out.copy_from_slice(&self.x.values()[first..][..layout.channels]);
            for tap in 1..side * side {
                let at = first + tap / side * layout.row() + tap % side * layout.channels;
                let seen = &self.x.values()[at..][..layout.channels];
                out.iter_mut().zip(seen).for_each(|(most, value)| *most = if *value > *most { *value } else { *most });
            }
        }
    }
}

/// The mean of each channel over all pixels.
pub(crate) fn mean(x: &Map, out: &mut [f32]) {
    struct Sum<'a>(&'a Map, &'a mut [f32]);
    impl WithSimd for Sum<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Self(x, out) = self;
            out.fill(0.0);
            for pixel in (0..x.layout().height).flat_map(|row| x.pixels(row).chunks_exact(x.layout().channels)) {
                out.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
            }
        }
    }
    Arch::new().dispatch(Sum(x, out));
    let pixels = (x.layout().height * x.layout().width) as f32;
    out.iter_mut().for_each(|sum| *sum /= pixels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Border, Layout};

    fn map(height: usize, width: usize, channels: usize, border: Border) -> Map {
        let mut map = Map::default();
        map.reshape(Layout { height, width, channels, border });
        map
    }

    /// Never negative, in no order.
    fn value(row: usize, column: usize, channel: usize) -> f32 {
        ((row * 31 + column * 17 + channel * 7) % 23) as f32
    }

    #[test]
    fn the_greatest_of_each_window_is_taken() {
        let (one, sides) = (Border::even(1), Border { left: 1, right: 1, ..Border::default() });
        for (side, stride, border) in [(2, (2, 2), Border::default()), (3, (2, 2), one), (2, (2, 1), sides)] {
            let (height, width, channels) = (9, 6, 19);
            let window = Window { side, stride, border };
            // The map's border may be wider than the window needs.
            let mut x = map(height, width, channels, Border::even(2));
            for (row, at) in (0..height).flat_map(|row| (0..width * channels).map(move |at| (row, at))) {
                x.pixels_mut(row)[at] = value(row, at / channels, at % channels);
            }
            let (down, across) = window.moved_over(height, width).unwrap();
            let mut out = map(down, across, channels, Border::even(1));
            greatest(Threads::All, &window, &x, &mut out);
            for (row, at) in (0..down).flat_map(|row| (0..across * channels).map(move |at| (row, at))) {
                let (column, channel) = (at / channels, at % channels);
                let seen = (0..side * side).filter_map(|tap| {
                    let y = (row * stride.0 + tap / side).checked_sub(border.top).filter(|y| *y < height)?;
                    let x = (column * stride.1 + tap % side).checked_sub(border.left).filter(|x| *x < width)?;
                    Some(value(y, x, channel))
                });
                assert_eq!(out.pixels(row)[at], seen.fold(0.0, f32::max), "{window:?} {row} {column} {channel}");
            }
        }
    }

    #[test]
    fn the_mean_leaves_the_border_out() {
        let mut x = map(2, 3, 2, Border::even(1));
        (0..2).for_each(|row| x.pixels_mut(row).copy_from_slice(&[1.0, 9.0, 2.0, 8.0, 3.0, 7.0 + row as f32 * 6.0]));
        let mut out = [f32::NAN; 2];
        mean(&x, &mut out);
        assert_eq!(out, [2.0, 9.0]);
    }
}
