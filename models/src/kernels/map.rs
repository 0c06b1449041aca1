//! Feature maps: rows of pixels, the channels of a pixel side by side, in a border of zeros.

/// Values behind the last pixel, so that a whole vector may be read there.
const SLACK: usize = 16;

/// Pixels of zeros around a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Border {
    pub(crate) top: usize,
    pub(crate) bottom: usize,
    pub(crate) left: usize,
    pub(crate) right: usize,
}

/// Where the values of a map lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) border: Border,
}

/// What a convolution or a pooling sees of its input for one output pixel, and how it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Pixels on a side.
    pub(crate) side: usize,
    /// Pixels by which it moves down and across.
    pub(crate) stride: (usize, usize),
    /// How far it reaches beyond the input.
    pub(crate) border: Border,
}

/// The values of one map.
#[derive(Debug, Default)]
pub(crate) struct Map {
    layout: Layout,
    values: Vec<f32>,
}

impl Border {
    /// The same on every side.
    pub(crate) const fn even(pixels: usize) -> Self {
        Self { top: pixels, bottom: pixels, left: pixels, right: pixels }
    }

    /// The wider of both on every side.
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            bottom: self.bottom.max(other.bottom),
            left: self.left.max(other.left),
            right: self.right.max(other.right),
        }
    }
}

impl Layout {
    /// Values from one row to the next.
    pub(crate) fn row(&self) -> usize {
        (self.border.left + self.width + self.border.right) * self.channels
    }

    /// Values of the map, its border included.
    pub(crate) fn len(&self) -> usize {
        (self.border.top + self.height + self.border.bottom) * self.row()
    }

    /// Where a pixel begins; row and column count from the border's first.
    pub(crate) fn at(&self, row: usize, column: usize) -> usize {
        row * self.row() + column * self.channels
    }

    /// Where a pixel inside the border begins.
    pub(crate) fn inside(&self, row: usize, column: usize) -> usize {
        self.at(self.border.top + row, self.border.left + column)
    }

    /// Where the first pixel begins that a window of this border sees.
    pub(crate) fn seen(&self, window: &Window, row: usize, column: usize) -> usize {
        let (above, before) = (self.border.top - window.border.top, self.border.left - window.border.left);
        self.at(above + row * window.stride.0, before + column * window.stride.1)
    }
}

impl Window {
    /// One pixel at a time.
    pub(crate) const PIXEL: Self = Self { side: 1, stride: (1, 1), border: Border::even(0) };

    /// Height and width of what comes out; none where the window is larger than what it sees.
    pub(crate) fn moved_over(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        let steps =
            |size: usize, around: usize, stride: usize| Some((size + around).checked_sub(self.side)? / stride + 1);
        let Border { top, bottom, left, right } = self.border;
        Some((steps(height, top + bottom, self.stride.0)?, steps(width, left + right, self.stride.1)?))
    }
}

impl Map {
    /// Bytes of a map of so many values.
    pub(crate) fn bytes(values: usize) -> u64 {
        ((values + SLACK) * size_of::<f32>()) as u64
    }

    /// Takes another layout, keeping the memory; the border becomes zero, what it encloses is whatever was there.
    pub(crate) fn reshape(&mut self, layout: Layout) {
        self.layout = layout;
        self.values.resize(self.values.len().max(layout.len() + SLACK), 0.0);
        let (row, values) = (layout.row(), &mut self.values[..layout.len()]);
        let Border { top, left, right, .. } = layout.border;
        values[..top * row].fill(0.0);
        values[(top + layout.height) * row..].fill(0.0);
        if left + right > 0 {
            for line in values.chunks_exact_mut(row).skip(top).take(layout.height) {
                line[..left * layout.channels].fill(0.0);
                line[row - right * layout.channels..].fill(0.0);
            }
        }
    }

    /// Where its values lie.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All of them, and the slack.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All of them, and the slack.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The pixels of one row, without the border.
    pub(crate) fn pixels(&self, row: usize) -> &[f32] {
        &self.values[self.layout.inside(row, 0)..][..self.layout.width * self.layout.channels]
    }

    /// The same, to be written.
    pub(crate) fn pixels_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[self.layout.inside(row, 0)..][..self.layout.width * self.layout.channels]
    }
}
