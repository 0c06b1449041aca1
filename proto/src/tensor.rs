//! A named tensor whose byte count agrees with its shape.

use crate::{Datatype, Error, Payload, Result, bytes_elements};

/// A tensor as a request or an answer carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its dimensions, none negative. The first is rows.
    pub shape: Vec<i64>,
    /// Its elements, little-endian, row-major.
    pub data: Payload,
}

/// Dimensions of a tensor; NumPy stops at 64.
const MOST_DIMENSIONS: usize = 64;

/// Elements of a shape.
///
/// # Errors
/// INVALID_ARGUMENT when there are more than 64 dimensions, one is negative, or the product passes `usize`.
pub fn element_count(name: &str, shape: &[i64]) -> Result<usize> {
    let name = crate::datatype::shortened(name);
    if shape.len() > MOST_DIMENSIONS {
        let rank = shape.len();
        return Err(Error::invalid(format!(
            "tensor '{name}' has {rank} dimensions, at most {MOST_DIMENSIONS} are taken"
        )));
    }
    let mut count = 1usize;
    for &dim in shape {
        let size = usize::try_from(dim).map_err(|_| {
            Error::invalid(format!("tensor '{name}' has the dimension {dim} in shape {shape:?}, it must be 0 or more"))
        })?;
        count = count.checked_mul(size).ok_or_else(|| {
            Error::invalid(format!("tensor '{name}' has a shape {shape:?} of more elements than can be counted"))
        })?;
    }
    Ok(count)
}

impl Tensor {
    /// A tensor whose data fits its shape.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when shape and byte count disagree.
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: Vec<i64>, data: Payload) -> Result<Self> {
        let tensor = Self { name: name.into(), datatype, shape, data };
        tensor.check()?;
        Ok(tensor)
    }

    fn check(&self) -> Result<()> {
        self.check_size()?;
        if self.datatype == Datatype::Bytes {
            let count = element_count(&self.name, &self.shape)?;
            bytes_elements(&self.name, &self.data.contiguous(), count)?;
        }
        Ok(())
    }

    /// Checks that the byte count is that of the shape; a BYTES tensor, whose elements say their own lengths, passes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the tensor and both counts.
    pub fn check_size(&self) -> Result<()> {
        let (name, shape) = (crate::datatype::shortened(&self.name), &self.shape);
        let count = element_count(&self.name, shape)?;
        let Some(size) = self.datatype.size() else { return Ok(()) };
        let bytes = count
            .checked_mul(size)
            .ok_or_else(|| Error::invalid(format!("tensor '{name}' of shape {shape:?} is too large to count")))?;
        if bytes == self.data.len() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "tensor '{name}' of shape {shape:?} and datatype {} takes {bytes} bytes, got {}",
            self.datatype,
            self.data.len()
        )))
    }

    /// Its first dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().map_or(1, |&rows| usize::try_from(rows).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp32(shape: Vec<i64>, bytes: usize) -> Result<Tensor> {
        Tensor::new("x", Datatype::Fp32, shape, Payload::from(vec![0; bytes]))
    }

    #[test]
    fn byte_count_must_be_shape_times_size() {
        assert!(fp32(vec![2, 3], 24).is_ok());
        assert!(fp32(vec![0, 3], 0).is_ok());
        assert!(fp32(vec![], 4).is_ok());
        let error = fp32(vec![2, 3], 20).unwrap_err();
        assert_eq!(error.message, "tensor 'x' of shape [2, 3] and datatype FP32 takes 24 bytes, got 20");
    }

    #[test]
    fn shapes_from_hostile_clients_are_refused_not_wrapped() {
        for shape in [vec![-1], vec![i64::MIN], vec![i64::MAX, 4], vec![1 << 32, 1 << 32], vec![1 << 62, 1]] {
            assert!(fp32(shape.clone(), 0).is_err(), "{shape:?}");
        }
    }
}
