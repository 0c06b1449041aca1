//! Which steps of a pipeline run where a model does. Pure.

use std::{collections::BTreeSet, sync::Arc};

use orion_proto::{Fused, FusedStep, step::Run};

use super::{Pipeline, graph::Step};

/// Whether a step that a pipeline brings (the first) is to run where a model (the second) does.
pub(crate) type Fuses<'a> = &'a dyn Fn(&str, &str) -> bool;

impl Pipeline {
    /// The same pipeline with steps that are one request to their model.
    pub(crate) fn fused(&self, fuses: Fuses<'_>) -> Self {
        let mut gone: BTreeSet<usize> = BTreeSet::new();
        let mut steps: Vec<Step> = self.steps.clone();
        for at in 0..self.steps.len() {
            if self.steps[at].path.is_some() {
                continue;
            }
            let group = self.group(at, &gone, fuses);
            if group.len() > 1 {
                steps[at] = self.one_of(at, &group);
                gone.extend(group.into_iter().filter(|step| *step != at));
            }
        }
        let left = steps.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, step)| step);
        Self { steps: left.collect(), ..self.clone() }
    }

    /// A model and the steps that can run with it: before it those whose tensors nothing else takes, after it those that take
    /// nothing else.
    fn group(&self, model: usize, gone: &BTreeSet<usize>, fuses: Fuses<'_>) -> BTreeSet<usize> {
        let mut group = BTreeSet::from([model]);
        let may = |at: usize, group: &BTreeSet<usize>| {
            let step = &self.steps[at];
            let keeps_rows = step.run().is_some_and(|run| !matches!(run, Run::Chunk { .. }));
            let free = !gone.contains(&at) && !group.contains(&at);
            free && keeps_rows && fuses(step.model.as_str(), self.steps[model].model.as_str())
        };
        for at in (0..model).rev() {
            let taken_by = |tensor: usize| {
                let takes = move |(_, step): &(usize, &Step)| step.takes.iter().any(|(_, taken)| *taken == tensor);
                self.steps.iter().enumerate().filter(takes).map(|(other, _)| other)
            };
            let within = |tensor: &usize| {
                let mut takers = taken_by(*tensor).peekable();
                !self.outputs.contains(tensor) && takers.peek().is_some() && takers.all(|other| group.contains(&other))
            };
            if self.steps[at].gives.iter().all(|(_, tensor)| within(tensor)) && may(at, &group) {
                group.insert(at);
            }
        }
        for at in model + 1..self.steps.len() {
            let given =
                |tensor: &usize| group.iter().any(|of| self.steps[*of].gives.iter().any(|(_, at)| at == tensor));
            if self.steps[at].takes.iter().all(|(_, tensor)| given(tensor)) && may(at, &group) {
                group.insert(at);
            }
        }
        group
    }

    /// One step in place of a group.
    fn one_of(&self, model: usize, group: &BTreeSet<usize>) -> Step {
        let name = |at: usize| self.tensors[at].clone();
        let named = |pairs: &[(String, usize)]| pairs.iter().map(|(own, at)| (own.clone(), name(*at))).collect();
        let fused_step = |at: &usize| {
            let step = &self.steps[*at];
            let (takes, gives) = (named(&step.takes), named(&step.gives));
            Some(FusedStep { name: step.name.clone(), run: step.run()?, takes, gives })
        };
        let given: BTreeSet<usize> = tensors(group.iter().flat_map(|at| &self.steps[*at].gives));
        let taken: BTreeSet<usize> = tensors(group.iter().flat_map(|at| &self.steps[*at].takes));
        let outside = self.steps.iter().enumerate().filter(|(at, _)| !group.contains(at));
        let needed: BTreeSet<usize> = tensors(outside.flat_map(|(_, step)| &step.takes));
        let gives: Vec<usize> =
            given.iter().copied().filter(|at| needed.contains(at) || self.outputs.contains(at)).collect();
        let fused = Fused {
            before: group.range(..model).filter_map(fused_step).collect(),
            takes: named(&self.steps[model].takes),
            gives: named(&self.steps[model].gives),
            after: group.range(model + 1..).filter_map(fused_step).collect(),
            outputs: gives.iter().map(|at| name(*at)).collect(),
        };
        let same = |at: usize| (name(at), at);
        Step {
            takes: taken.difference(&given).copied().map(same).collect(),
            gives: gives.into_iter().map(same).collect(),
            fused: Some(Arc::new(fused)),
            ..self.steps[model].clone()
        }
    }
}

fn tensors<'a>(pairs: impl Iterator<Item = &'a (String, usize)>) -> BTreeSet<usize> {
    pairs.map(|(_, at)| *at).collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::Written;
    use super::*;

    /// Steps as `name: x y -> z`; one in capitals is a model.
    fn pipeline(steps: &str, outputs: &str) -> Pipeline {
        let list = |names: &str| names.split_whitespace().map(|name| (name.to_owned(), name.to_owned())).collect();
        let written = steps.split(';').map(|step| {
            let (name, rest) = step.split_once(':').unwrap();
            let (inputs, outputs) = rest.split_once("->").unwrap();
            let name = name.trim().to_owned();
            let path = (name != name.to_uppercase()).then(|| match name.as_str() {
                "chunk" => r#"step:chunk{"size":1,"step":1}"#.to_owned(),
                _ => "step:softmax".to_owned(),
            });
            let (inputs, outputs) = (list(inputs), list(outputs));
            Written { model: name.clone(), name, path, inputs, outputs, ..Written::default() }
        });
        let outputs = outputs.split_whitespace().map(str::to_owned).collect();
        Pipeline::new(written.collect(), None, Some(outputs), Vec::new()).unwrap()
    }

    /// Each step with those that are fused with it: `before(model)after`, what it takes, what it gives.
    fn fused(steps: &str, outputs: &str) -> Vec<String> {
        let graph = pipeline(steps, outputs).fused(&|step, _| step != "dear");
        let names = |list: &[FusedStep]| list.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(" ");
        let tensors = |list: &[(String, usize)]| {
            list.iter().map(|(_, at)| graph.tensors[*at].as_str()).collect::<Vec<_>>().join(" ")
        };
        let shown = |step: &Step| {
            let around = step.fused.as_ref().map(|fused| (names(&fused.before), names(&fused.after)));
            let (before, after) = around.unwrap_or_default();
            format!("{before}({}){after} {} -> {}", step.name, tensors(&step.takes), tensors(&step.gives))
        };
        graph.steps.iter().map(shown).collect()
    }

    #[test]
    fn a_chain_is_one_request() {
        let chain = "a: x -> b; c: b -> d; M: d -> e; f: e -> g; h: g -> i";
        assert_eq!(fused(chain, "i"), ["a c(M)f h x -> i"]);
        // What is answered too is given too.
        assert_eq!(fused(chain, "i e"), ["a c(M)f h x -> e i"]);
        // A step whose tensor is answered runs apart, so that it runs once.
        assert_eq!(fused(chain, "i b"), ["(a) x -> b", "c(M)f h b -> i"]);
    }

    #[test]
    fn what_others_need_or_what_needs_others_stays_apart() {
        let two = "a: x -> b; M: b -> c; N: b -> d; join: c d -> e; f: c -> g";
        assert_eq!(fused(two, "e g"), ["(a) x -> b", "(M)f b -> c g", "(N) b -> d", "(join) c d -> e"]);
        let both = "M: x -> a; s: a -> b; N: b -> c; t: c -> d";
        assert_eq!(fused(both, "d"), ["(M)s x -> b", "(N)t b -> d"]);
        assert_eq!(fused("M: x -> a; chunk: a -> b; N: b -> c", "c"), ["(M) x -> a", "(chunk) a -> b", "(N) b -> c"]);
        assert_eq!(fused("M: x -> a; dear: a -> b", "b"), ["(M) x -> a", "(dear) a -> b"]);
        assert_eq!(fused("a: x -> b; c: b -> d", "d"), ["(a) x -> b", "(c) b -> d"]);
    }
}
