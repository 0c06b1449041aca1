//! Parameters of requests: names with scalar values, kept in the order in which they came.

use std::fmt;

use orion_proto::{
    Code, Error, Result,
    inference::{InferParameter, infer_parameter::ParameterChoice},
};
use serde::{Deserialize, Deserializer, de::Visitor};

use super::at_most::EntriesAtMost;

/// Parameters that one object may have.
const MOST: usize = 256;

/// The object `parameters`.
#[derive(Debug, Default)]
pub(super) struct ParameterList(Vec<(String, InferParameter)>);

impl ParameterList {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &InferParameter)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn get(&self, name: &str) -> Option<&ParameterChoice> {
        self.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.parameter_choice.as_ref())
    }

    /// A boolean parameter.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it is something else.
    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(ParameterChoice::BoolParam(flag)) => Ok(Some(*flag)),
            Some(_) => Err(Error::invalid(format!("parameter '{name}' must be true or false"))),
        }
    }

    /// A size in bytes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it is no whole number, 0 or more.
    pub(super) fn size(&self, name: &str) -> Result<Option<usize>> {
        let wrong = || Error::invalid(format!("parameter '{name}' must be a whole number of bytes, 0 or more"));
        match self.get(name) {
            None => Ok(None),
            Some(ParameterChoice::Uint64Param(size)) => usize::try_from(*size).map(Some).map_err(|_| wrong()),
            Some(_) => Err(wrong()),
        }
    }

    /// Refuses what a tensor's parameters may ask for in Triton and not here.
    ///
    /// # Errors
    /// UNIMPLEMENTED naming it.
    pub(super) fn refuse_unserved(&self) -> Result<()> {
        let refusals = [
            ("shared_memory_region", "shared memory is not served, send the tensor's bytes"),
            ("classification", "classification is not served, ask for the output without it and sort its scores"),
        ];
        match refusals.iter().find(|(name, _)| self.get(name).is_some()) {
            None => Ok(()),
            Some((_, message)) => Err(Error::new(Code::Unimplemented, *message)),
        }
    }
}

impl<'de> Deserialize<'de> for ParameterList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let entries = EntriesAtMost::<Scalar, MOST>::deserialize(deserializer)?;
        Ok(Self(entries.0.into_iter().map(|(name, value)| (name, value.into())).collect()))
    }
}

/// One parameter's value.
#[derive(Debug)]
pub(super) struct Scalar(ParameterChoice);

impl From<Scalar> for InferParameter {
    fn from(Scalar(value): Scalar) -> Self {
        Self { parameter_choice: Some(value) }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter's value: a boolean, a number or a string")
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Scalar, E> {
        Ok(Scalar(ParameterChoice::BoolParam(value)))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Scalar, E> {
        Ok(Scalar(ParameterChoice::Int64Param(value)))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Scalar, E> {
        Ok(Scalar(ParameterChoice::Uint64Param(value)))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Scalar, E> {
        Ok(Scalar(ParameterChoice::DoubleParam(value)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Scalar, E> {
        Ok(Scalar(ParameterChoice::StringParam(value.to_owned())))
    }
}
