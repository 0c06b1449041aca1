//! Images as requests bring them: decoding within limits, resizing, and one answer for each row.

mod budget;
mod decode;
mod jpeg;
mod resize;
mod rows;
mod sample;
#[cfg(test)]
mod tests;

pub(crate) use decode::{Rgb, decode};
pub(crate) use resize::{Area, Filter, Resize};
pub(crate) use rows::{INPUT, Refusal, Row, Rows};
pub(crate) use sample::{sample, sample_photo};
