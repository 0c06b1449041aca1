//! Steps that run where a model does: before it on what it takes, after it on what it gives. A pipeline asks for them where that
//! costs less than to send tensors to and fro.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, step::Run};

/// Steps, and a model between them, over tensors that are named as in their pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fused {
    /// In this order; a request brings what none of them gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<FusedStep>,
    /// The model's inputs, and the tensors that they are.
    pub takes: Vec<(String, String)>,
    /// The model's outputs, and the tensors that they become.
    pub gives: Vec<(String, String)>,
    /// In this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<FusedStep>,
    /// Tensors that are answered.
    pub outputs: Vec<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusedStep {
    /// For messages.
    pub name: String,
    /// What it does.
    pub run: Run,
    /// Its inputs, and the tensors that they are.
    pub takes: Vec<(String, String)>,
    /// Its outputs, and the tensors that they become.
    pub gives: Vec<(String, String)>,
}

impl Fused {
    /// The same with only what these outputs need of the steps after the model.
    #[must_use]
    pub fn only(&self, outputs: &[String]) -> Self {
        let mut needed = outputs.to_vec();
        let mut after = Vec::with_capacity(self.after.len());
        for step in self.after.iter().rev() {
            if step.gives.iter().any(|(_, tensor)| needed.contains(tensor)) {
                needed.extend(step.takes.iter().map(|(_, tensor)| tensor.clone()));
                after.push(step.clone());
            }
        }
        after.reverse();
        Self { after, outputs: outputs.to_vec(), ..self.clone() }
    }

    /// As a worker is told.
    pub fn to_json(&self) -> String {
        // Names and numbers: nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From that.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it is none, or a step's settings are out of range.
    pub fn from_json(text: &str) -> Result<Self> {
        let read: Self = serde_json::from_str(text).map_err(|error| Error::invalid(format!("fused steps: {error}")))?;
        read.before.iter().chain(&read.after).try_for_each(|step| step.run.check())?;
        Ok(read)
    }
}
