//! How the elements of a tensor lie in memory: plain numbers, or blocks that share a scale (ggml's `ggml-common.h`).

use std::fmt;

/// An element type, or a quantisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the field's own
pub(crate) enum Encoding {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
}

struct Row {
    encoding: Encoding,
    number: u32,
    name: &'static str,
    /// Elements of a block, and its bytes.
    block: usize,
    bytes: usize,
}

#[rustfmt::skip]
const TABLE: [Row; 15] = [
    Row { encoding: Encoding::F32,  number: 0,  name: "F32",  block: 1,   bytes: 4 },
    Row { encoding: Encoding::F16,  number: 1,  name: "F16",  block: 1,   bytes: 2 },
    Row { encoding: Encoding::Bf16, number: 30, name: "BF16", block: 1,   bytes: 2 },
    Row { encoding: Encoding::Q4_0, number: 2,  name: "Q4_0", block: 32,  bytes: 18 },
    Row { encoding: Encoding::Q4_1, number: 3,  name: "Q4_1", block: 32,  bytes: 20 },
    Row { encoding: Encoding::Q5_0, number: 6,  name: "Q5_0", block: 32,  bytes: 22 },
    Row { encoding: Encoding::Q5_1, number: 7,  name: "Q5_1", block: 32,  bytes: 24 },
    Row { encoding: Encoding::Q8_0, number: 8,  name: "Q8_0", block: 32,  bytes: 34 },
    Row { encoding: Encoding::Q8_1, number: 9,  name: "Q8_1", block: 32,  bytes: 36 },
    Row { encoding: Encoding::Q2K,  number: 10, name: "Q2_K", block: 256, bytes: 84 },
    Row { encoding: Encoding::Q3K,  number: 11, name: "Q3_K", block: 256, bytes: 110 },
    Row { encoding: Encoding::Q4K,  number: 12, name: "Q4_K", block: 256, bytes: 144 },
    Row { encoding: Encoding::Q5K,  number: 13, name: "Q5_K", block: 256, bytes: 176 },
    Row { encoding: Encoding::Q6K,  number: 14, name: "Q6_K", block: 256, bytes: 210 },
    Row { encoding: Encoding::Q8K,  number: 15, name: "Q8_K", block: 256, bytes: 292 },
];

impl Encoding {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// That of a type number in a GGUF file.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.number == number).map(|row| row.encoding)
    }

    /// Its type number in a GGUF file.
    #[cfg(test)]
    pub(crate) fn number(self) -> u32 {
        self.row().number
    }

    /// Elements that share a scale; rows are whole blocks.
    pub(crate) fn block(self) -> usize {
        self.row().block
    }

    /// Bytes of a row of so many elements; `None` where they are no whole blocks, or too many.
    pub(crate) fn row_bytes(self, elements: usize) -> Option<usize> {
        let Row { block, bytes, .. } = self.row();
        elements.is_multiple_of(*block).then(|| (elements / block).checked_mul(*bytes)).flatten()
    }

    /// Bytes of a tensor whose outermost dimension stands first.
    pub(crate) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (row, outer) = shape.split_last().unwrap_or((&1, &[]));
        outer.iter().try_fold(self.row_bytes(*row)?, |bytes, dimension| bytes.checked_mul(*dimension))
    }

    /// The names of all that are read.
    pub(crate) fn known() -> String {
        let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        format!("known are {}", names.join(", "))
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_names_and_agrees_with_candle() {
        use candle_core::quantized::GgmlDType as Candle;
        let candle = [
            Candle::F32,
            Candle::F16,
            Candle::BF16,
            Candle::Q4_0,
            Candle::Q4_1,
            Candle::Q5_0,
            Candle::Q5_1,
            Candle::Q8_0,
            Candle::Q8_1,
            Candle::Q2K,
            Candle::Q3K,
            Candle::Q4K,
            Candle::Q5K,
            Candle::Q6K,
            Candle::Q8K,
        ];
        for ((index, row), candle) in TABLE.iter().enumerate().zip(candle) {
            assert_eq!((row.encoding as usize, row.block), (index, candle.block_size()), "{}", row.name);
            assert_eq!(row.bytes, candle.type_size(), "{}", row.name);
            assert_eq!(Encoding::from_number(row.encoding.number()), Some(row.encoding));
        }
        assert_eq!(Encoding::Q4_1.bytes(&[3, 64]), Some(120));
        assert_eq!((Encoding::Q4_1.bytes(&[3, 65]), Encoding::F32.bytes(&[usize::MAX, 2])), (None, None));
    }
}
