//! Clients' tensors as the evaluator's, and back.

use bytes::{Bytes, BytesMut};
use candle_core::{DType, Device, Tensor};
use orion_proto::Payload;

use super::{element::Element, operators::is_float};
use crate::Precision;

/// A tensor of these bytes, little-endian and row-major, which are as many as the shape says.
pub(super) fn read(
    bytes: &[u8],
    element: Element,
    dims: &[usize],
    precision: Precision,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let tensor = Tensor::from_raw_buffer(bytes, element.stored(), dims, &Device::Cpu)?;
    // Whatever is not 0 is true.
    let tensor = if element == Element::Bool { tensor.ne(0u8)? } else { tensor.to_dtype(element.dtype(precision))? };
    if is_float(tensor.dtype()) { tensor.to_device(device) } else { Ok(tensor) }
}

/// Several clients' bytes as one run of bytes.
pub(super) fn joined(parts: &[&Payload]) -> Bytes {
    if let [part] = parts {
        return part.contiguous();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().flat_map(|part| part.pieces()).for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

/// A tensor's bytes in the type that the protocol has for it.
pub(super) fn write(tensor: &Tensor, element: Element) -> candle_core::Result<Bytes> {
    let tensor = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(element.stored())?;
    macro_rules! bytes {
        ($type:ty) => {
            tensor.to_vec1::<$type>()?.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
        };
    }
    let bytes = match element.stored() {
        DType::U8 => tensor.to_vec1::<u8>()?,
        DType::I16 => bytes!(i16),
        DType::U32 => bytes!(u32),
        DType::I32 => bytes!(i32),
        DType::I64 => bytes!(i64),
        DType::F16 => bytes!(half::f16),
        DType::BF16 => bytes!(half::bf16),
        DType::F64 => bytes!(f64),
        _ => bytes!(f32),
    };
    Ok(Bytes::from(bytes))
}
