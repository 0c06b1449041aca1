//! Triton's `config.pbtxt` of a model whose platform is `ensemble`.

use orion_proto::{DESCRIPTORS, Datatype, Error, ModelName, Result, TensorSpec, inference::ModelConfig};
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::{
    Ensemble, Form, MOST_REQUESTS,
    graph::{Pipeline, Written},
};

/// What makes such a file one of an ensemble.
const SCHEDULING: &str = "ensemble_scheduling";

/// The ensemble of a file; none where it is of a model of another kind.
///
/// # Errors
/// INVALID_ARGUMENT saying where it cannot be read, or what is wrong.
pub(super) fn from_text(name: &ModelName, text: &str) -> Result<Option<Ensemble>> {
    let without_comments = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    if !without_comments.into_iter().any(|line| line.contains(SCHEDULING)) {
        return Ok(None);
    }
    let config = config(text)?;
    let Some(scheduling) = config.ensemble_scheduling.as_ref() else { return Ok(None) };
    if !config.name.is_empty() && config.name != name.as_str() {
        return Err(Error::invalid(format!("it is named '{}' in the file, its folder is '{name}'", config.name)));
    }
    let steps = scheduling.step.iter().map(|step| {
        let sorted = |map: &std::collections::HashMap<String, String>| {
            let mut pairs: Vec<_> = map.iter().map(|(own, tensor)| (own.clone(), tensor.clone())).collect();
            pairs.sort();
            pairs
        };
        let version = if step.model_version > 0 { step.model_version.to_string() } else { String::new() };
        (step.model_name.clone(), version, sorted(&step.input_map), sorted(&step.output_map))
    });
    // A model may be there twice.
    let mut written: Vec<Written> = Vec::new();
    for (model, version, inputs, outputs) in steps {
        let same = written.iter().filter(|other| other.model == model).count();
        let name = if same == 0 { model.clone() } else { format!("{model}-{}", same + 1) };
        written.push(Written { name, model, version, path: None, inputs, outputs });
    }
    let inputs = config.input.iter().map(|input| input.name.clone()).collect();
    let outputs = config.output.iter().map(|output| output.name.clone()).collect();
    let declared = declared(&config)?;
    let pipeline = Pipeline::new(written, Some(inputs), Some(outputs), declared)?;
    let form = Form::Pipeline(pipeline);
    Ok(Some(Ensemble { name: name.clone(), family: String::new(), most_requests: MOST_REQUESTS, form }))
}

fn config(text: &str) -> Result<ModelConfig> {
    let broken = |error: &dyn std::fmt::Display| {
        let read = "name, platform, version_policy, max_batch_size, input, output, parameters, response_cache and \
                    ensemble_scheduling are read";
        Error::invalid(format!("{error}; of an ensemble {read}"))
    };
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| broken(&error))?;
    let message = pool.get_message_by_name("inference.ModelConfig").ok_or_else(|| broken(&"it has no descriptor"))?;
    let read = DynamicMessage::parse_text_format(message, &with_colons(text)).map_err(|error| broken(&error))?;
    read.transcode_to::<ModelConfig>().map_err(|error| broken(&error))
}

/// The format lets a list of messages follow its field's name at once, which the parser does not know: it wants a colon.
fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut quote, mut escaped, mut comment, mut last) = (None, false, false, ' ');
    for c in text.chars() {
        match (quote, c) {
            _ if comment => comment = c != '\n',
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => comment = true,
            (None, '[') if last.is_alphanumeric() || last == '_' => out.push(':'),
            (None, _) => {}
        }
        if !comment && !c.is_whitespace() {
            last = c;
        }
        out.push(c);
    }
    out
}

/// Inputs and outputs with their whole shapes: where a model has batches, Triton leaves their dimension out.
fn declared(config: &ModelConfig) -> Result<Vec<TensorSpec>> {
    let shape = |dims: &[i64]| match config.max_batch_size > 0 {
        true => std::iter::once(-1).chain(dims.iter().copied()).collect::<Vec<i64>>(),
        false => dims.to_vec(),
    };
    let spec = |name: &str, kind: &str, dims: &[i64]| {
        let datatype = match kind.strip_prefix("TYPE_") {
            Some("STRING") => Ok(Datatype::Bytes),
            Some(kind) => Datatype::from_name(kind),
            None => Datatype::from_name(kind),
        };
        datatype.map(|datatype| TensorSpec::new(name, datatype, shape(dims)))
    };
    let inputs = config.input.iter().map(|input| {
        let declared = spec(&input.name, input.data_type().as_str_name(), &input.dims)?;
        Ok(TensorSpec { optional: input.optional, ..declared })
    });
    let outputs = config.output.iter().map(|of| spec(&of.name, of.data_type().as_str_name(), &of.dims));
    inputs.chain(outputs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREPROCESSED: &str = r#"
        name: "ensemble_model"  # as in Triton's documentation
        platform: "ensemble"
        max_batch_size: 1
        input [ { name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [
          { name: "CLASSIFICATION" data_type: TYPE_FP32 dims: [ 1000 ] },
          { name: "SEGMENTATION" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }
        ]
        ensemble_scheduling {
          step [
            {
              model_name: "image_preprocess_model"
              model_version: -1
              input_map { key: "RAW_IMAGE" value: "IMAGE" }
              output_map { key: "PREPROCESSED_OUTPUT" value: "preprocessed_image" }
            },
            {
              model_name: "classification_model"
              model_version: 2
              input_map { key: "FORMATTED_IMAGE" value: "preprocessed_image" }
              output_map { key: "CLASSIFICATION_OUTPUT" value: "CLASSIFICATION" }
            },
            {
              model_name: "segmentation_model"
              model_version: -1
              input_map { key: "FORMATTED_IMAGE" value: "preprocessed_image" }
              output_map { key: "SEGMENTATION_OUTPUT" value: "SEGMENTATION" }
            }
          ]
        }
    "#;

    fn read(text: &str) -> Result<Option<Ensemble>> {
        from_text(&ModelName::new("ensemble_model").unwrap(), text)
    }

    #[test]
    fn the_example_of_tritons_documentation_is_read() {
        let ensemble = read(PREPROCESSED).unwrap().unwrap();
        assert_eq!(ensemble.parts(), ["image_preprocess_model", "classification_model", "segmentation_model"]);
        let Form::Pipeline(pipeline) = &ensemble.form else { panic!("{ensemble:?}") };
        let versions: Vec<&str> = pipeline.steps.iter().map(|step| step.version.as_str()).collect();
        assert_eq!(versions, ["", "2", ""]);
        let shapes: Vec<_> = pipeline.declared.iter().map(|of| (of.name.as_str(), of.shape.clone())).collect();
        let segmentation = ("SEGMENTATION", vec![-1, 3, 224, 224]);
        assert_eq!(shapes, [("IMAGE", vec![-1, 1]), ("CLASSIFICATION", vec![-1, 1000]), segmentation]);
        assert_eq!(pipeline.declared[0].datatype, Datatype::Bytes);
    }

    #[test]
    fn other_files_are_left_alone_and_mistakes_named() {
        assert_eq!(read("platform: \"onnxruntime_onnx\" instance_group [ { count: 2 } ]"), Ok(None));
        assert_eq!(read("name: \"x\" # no ensemble_scheduling here"), Ok(None));
        for (from, to, words) in [
            ("max_batch_size: 1", "max_bacth_size: 1", "max_bacth_size"),
            ("max_batch_size: 1", "max_batch_size: \"[\"", "max_batch_size"),
            ("name: \"ensemble_model\"", "name: \"other\"", "its folder is 'ensemble_model'"),
            ("value: \"IMAGE\"", "value: \"PICTURE\"", "'IMAGE' is a tensor of no step"),
            ("TYPE_STRING", "TYPE_TEXT", "TYPE_TEXT"),
        ] {
            let error = read(&PREPROCESSED.replacen(from, to, 1)).unwrap_err();
            assert!(error.message.contains(words), "{to}: {error}");
        }
    }
}
