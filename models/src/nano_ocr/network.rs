//! The convolutions of the CRNN, under the names of nano-ocr's checkpoint.

use crate::{
    convnet::{BatchNorm, Convolve, Network, Padding},
    kernels::{Border, Limits, Window},
};

/// Pixels of the image that it takes.
pub(super) const HEIGHT: usize = 32;
pub(super) const WIDTH: usize = 128;
/// Features of a column.
pub(super) const FEATURES: usize = 512;
/// Units of the LSTM in one direction.
pub(super) const HIDDEN: usize = 256;

const EPSILON: f64 = 1e-5;
/// A quarter of the pixels.
const HALVE: Window = Window { side: 2, stride: (2, 2), border: Border::even(0) };
/// Half the rows, and one column more.
const FLATTEN: Window = Window { side: 2, stride: (2, 1), border: Border { top: 0, bottom: 0, left: 1, right: 1 } };

/// Each convolution's place in the checkpoint, its channels, and the pooling behind it.
const LAYERS: [(usize, usize, bool, Option<Window>); 6] = [
    (0, 64, false, Some(HALVE)),
    (3, 128, false, Some(HALVE)),
    (6, 256, true, None),
    (9, 256, false, Some(FLATTEN)),
    (12, 512, true, Some(FLATTEN)),
    (16, FEATURES, true, None),
];

/// One row of columns comes out.
pub(super) fn network() -> Result<Network, String> {
    let mut network = Network::new(HEIGHT, WIDTH, 1);
    for (index, (place, outputs, normalised, pooling)) in LAYERS.into_iter().enumerate() {
        // The last one looks at both rows that are left.
        let (side, padding) = if index + 1 == LAYERS.len() { (2, 0) } else { (3, 1) };
        let norm = normalised.then(|| BatchNorm { name: format!("cnn.{}", place + 1), epsilon: EPSILON });
        let convolve = Convolve {
            name: format!("cnn.{place}"),
            biased: true,
            norm,
            outputs,
            side,
            stride: 1,
            padding: Padding::Even(padding),
            depthwise: false,
            limits: Limits::RELU,
        };
        network.convolve(network.output(), convolve, None)?;
        if let Some(window) = pooling {
            network.greatest(network.output(), window)?;
        }
    }
    Ok(network)
}
