//! What an operator is called with, and how it takes its inputs.

use candle_core::{DType, Device, Tensor};

use super::super::{
    attributes::Attributes,
    fault::{Outcome, refused},
    graph::Node,
    weight::{MOST_DIMENSIONS, elements},
};
use crate::Precision;

/// One node's inputs and what it may take of the machine.
pub(in crate::onnx) struct Call<'a> {
    pub(in crate::onnx) node: &'a Node,
    pub(in crate::onnx) inputs: &'a [Option<Tensor>],
    /// Where floating-point tensors are. Whole numbers and shapes stay in the host's memory.
    pub(in crate::onnx) device: &'a Device,
    pub(in crate::onnx) precision: Precision,
    /// Bytes that one tensor may have.
    pub(in crate::onnx) most_bytes: usize,
}

/// Whether values of this type are floating-point numbers.
pub(in crate::onnx) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

impl<'a> Call<'a> {
    pub(super) fn attributes(&self) -> &'a Attributes {
        &self.node.attributes
    }

    /// The version of ONNX's operators that the file asks for.
    pub(super) fn version(&self) -> i64 {
        self.node.version
    }

    /// An input that must be there.
    pub(super) fn input(&self, index: usize) -> Outcome<&'a Tensor> {
        self.optional(index).ok_or_else(|| refused!("its input {index} is missing"))
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// An input of floating-point numbers.
    pub(super) fn float(&self, index: usize) -> Outcome<&'a Tensor> {
        let tensor = self.input(index)?;
        match is_float(tensor.dtype()) {
            true => Ok(tensor),
            false => Err(refused!("its input {index} is {}, it must be floating-point", tensor.dtype().as_str())),
        }
    }

    /// The values of an input of whole numbers that may be left out.
    pub(super) fn optional_ints(&self, index: usize) -> Outcome<Option<Vec<i64>>> {
        self.optional(index).map(ints).transpose()
    }

    /// The values of an input of whole numbers.
    pub(super) fn ints(&self, index: usize) -> Outcome<Vec<i64>> {
        ints(self.input(index)?)
    }

    /// A list of whole numbers that newer versions take as an input and older ones as an attribute.
    pub(super) fn ints_or(&self, index: usize, attribute: &str) -> Outcome<Option<Vec<i64>>> {
        match self.optional_ints(index)? {
            Some(values) => Ok(Some(values)),
            None => Ok(self.attributes().ints(attribute)?.cloned()),
        }
    }

    /// A single number.
    pub(super) fn optional_number(&self, index: usize) -> Outcome<Option<f64>> {
        let Some(tensor) = self.optional(index) else { return Ok(None) };
        match floats(tensor)?.as_slice() {
            [value] => Ok(Some(*value)),
            values => Err(refused!("its input {index} has {} values, it must have one", values.len())),
        }
    }

    /// Whether the output of this index is read by anybody.
    pub(super) fn wants(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(Option::is_some)
    }

    /// Refuses a tensor that is larger than may be, before it is made.
    pub(super) fn fits(&self, dims: &[usize], dtype: DType) -> Outcome<()> {
        // Dimensions of no elements do not hide the size of others, of which lists may be made.
        let sizes: Vec<usize> = dims.iter().map(|&size| size.max(1)).collect();
        let bytes = elements(&sizes).and_then(|count| count.checked_mul(dtype.size_in_bytes()));
        if dims.len() > MOST_DIMENSIONS {
            return Err(refused!("it would give {} dimensions, at most {MOST_DIMENSIONS} are served", dims.len()));
        }
        match bytes {
            Some(bytes) if bytes <= self.most_bytes => Ok(()),
            _ => Err(refused!(
                "it would give a tensor of shape {dims:?}, more than the {} bytes that one may have",
                self.most_bytes
            )),
        }
    }

    /// A tensor where tensors of its type belong.
    pub(super) fn place(&self, tensor: &Tensor) -> Outcome<Tensor> {
        Ok(match is_float(tensor.dtype()) {
            true => tensor.to_device(self.device)?,
            false => tensor.to_device(&Device::Cpu)?,
        })
    }

    /// The first input with the second, both of one type, on one device and in their common shape.
    pub(super) fn broadcast(&self, left: &Tensor, right: &Tensor) -> Outcome<(Tensor, Tensor, Vec<usize>)> {
        if left.dtype() != right.dtype() {
            let (left, right) = (left.dtype().as_str(), right.dtype().as_str());
            return Err(refused!("its inputs are {left} and {right}, they must be of one type"));
        }
        let dims = broadcast_dims(left.dims(), right.dims())?;
        self.fits(&dims, left.dtype())?;
        let device = if left.device().is_cpu() { right.device() } else { left.device() };
        Ok((left.to_device(device)?, right.to_device(device)?, dims))
    }
}

/// The shape that two shapes have together.
pub(in crate::onnx) fn broadcast_dims(left: &[usize], right: &[usize]) -> Outcome<Vec<usize>> {
    let rank = left.len().max(right.len());
    let size = |dims: &[usize], at: usize| (at + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    let dim = |at: usize| match (size(left, at), size(right, at)) {
        (left, right) if left == right => Ok(left),
        (1, size) | (size, 1) => Ok(size),
        _ => Err(refused!("shapes {left:?} and {right:?} do not broadcast")),
    };
    (0..rank).map(dim).collect()
}

/// A dimension's index, counted from the end where it is negative.
pub(in crate::onnx) fn axis(value: i64, rank: usize) -> Outcome<usize> {
    let from_start = if value < 0 { value.checked_add(rank as i64) } else { Some(value) };
    let index = from_start.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
    index.ok_or_else(|| refused!("axis {value} is out of range for {rank} dimensions"))
}

/// Several dimensions' indices, each once, in increasing order.
pub(in crate::onnx) fn axes(values: &[i64], rank: usize) -> Outcome<Vec<usize>> {
    let mut axes = values.iter().map(|&value| axis(value, rank)).collect::<Outcome<Vec<_>>>()?;
    axes.sort_unstable();
    match axes.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(axes),
        false => Err(refused!("axes {values:?} name a dimension twice")),
    }
}

/// A size or count that must not be negative.
pub(in crate::onnx) fn size(value: i64, what: &str) -> Outcome<usize> {
    usize::try_from(value).map_err(|_| refused!("{what} is {value}, it must be 0 or more"))
}

/// A tensor's values as whole numbers.
pub(in crate::onnx) fn ints(tensor: &Tensor) -> Outcome<Vec<i64>> {
    if is_float(tensor.dtype()) {
        return Err(refused!("an input is {}, it must be whole numbers", tensor.dtype().as_str()));
    }
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::I64)?.to_vec1()?)
}

/// A tensor's values as numbers.
pub(in crate::onnx) fn floats(tensor: &Tensor) -> Outcome<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// Whole numbers in the host's memory, in this type.
pub(in crate::onnx) fn from_ints(values: Vec<i64>, dims: &[usize], dtype: DType) -> Outcome<Tensor> {
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?)
}

/// Half precision as f32, in which sums and powers are computed.
pub(super) fn wide(tensor: &Tensor) -> Outcome<Tensor> {
    Ok(match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.to_dtype(DType::F32)?,
        _ => tensor.clone(),
    })
}
