//! What the server and its models declare, in the protocol's own types: gRPC sends them, REST renders them.

use orion_proto::{
    ModelSpec, TensorSpec,
    inference::{
        ModelConfig, ModelInput, ModelMetadataResponse, ModelOutput, ModelTransactionPolicy, ServerMetadataResponse,
        model_metadata_response::TensorMetadata,
    },
};

/// Triton's extensions that this server speaks.
const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"];

/// A shape as the protocol writes it: any shape is one dimension of any size.
fn shape(spec: &TensorSpec) -> Vec<i64> {
    if spec.any_shape() { vec![-1] } else { spec.shape.clone() }
}

/// Name, version and extensions of this server.
pub(super) fn server_metadata() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "orion".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

/// A model's inputs and outputs.
pub(super) fn model_metadata(spec: &ModelSpec) -> ModelMetadataResponse {
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.name().into(),
        shape: shape(spec),
    };
    ModelMetadataResponse {
        name: spec.name.to_string(),
        versions: vec![spec.version.clone()],
        platform: format!("orion_{}", spec.family.replace('-', "_")),
        inputs: spec.inputs.iter().map(tensor).collect(),
        outputs: spec.outputs.iter().map(tensor).collect(),
    }
}

/// A model's configuration as Triton's clients read it. `max_batch_size` is 0: the first dimension is rows, and how
/// many run together is the scheduler's affair.
pub(super) fn model_config(spec: &ModelSpec) -> ModelConfig {
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: spec.datatype.triton().into(),
        dims: shape(spec),
        optional: spec.optional,
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: spec.datatype.triton().into(),
        dims: shape(spec),
    };
    ModelConfig {
        name: spec.name.to_string(),
        platform: format!("orion_{}", spec.family.replace('-', "_")),
        backend: "orion".into(),
        max_batch_size: 0,
        input: spec.inputs.iter().map(input).collect(),
        output: spec.outputs.iter().map(output).collect(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: spec.generator.is_some() }),
        ..Default::default()
    }
}
