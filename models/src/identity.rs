//! The built-in model `identity`: INPUT0 comes back as OUTPUT0. It costs nothing, so it measures all the rest.

use orion_proto::{Datatype, InferAnswer, ModelName, ModelPolicy, ModelSpec, Result, Tensor, TensorSpec};

use crate::ModelRequest;

/// The name under which it is always served.
pub const IDENTITY: &str = "identity";

/// What `identity` takes and gives.
pub fn identity_spec() -> ModelSpec {
    #[expect(clippy::expect_used, reason = "a constant name, which a test makes valid")]
    let name = ModelName::new(IDENTITY).expect("a valid name");
    ModelSpec {
        name,
        version: "1".into(),
        family: IDENTITY.into(),
        inputs: vec![TensorSpec::new("INPUT0", Datatype::Fp32, [])],
        outputs: vec![TensorSpec::new("OUTPUT0", Datatype::Fp32, [])],
        max_batch_rows: u32::MAX as usize,
        memory_bytes: 0,
        inline: true,
        policy: ModelPolicy::default(),
        generator: None,
    }
}

/// Moves each request's bytes into its answer.
pub fn run_identity(batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
    batch.into_iter().map(|request| echo(request.inputs, identity_spec)).collect()
}

/// The one FP32 tensor INPUT0 as OUTPUT0, its payload moved. `spec` is asked only to explain a refusal.
pub(crate) fn echo(mut inputs: Vec<Tensor>, spec: impl FnOnce() -> ModelSpec) -> Result<InferAnswer> {
    let fits = |tensor: &Tensor| tensor.name == "INPUT0" && tensor.datatype == Datatype::Fp32;
    if inputs.len() != 1 || !inputs.iter().all(fits) {
        spec().check_inputs(&inputs)?;
    }
    inputs.truncate(1);
    inputs.iter_mut().for_each(|tensor| tensor.name.replace_range(.., "OUTPUT0"));
    Ok(InferAnswer { outputs: inputs, ..InferAnswer::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use orion_proto::Payload;

    fn request(name: &str, datatype: Datatype) -> ModelRequest {
        let tensor = Tensor::new(name, datatype, vec![2, 2], Payload::from(vec![7; 16])).unwrap();
        ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
    }

    #[test]
    fn bytes_are_moved_and_a_bad_request_fails_alone() {
        let good = request("INPUT0", Datatype::Fp32);
        let address = good.inputs[0].data.contiguous().as_ptr();
        let answers = run_identity(vec![
            request("INPUT1", Datatype::Fp32),
            good,
            request("INPUT0", Datatype::Int32),
            ModelRequest::default(),
        ]);
        let output = &answers[1].as_ref().unwrap().outputs[0];
        assert_eq!((output.name.as_str(), output.shape.as_slice()), ("OUTPUT0", [2, 2].as_slice()));
        assert_eq!(output.data.contiguous().as_ptr(), address);
        for (index, word) in [(0, "INPUT1"), (2, "INT32"), (3, "missing")] {
            let message = &answers[index].as_ref().unwrap_err().message;
            assert!(message.contains(word), "{message}");
        }
    }
}
