//! What a model takes and gives, as the worker that opened it says.

use crate::{Datatype, Error, ModelName, ModelPolicy, Result, Tensor, session};

/// Rows that one request may hold, whatever the model: what OpenAI takes in one embeddings request.
const ROWS: usize = 2048;
/// A prediction beyond a day is as good as never, and sums of such must not overflow.
const LONGEST_SECONDS: f64 = 86_400.0;
/// Or so many of the model's largest batches, if that is more.
const ROW_BATCHES: usize = 64;

/// A declared input or output. A dimension of -1 may have any size; a shape of `[-1]` alone, with any rank, is
/// [`TensorSpec::any_shape`].
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Declared dimensions, the rows first; -1 for any size. Empty: any shape at all.
    pub shape: Vec<i64>,
    /// Whether a request may leave this input out.
    pub optional: bool,
}

/// A model as it is served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Its served name.
    pub name: ModelName,
    /// Its version.
    pub version: String,
    /// Its family, such as `sentence-embedding`.
    pub family: String,
    /// Declared inputs.
    pub inputs: Vec<TensorSpec>,
    /// Declared outputs.
    pub outputs: Vec<TensorSpec>,
    /// Rows that one batch may hold.
    pub max_batch_rows: usize,
    /// Bytes that its weights take on its device.
    pub memory_bytes: u64,
    /// Costs about nothing, so it runs on the thread on which its batch arrives.
    pub inline: bool,
    /// How its owner wants it placed and ordered.
    pub policy: ModelPolicy,
    /// What it holds at once, if it generates.
    pub generator: Option<GeneratorSpec>,
}

/// What a generator holds at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorSpec {
    /// Tokens that a prompt and its answer may have together.
    pub context_tokens: u32,
    /// Generations that run in one step.
    pub max_sequences: u32,
    /// Tokens whose keys and values fit its cache, over all generations.
    pub cache_tokens: u64,
    /// Whether it has a chat template.
    pub chat: bool,
}

/// Seconds that a batch of `n` rows takes: `base + per_row · n`.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct ServiceCurve {
    /// Seconds whatever the size.
    pub base_seconds: f64,
    /// Seconds a row.
    pub per_row_seconds: f64,
}

impl ServiceCurve {
    /// Predicted seconds for a batch of `rows`.
    pub fn seconds(&self, rows: usize) -> f64 {
        self.base_seconds + self.per_row_seconds * rows as f64
    }
}

impl TensorSpec {
    /// A declared tensor.
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: impl Into<Vec<i64>>) -> Self {
        Self { name: name.into(), datatype, shape: shape.into(), optional: false }
    }

    /// A declared input that a request may leave out.
    pub fn optional(name: impl Into<String>, datatype: Datatype, shape: impl Into<Vec<i64>>) -> Self {
        Self { optional: true, ..Self::new(name, datatype, shape) }
    }

    /// Whether every shape is allowed.
    pub fn any_shape(&self) -> bool {
        self.shape.is_empty()
    }

    /// Checks a tensor of this name against the declaration.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the tensor, what it is and what it must be.
    pub fn check(&self, tensor: &Tensor) -> Result<()> {
        let name = &self.name;
        if tensor.datatype != self.datatype {
            return Err(Error::invalid(format!(
                "input '{name}' has datatype {}, the model takes {}",
                tensor.datatype, self.datatype
            )));
        }
        let fits = |(declared, got): (&i64, &i64)| *declared < 0 || declared == got;
        let same_rank = tensor.shape.len() == self.shape.len();
        if self.any_shape() || (same_rank && self.shape.iter().zip(&tensor.shape).all(fits)) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "input '{name}' has shape {:?}, the model takes {:?} (-1: any size)",
            tensor.shape, self.shape
        )))
    }
}

impl ModelSpec {
    /// Whether requests have rows: every tensor begins with an open dimension, or may have any shape. A request to a model
    /// without rows counts as one.
    pub fn has_rows(&self) -> bool {
        let open = |spec: &TensorSpec| spec.shape.first().is_none_or(|size| *size < 0);
        self.inputs.iter().chain(&self.outputs).all(open)
    }

    /// Checks a request's inputs: each declared one is there once, unless it may be left out; nothing
    /// else is; and all hold the same rows.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the input that is wrong, missing or unknown.
    pub fn check_inputs(&self, inputs: &[Tensor]) -> Result<usize> {
        for (index, tensor) in inputs.iter().enumerate() {
            let Some(spec) = self.inputs.iter().find(|spec| spec.name == tensor.name) else {
                let known: Vec<&str> = self.inputs.iter().map(|spec| spec.name.as_str()).collect();
                return Err(Error::invalid(format!(
                    "input '{}' is unknown to model '{}', its inputs are: {}",
                    crate::datatype::shortened(&tensor.name),
                    self.name,
                    known.join(", ")
                )));
            };
            spec.check(tensor)?;
            if inputs.iter().take(index).any(|earlier| earlier.name == tensor.name) {
                return Err(Error::invalid(format!("input '{}' is given twice", tensor.name)));
            }
        }
        let absent = |spec: &&TensorSpec| !spec.optional && inputs.iter().all(|tensor| tensor.name != spec.name);
        if let Some(missing) = self.inputs.iter().find(absent) {
            return Err(Error::invalid(format!("input '{}' of model '{}' is missing", missing.name, self.name)));
        }
        if !self.has_rows() {
            return Ok(1);
        }
        let rows = inputs.first().map_or(1, Tensor::rows);
        let most = self.max_batch_rows.saturating_mul(ROW_BATCHES).max(ROWS);
        if rows > most && !self.inline {
            return Err(Error::invalid(format!(
                "the request has {rows} rows, model '{}' takes {most} at once",
                self.name
            )));
        }
        match inputs.iter().find(|tensor| tensor.rows() != rows) {
            Some(odd) => Err(Error::invalid(format!(
                "input '{}' has {} rows, input '{}' has {rows}: they must agree",
                odd.name,
                odd.rows(),
                inputs[0].name
            ))),
            None => Ok(rows),
        }
    }

    /// Checks what a worker answered to a request of `rows`: the declared outputs, of the declared types and shapes.
    ///
    /// # Errors
    /// INTERNAL naming the output that is missing or not as declared.
    pub fn check_answer(&self, outputs: &[Tensor], rows: usize) -> Result<()> {
        let wrong = |text: String| Err(Error::new(crate::Code::Internal, format!("model '{}' {text}", self.name)));
        if outputs.len() != self.outputs.len() {
            return wrong(format!("answered {} outputs, it declares {}", outputs.len(), self.outputs.len()));
        }
        for spec in &self.outputs {
            let Some(tensor) = outputs.iter().find(|tensor| tensor.name == spec.name) else {
                return wrong(format!("did not answer its output '{}'", spec.name));
            };
            let odd = self.has_rows() && tensor.rows() != rows;
            if odd || spec.check(tensor).is_err() || tensor.check_size().is_err() {
                return wrong(format!("answered its output '{}' with another type or shape than declared", spec.name));
            }
        }
        Ok(())
    }

    /// Checks the names of the outputs that a client asked for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the unknown output and the known ones.
    pub fn check_outputs(&self, wanted: &[String]) -> Result<()> {
        let unknown = |name: &&String| self.outputs.iter().all(|spec| spec.name != **name);
        match wanted.iter().find(unknown) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<&str> = self.outputs.iter().map(|spec| spec.name.as_str()).collect();
                Err(Error::invalid(format!(
                    "output '{}' is unknown to model '{}', its outputs are: {}",
                    crate::datatype::shortened(name),
                    self.name,
                    known.join(", ")
                )))
            }
        }
    }
}

impl TryFrom<session::TensorSpec> for TensorSpec {
    type Error = Error;

    fn try_from(wire: session::TensorSpec) -> Result<Self> {
        let datatype = Datatype::from_name(&wire.datatype)?;
        Ok(Self { name: wire.name, datatype, shape: wire.shape, optional: wire.optional })
    }
}

impl From<&TensorSpec> for session::TensorSpec {
    fn from(spec: &TensorSpec) -> Self {
        let datatype = spec.datatype.name().into();
        Self { name: spec.name.clone(), datatype, shape: spec.shape.clone(), optional: spec.optional }
    }
}

impl TryFrom<session::ModelSpec> for ModelSpec {
    type Error = Error;

    fn try_from(wire: session::ModelSpec) -> Result<Self> {
        let tensors =
            |list: Vec<session::TensorSpec>| list.into_iter().map(TensorSpec::try_from).collect::<Result<Vec<_>>>();
        let inputs: Vec<TensorSpec> = tensors(wire.inputs)?;
        if inputs.is_empty() {
            return Err(Error::invalid(format!("model '{}' declares no input, it must have one", wire.name)));
        }
        Ok(Self {
            name: ModelName::new(wire.name)?,
            version: wire.version,
            family: wire.family,
            inputs,
            outputs: tensors(wire.outputs)?,
            max_batch_rows: (wire.max_batch_rows as usize).max(1),
            memory_bytes: wire.memory_bytes,
            inline: wire.inline,
            policy: wire.policy.unwrap_or_default().try_into()?,
            generator: wire.generator.map(GeneratorSpec::from),
        })
    }
}

impl From<&ModelSpec> for session::ModelSpec {
    fn from(spec: &ModelSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            version: spec.version.clone(),
            family: spec.family.clone(),
            inputs: spec.inputs.iter().map(Into::into).collect(),
            outputs: spec.outputs.iter().map(Into::into).collect(),
            max_batch_rows: u32::try_from(spec.max_batch_rows).unwrap_or(u32::MAX),
            memory_bytes: spec.memory_bytes,
            inline: spec.inline,
            policy: Some((&spec.policy).into()),
            generator: spec.generator.map(Into::into),
        }
    }
}

impl From<session::GeneratorSpec> for GeneratorSpec {
    fn from(wire: session::GeneratorSpec) -> Self {
        Self {
            context_tokens: wire.context_tokens,
            max_sequences: wire.max_sequences.max(1),
            cache_tokens: wire.cache_tokens,
            chat: wire.chat,
        }
    }
}

impl From<GeneratorSpec> for session::GeneratorSpec {
    fn from(spec: GeneratorSpec) -> Self {
        Self {
            context_tokens: spec.context_tokens,
            max_sequences: spec.max_sequences,
            cache_tokens: spec.cache_tokens,
            chat: spec.chat,
        }
    }
}

impl From<session::ServiceCurve> for ServiceCurve {
    fn from(wire: session::ServiceCurve) -> Self {
        // A curve is a prediction: a peer's NaN or negative figure must not poison comparisons.
        let sane = |x: f64| if x.is_finite() && x >= 0.0 { x.min(LONGEST_SECONDS) } else { 0.0 };
        Self { base_seconds: sane(wire.base_seconds), per_row_seconds: sane(wire.per_row_seconds) }
    }
}

impl From<ServiceCurve> for session::ServiceCurve {
    fn from(curve: ServiceCurve) -> Self {
        Self { base_seconds: curve.base_seconds, per_row_seconds: curve.per_row_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;

    #[test]
    fn a_model_without_rows_takes_tensors_of_any_leading_dimension() {
        let fp32 = |name: &str, shape: &[i64]| {
            let count = shape.iter().product::<i64>() as usize;
            Tensor::new(name, Datatype::Fp32, shape.to_vec(), Payload::from(vec![0; count * 4])).unwrap()
        };
        let mut spec = ModelSpec {
            name: ModelName::new("m").unwrap(),
            version: "1".into(),
            family: "onnx".into(),
            inputs: vec![TensorSpec::new("a", Datatype::Fp32, [-1, 2]), TensorSpec::new("b", Datatype::Fp32, [2, -1])],
            outputs: vec![TensorSpec::new("y", Datatype::Fp32, [-1])],
            max_batch_rows: 1,
            memory_bytes: 0,
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        };
        let inputs = [fp32("a", &[3, 2]), fp32("b", &[2, 5])];
        assert!(!spec.has_rows());
        assert_eq!(spec.check_inputs(&inputs).ok(), Some(1));
        assert!(spec.check_answer(&[fp32("y", &[7])], 1).is_ok());
        spec.inputs[1].shape = vec![-1, -1];
        assert!(spec.has_rows());
        assert!(spec.check_inputs(&inputs).is_err_and(|error| error.message.contains("must agree")));
        assert!(spec.check_answer(&[fp32("y", &[7])], 1).is_err());
    }

    #[test]
    fn an_optional_input_may_be_left_out_and_is_checked_where_it_is_not() {
        let int8 = |name: &str, rows: i64| {
            Tensor::new(name, Datatype::Int8, vec![rows], Payload::from(vec![0; rows as usize])).unwrap()
        };
        let declared = ModelSpec {
            name: ModelName::new("m").unwrap(),
            version: "1".into(),
            family: "test".into(),
            inputs: vec![TensorSpec::new("a", Datatype::Int8, [-1]), TensorSpec::optional("b", Datatype::Int8, [-1])],
            outputs: vec![TensorSpec::new("y", Datatype::Int8, [-1])],
            max_batch_rows: 1,
            memory_bytes: 0,
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        };
        let spec = ModelSpec::try_from(session::ModelSpec::from(&declared)).unwrap();
        assert_eq!(spec, declared);
        assert_eq!(spec.check_inputs(&[int8("a", 3)]).ok(), Some(3));
        assert_eq!(spec.check_inputs(&[int8("b", 3), int8("a", 3)]).ok(), Some(3));
        for (inputs, words) in [
            (vec![int8("b", 3)], "input 'a' of model 'm' is missing"),
            (vec![int8("a", 3), int8("b", 2)], "input 'b' has 2 rows, input 'a' has 3: they must agree"),
            (vec![int8("a", 3), int8("c", 3)], "its inputs are: a, b"),
        ] {
            let error = spec.check_inputs(&inputs).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
    }
}
