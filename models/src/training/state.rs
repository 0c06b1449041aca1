//! A training's state as bytes: safetensors of the weights and what the optimizer remembers, and the progress beside them. It is
//! what checkpoints hold and what a worker that joins is sent.

use std::collections::HashMap;

use orion_proto::{Code, Error, Result, training::Plan};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{Learner, Progress, optimizer::Weights, task::count};

/// The one note beside the tensors: several would be written in any order, and the same state must be the same bytes.
const NOTE: &str = "training";
const PARTS: [&str; 4] = ["weights", "first", "second", "best"];

#[derive(Serialize, Deserialize)]
struct Note {
    plan: Plan,
    /// Of the examples, in hex.
    data: String,
    progress: Progress,
}

impl Learner {
    /// The state.
    ///
    /// # Errors
    /// INTERNAL where it cannot be written.
    pub fn state(&self) -> Result<Vec<u8>> {
        let failed = |error: &dyn std::fmt::Display| Error::new(Code::Internal, format!("the state: {error}"));
        let Weights { values, first, second } = &self.weights;
        let bytes = [values, first, second, &self.progress.best_weights]
            .map(|part| part.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        let mut views = Vec::with_capacity(PARTS.len());
        for (name, bytes) in PARTS.into_iter().zip(&bytes) {
            let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|error| failed(&error))?;
            views.push((name, view));
        }
        let data = self.data.to_hex().to_string();
        let note = Note { plan: self.plan.clone(), data, progress: self.progress.clone() };
        let note = serde_json::to_string(&note).map_err(|error| failed(&error))?;
        let notes = HashMap::from([(NOTE.to_owned(), note)]);
        safetensors::serialize(views, Some(notes)).map_err(|error| failed(&error))
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where it is damaged or of another plan.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let wrong = |why: &dyn std::fmt::Display| {
            Error::new(Code::FailedPrecondition, format!("the state of the training cannot be taken up: {why}"))
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| wrong(&error))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| wrong(&error))?;
        let note = header.metadata().as_ref().and_then(|notes| notes.get(NOTE));
        let note = note.ok_or_else(|| wrong(&"it does not say how far it is"))?;
        let Note { plan, data, mut progress } = serde_json::from_str(note).map_err(|error| wrong(&error))?;
        if plan != self.plan {
            return Err(wrong(&"it is of another plan"));
        }
        if data != self.data.to_hex().as_str() {
            return Err(wrong(&"it is of other examples"));
        }
        let mut parts = PARTS.map(|_| Vec::new());
        for (part, name) in parts.iter_mut().zip(PARTS) {
            let tensor = tensors.tensor(name).map_err(|error| wrong(&error))?;
            if tensor.dtype() != Dtype::F32 {
                return Err(wrong(&format!("'{name}' is {:?}, it must be F32", tensor.dtype())));
            }
            let values = tensor.data().chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]));
            *part = values.collect();
        }
        let [values, first, second, best] = parts;
        let weights = Weights { values, first, second };
        let count = count(self.task.parameters());
        if weights.values.len() != count || !weights.fit(self.optimizer()) || ![0, count].contains(&best.len()) {
            return Err(wrong(&format!("it has {} weights, the network {count}", weights.values.len())));
        }
        progress.best_weights = best;
        self.set(weights, progress)
    }
}
