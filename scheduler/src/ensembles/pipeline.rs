//! One request on its way through a pipeline: which steps may run, and who still needs which tensor. Pure.

use std::collections::BTreeSet;

use orion_proto::{Code, Error, Result, Tensor};

use super::Pipeline;

/// A request on its way.
pub(crate) struct Flow<'a> {
    pipeline: &'a Pipeline,
    /// Steps that run for it.
    needed: BTreeSet<usize>,
    /// Tensors that are here; one that nobody needs any more is dropped.
    values: Vec<Option<Tensor>>,
    /// Steps, and the answer, that have yet to take each tensor.
    uses: Vec<usize>,
    /// Tensors that each step waits for.
    missing: Vec<usize>,
    wanted: Vec<usize>,
}

impl<'a> Flow<'a> {
    /// A request with these inputs, checked against the declaration; it wants these outputs, or all.
    pub(crate) fn new(pipeline: &'a Pipeline, inputs: Vec<Tensor>, outputs: &[String]) -> (Self, Vec<usize>) {
        let is_wanted = |at: &usize| outputs.is_empty() || outputs.contains(&pipeline.tensors[*at]);
        let wanted: Vec<usize> = pipeline.outputs.iter().copied().filter(is_wanted).collect();
        let needed = pipeline.needed(wanted.iter().copied());
        let count = pipeline.tensors.len();
        let mut flow = Self {
            pipeline,
            needed,
            values: vec![None; count],
            uses: vec![0; count],
            missing: vec![0; pipeline.steps.len()],
            wanted,
        };
        for at in &flow.wanted {
            flow.uses[*at] += 1;
        }
        for step in &flow.needed {
            for (_, at) in &pipeline.steps[*step].takes {
                flow.uses[*at] += 1;
                flow.missing[*step] += 1;
            }
        }
        let mut ready = Vec::new();
        for at in &pipeline.inputs {
            // One that may be left out is here too, as nothing.
            let value = inputs.iter().find(|tensor| tensor.name == pipeline.tensors[*at]).cloned();
            ready.extend(flow.comes(*at, value));
        }
        (flow, ready)
    }

    /// A tensor is known; the steps that waited for it alone.
    fn comes(&mut self, at: usize, value: Option<Tensor>) -> Vec<usize> {
        self.values[at] = value.filter(|_| self.uses[at] > 0);
        let mut ready = Vec::new();
        for step in &self.needed {
            let takes = self.pipeline.steps[*step].takes.iter().filter(|(_, taken)| *taken == at).count();
            if takes > 0 {
                self.missing[*step] -= takes;
                if self.missing[*step] == 0 {
                    ready.push(*step);
                }
            }
        }
        ready
    }

    /// The inputs of a step, under the model's names.
    pub(crate) fn inputs(&mut self, step: usize) -> Vec<Tensor> {
        let step = &self.pipeline.steps[step];
        let inputs = step.takes.iter().filter_map(|(name, at)| Some(Tensor { name: name.clone(), ..self.take(*at)? }));
        inputs.collect()
    }

    fn take(&mut self, at: usize) -> Option<Tensor> {
        self.uses[at] = self.uses[at].saturating_sub(1);
        if self.uses[at] == 0 { self.values[at].take() } else { self.values[at].clone() }
    }

    /// The outputs that are asked of a step's model.
    pub(crate) fn asks(&self, step: usize) -> Vec<String> {
        let used = |at: usize| self.uses[at] > 0;
        self.pipeline.steps[step].gives.iter().filter(|(_, at)| used(*at)).map(|(name, _)| name.clone()).collect()
    }

    /// A step has answered; the steps that can run now.
    ///
    /// # Errors
    /// INTERNAL where it did not answer what it declares.
    pub(crate) fn answered(&mut self, step: usize, mut outputs: Vec<Tensor>) -> Result<Vec<usize>> {
        let mut ready = Vec::new();
        for (name, at) in &self.pipeline.steps[step].gives {
            if self.uses[*at] == 0 {
                continue;
            }
            let found = outputs.iter().position(|tensor| tensor.name == *name).ok_or_else(|| {
                let step = &self.pipeline.steps[step].name;
                Error::new(Code::Internal, format!("step '{step}' did not answer its output '{name}'"))
            })?;
            // A model's output may be two tensors of the graph.
            let again = self.pipeline.steps[step].gives.iter().filter(|(other, _)| other == name).count() > 1;
            let value = if again { outputs[found].clone() } else { outputs.swap_remove(found) };
            ready.extend(self.comes(*at, Some(Tensor { name: self.pipeline.tensors[*at].clone(), ..value })));
        }
        Ok(ready)
    }

    /// Outputs that have become known since it was asked last.
    pub(crate) fn news(&mut self) -> Vec<Tensor> {
        let (known, wanted) = std::mem::take(&mut self.wanted).into_iter().partition(|at| self.values[*at].is_some());
        self.wanted = wanted;
        known.into_iter().filter_map(|at: usize| self.take(at)).collect()
    }

    /// What is answered, once all steps have run, but for what was news.
    pub(crate) fn outputs(mut self) -> Vec<Tensor> {
        let wanted = std::mem::take(&mut self.wanted);
        wanted.into_iter().filter_map(|at| self.take(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{graph::Written, numbers::fp32};
    use super::*;

    fn pipeline() -> Pipeline {
        let pair = |own: &str, tensor: &str| (own.to_owned(), tensor.to_owned());
        let step = |name: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]| Written {
            name: name.into(),
            model: name.into(),
            inputs: inputs.iter().map(|(own, tensor)| pair(own, tensor)).collect(),
            outputs: outputs.iter().map(|(own, tensor)| pair(own, tensor)).collect(),
            ..Written::default()
        };
        let steps = vec![
            step("split", &[("x", "in")], &[("y", "left"), ("z", "right")]),
            step("one", &[("x", "left")], &[("y", "one")]),
            step("two", &[("x", "right"), ("w", "in")], &[("y", "two")]),
            step("join", &[("a", "one"), ("b", "two")], &[("y", "out")]),
        ];
        let outputs = Some(vec!["out".to_owned(), "left".to_owned()]);
        Pipeline::new(steps, None, outputs, Vec::new()).unwrap()
    }

    fn tensor(name: &str, value: f32) -> Tensor {
        fp32(name, vec![1], &[value])
    }

    #[test]
    fn steps_run_as_soon_as_they_can_and_tensors_go_when_nobody_needs_them() {
        let pipeline = pipeline();
        let (mut flow, ready) = Flow::new(&pipeline, vec![tensor("in", 1.0)], &[]);
        assert_eq!(ready, [0]);
        assert_eq!(flow.inputs(0), [tensor("x", 1.0)]);
        assert_eq!(flow.asks(0), ["y", "z"]);
        assert_eq!(flow.answered(0, vec![tensor("z", 3.0), tensor("y", 2.0)]).unwrap(), [1, 2]);
        assert_eq!(flow.inputs(2), [tensor("x", 3.0), tensor("w", 1.0)]);
        assert_eq!(flow.values.iter().flatten().count(), 1, "only 'left' is kept");
        assert_eq!(flow.inputs(1), [tensor("x", 2.0)]);
        assert!(flow.answered(1, vec![tensor("y", 4.0)]).unwrap().is_empty());
        assert_eq!(flow.answered(2, vec![tensor("y", 5.0)]).unwrap(), [3]);
        assert_eq!(flow.inputs(3), [tensor("a", 4.0), tensor("b", 5.0)]);
        assert!(flow.answered(3, Vec::new()).is_err_and(|error| error.message.contains("'join'")));
        assert!(flow.answered(3, vec![tensor("y", 6.0)]).unwrap().is_empty());
        assert_eq!(flow.outputs(), [tensor("out", 6.0), tensor("left", 2.0)]);
    }

    #[test]
    fn only_what_is_asked_for_runs() {
        let pipeline = pipeline();
        let (mut flow, ready) = Flow::new(&pipeline, vec![tensor("in", 1.0)], &["left".to_owned()]);
        assert_eq!((ready.as_slice(), flow.needed.len()), ([0].as_slice(), 1));
        flow.inputs(0);
        assert_eq!(flow.asks(0), ["y"]);
        assert!(flow.answered(0, vec![tensor("y", 2.0)]).unwrap().is_empty());
        assert_eq!(flow.outputs(), [tensor("left", 2.0)]);
    }

    #[test]
    fn what_is_known_early_is_news_once() {
        let pipeline = pipeline();
        let (mut flow, _) = Flow::new(&pipeline, vec![tensor("in", 1.0)], &[]);
        assert!(flow.news().is_empty());
        flow.inputs(0);
        flow.answered(0, vec![tensor("y", 2.0), tensor("z", 3.0)]).unwrap();
        assert_eq!(flow.news(), [tensor("left", 2.0)]);
        assert!(flow.news().is_empty());
        // A step takes it still.
        assert_eq!(flow.inputs(1), [tensor("x", 2.0)]);
        assert!(flow.outputs().is_empty());
    }
}
