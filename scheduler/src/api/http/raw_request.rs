//! The body of `infer` when it is one tensor's bytes and nothing else: `Inference-Header-Content-Length: 0`.

use bytes::Bytes;
use orion_proto::{Error, InferRequest, ModelSpec, Payload, Result, Tensor, TensorSpec, encode_bytes_elements};

use super::infer_request::OutputForms;

/// Reads the only input of a model; its shape follows from the declaration and the number of bytes. All outputs go
/// back as binary data. A BYTES input is one element, without a length before it.
///
/// # Errors
/// INVALID_ARGUMENT when the model has several inputs, or when the bytes leave the shape open.
pub(super) fn parse(spec: &ModelSpec, version: String, body: Bytes) -> Result<(InferRequest, OutputForms)> {
    let model = spec.name.as_str();
    let [input] = spec.inputs.as_slice() else {
        let count = spec.inputs.len();
        return Err(Error::invalid(format!(
            "model '{model}' has {count} inputs, a body of bytes alone fits one input"
        )));
    };
    let (count, data) = match input.datatype.size() {
        Some(size) => (body.len() / size, body),
        None => (1, encode_bytes_elements(&[body])),
    };
    let tensor = Tensor::new(input.name.as_str(), input.datatype, shape(input, count)?, Payload::from(data))?;
    let request = InferRequest { model: model.to_owned(), version, inputs: vec![tensor], ..InferRequest::default() };
    Ok((request, OutputForms::all_binary()))
}

/// The declared shape with its open dimension filled in; of two, the first is one row.
fn shape(input: &TensorSpec, count: usize) -> Result<Vec<i64>> {
    if input.any_shape() {
        return Ok(vec![1, count as i64]);
    }
    let mut shape = input.shape.clone();
    let mut open: Vec<usize> = (0..shape.len()).filter(|&at| shape[at] < 0).collect();
    if open.len() == 2 && open.first() == Some(&0) {
        open.remove(0);
        shape[0] = 1;
    }
    let name = &input.name;
    match open.as_slice() {
        [] => {}
        &[at] => {
            let known = shape.iter().filter(|&&size| size >= 0).try_fold(1i64, |rest, &size| rest.checked_mul(size));
            shape[at] = count as i64 / known.unwrap_or(i64::MAX).max(1);
        }
        _ => {
            return Err(Error::invalid(format!("input '{name}' has several open dimensions, send its shape as JSON")));
        }
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use orion_proto::{Datatype, ModelName};

    fn shape_of(datatype: Datatype, declared: &[i64], bytes: usize) -> Result<Vec<i64>> {
        let spec = ModelSpec {
            name: ModelName::new("m")?,
            version: "1".into(),
            family: "test".into(),
            inputs: vec![TensorSpec::new("x", datatype, declared)],
            outputs: vec![],
            max_batch_rows: 1,
            memory_bytes: 0,
            inline: true,
            policy: orion_proto::ModelPolicy::default(),
            generator: None,
        };
        let (mut request, forms) = parse(&spec, String::new(), Bytes::from(vec![0; bytes]))?;
        assert!(forms.binary("any"));
        Ok(request.inputs.remove(0).shape)
    }

    #[test]
    fn the_shape_follows_from_the_bytes() {
        assert_eq!(shape_of(Datatype::Fp32, &[], 12).unwrap(), [1, 3]);
        assert_eq!(shape_of(Datatype::Fp32, &[-1, 3], 24).unwrap(), [2, 3]);
        assert_eq!(shape_of(Datatype::Fp32, &[-1, -1, 3], 24).unwrap(), [1, 2, 3]);
        assert_eq!(shape_of(Datatype::Fp32, &[2], 8).unwrap(), [2]);
        assert_eq!(shape_of(Datatype::Bytes, &[-1], 9).unwrap(), [1]);
        for (declared, bytes) in
            [(&[] as &[i64], 7), (&[-1, 3], 16), (&[2], 12), (&[-1, -1, -1], 8), (&[3, -1, -1], 12)]
        {
            assert!(shape_of(Datatype::Fp32, declared, bytes).is_err(), "{declared:?} {bytes}");
        }
    }
}
