//! The graph of a pipeline: which step gives which tensor, and which take it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use orion_proto::{Error, Fused, ModelName, Result, TensorSpec, step::Run, valid_name};

/// Steps and tensors of one pipeline at most.
const MOST_STEPS: usize = 64;
const MOST_TENSORS: usize = 512;
const NAME_BYTES: usize = 128;

/// Models and steps over named tensors; a tensor is meant by its number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pipeline {
    pub(crate) tensors: Vec<String>,
    /// Tensors that a request brings.
    pub(crate) inputs: Vec<usize>,
    /// Tensors that are answered.
    pub(crate) outputs: Vec<usize>,
    /// Each after those whose tensors it takes.
    pub(crate) steps: Vec<Step>,
    /// What its owner declares of inputs and outputs; what is not declared follows from the steps.
    pub(crate) declared: Vec<TensorSpec>,
}

/// One model of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) model: ModelName,
    /// Empty: the newest.
    pub(crate) version: String,
    /// Where the model lies, if the pipeline brings it.
    pub(crate) path: Option<String>,
    /// Its inputs, and the tensors that they are.
    pub(crate) takes: Vec<(String, usize)>,
    /// Its outputs, and the tensors that they become.
    pub(crate) gives: Vec<(String, usize)>,
    /// Steps that run with it; what it takes and gives are tensors of the pipeline under their own names then.
    pub(crate) fused: Option<Arc<Fused>>,
}

impl Step {
    /// What it does, if the pipeline brings it.
    pub(super) fn run(&self) -> Option<Run> {
        Run::of_path(self.path.as_deref()?).ok()
    }
}

/// A step as its owner writes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) model: String,
    pub(super) version: String,
    pub(super) path: Option<String>,
    /// Input or output of the model, and the tensor.
    pub(super) inputs: Vec<(String, String)>,
    pub(super) outputs: Vec<(String, String)>,
}

impl Pipeline {
    /// The graph of these steps. `inputs` and `outputs` name its tensors in their order; none: what no step gives, and what no
    /// step takes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the step or tensor that is wrong.
    pub(super) fn new(
        written: Vec<Written>,
        inputs: Option<Vec<String>>,
        outputs: Option<Vec<String>>,
        declared: Vec<TensorSpec>,
    ) -> Result<Self> {
        if written.is_empty() || written.len() > MOST_STEPS {
            let count = written.len();
            return Err(Error::invalid(format!("it has {count} steps, it must have 1 to {MOST_STEPS}")));
        }
        let mut numbers = Numbers::default();
        let mut steps: Vec<Step> = Vec::with_capacity(written.len());
        for step in written {
            if steps.iter().any(|other| other.name == step.name) {
                return Err(Error::invalid(format!("step '{}' is there twice, give one another name", step.name)));
            }
            steps.push(numbers.step(step)?);
        }
        let Numbers { names, .. } = &numbers;
        let given: BTreeSet<usize> = steps.iter().flat_map(|step| step.gives.iter().map(|(_, at)| *at)).collect();
        let taken: BTreeSet<usize> = steps.iter().flat_map(|step| step.takes.iter().map(|(_, at)| *at)).collect();
        let brought: Vec<usize> = (0..names.len()).filter(|at| !given.contains(at)).collect();
        let inputs = match inputs {
            None => brought,
            Some(listed) => {
                let listed = numbers.find("input", listed)?;
                if let Some(at) = listed.iter().find(|at| given.contains(at)) {
                    return Err(Error::invalid(format!("input '{}' is given by a step too", names[*at])));
                }
                if let Some(at) = brought.iter().find(|at| !listed.contains(at)) {
                    let text = format!("tensor '{}' is given by no step and is no input", names[*at]);
                    return Err(Error::invalid(text));
                }
                listed
            }
        };
        let outputs = match outputs {
            None => (0..names.len()).filter(|at| given.contains(at) && !taken.contains(at)).collect(),
            Some(listed) => numbers.find("output", listed)?,
        };
        let mut pipeline = Self { tensors: numbers.names, inputs, outputs, steps, declared };
        pipeline.check()?;
        pipeline.sort()?;
        Ok(pipeline)
    }

    fn check(&self) -> Result<()> {
        let name = |at: usize| &self.tensors[at];
        let mut by: BTreeMap<usize, &str> = BTreeMap::new();
        for step in &self.steps {
            for (_, at) in &step.gives {
                if let Some(other) = by.insert(*at, &step.name) {
                    let (tensor, step) = (name(*at), &step.name);
                    return Err(Error::invalid(format!("tensor '{tensor}' is given by '{other}' and by '{step}'")));
                }
            }
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            let missing = if self.inputs.is_empty() { "input" } else { "output" };
            return Err(Error::invalid(format!(
                "it has no {missing}: each of its tensors is given and taken by steps"
            )));
        }
        if let Some(at) = self.outputs.iter().find(|at| !by.contains_key(at)) {
            return Err(Error::invalid(format!("output '{}' is given by no step", name(*at))));
        }
        Ok(())
    }

    fn sort(&mut self) -> Result<()> {
        let mut known: BTreeSet<usize> = self.inputs.iter().copied().collect();
        let mut left = std::mem::take(&mut self.steps);
        while !left.is_empty() {
            let runs = |step: &mut Step| step.takes.iter().all(|(_, at)| known.contains(at));
            let ready: Vec<Step> = left.extract_if(.., runs).collect();
            if ready.is_empty() {
                let names: Vec<&str> = left.iter().map(|step| step.name.as_str()).collect();
                return Err(Error::invalid(format!("steps wait for each other: {}", names.join(", "))));
            }
            known.extend(ready.iter().flat_map(|step| step.gives.iter().map(|(_, at)| *at)));
            self.steps.extend(ready);
        }
        Ok(())
    }

    /// The steps that these tensors need.
    pub(crate) fn needed(&self, tensors: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<usize> = tensors.collect();
        while let Some(tensor) = open.pop() {
            let gives = |step: &Step| step.gives.iter().any(|(_, at)| *at == tensor);
            let Some(step) = self.steps.iter().position(gives) else { continue };
            if needed.insert(step) {
                open.extend(self.steps[step].takes.iter().map(|(_, at)| *at));
            }
        }
        needed
    }
}

#[derive(Default)]
struct Numbers {
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl Numbers {
    fn of(&mut self, name: String) -> Result<usize> {
        if let Some(number) = self.numbers.get(&name) {
            return Ok(*number);
        }
        if name.is_empty() || name.len() > NAME_BYTES || self.names.len() == MOST_TENSORS {
            let text =
                format!("a tensor's name must have 1 to {NAME_BYTES} bytes, and there are {MOST_TENSORS} at most");
            return Err(Error::invalid(text));
        }
        self.names.push(name.clone());
        self.numbers.insert(name, self.names.len() - 1);
        Ok(self.names.len() - 1)
    }

    fn step(&mut self, written: Written) -> Result<Step> {
        let Written { name, model, version, path, inputs, outputs } = written;
        let in_step = |error: Error| Error::invalid(format!("step '{name}': {}", error.message));
        if !valid_name(&name) {
            return Err(Error::invalid(format!("step '{}' needs a name like a model's", name.escape_default())));
        }
        if inputs.is_empty() || outputs.is_empty() {
            let what =
                if inputs.is_empty() { "takes no tensor, give it inputs" } else { "gives none, give it outputs" };
            return Err(Error::invalid(format!("step '{name}' {what} = {{ THE_MODELS = \"tensor\" }}")));
        }
        let model = ModelName::new(model).map_err(in_step)?;
        let mut number = |pairs: Vec<(String, String)>| {
            pairs.into_iter().map(|(own, tensor)| Ok((own, self.of(tensor)?))).collect::<Result<Vec<_>>>()
        };
        let (takes, gives) = (number(inputs).map_err(in_step)?, number(outputs).map_err(in_step)?);
        Ok(Step { name, model, version, path, takes, gives, fused: None })
    }

    fn find(&self, what: &str, listed: Vec<String>) -> Result<Vec<usize>> {
        let mut found = Vec::with_capacity(listed.len());
        for name in listed {
            let unknown = || Error::invalid(format!("{what} '{}' is a tensor of no step", name.escape_default()));
            let number = *self.numbers.get(&name).ok_or_else(unknown)?;
            if found.contains(&number) {
                return Err(Error::invalid(format!("{what} '{name}' is listed twice")));
            }
            found.push(number);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps as `a: x y -> z`, each a model of its name.
    fn pipeline(steps: &str, outputs: Option<&str>) -> Result<Pipeline> {
        let list = |names: &str| names.split_whitespace().map(|name| (name.to_owned(), name.to_owned())).collect();
        let written = steps.split(';').map(|step| {
            let (name, rest) = step.split_once(':').unwrap();
            let (inputs, outputs) = rest.split_once("->").unwrap();
            let name = name.trim().to_owned();
            let (inputs, outputs) = (list(inputs), list(outputs));
            Written { model: name.clone(), name, inputs, outputs, ..Written::default() }
        });
        let outputs = outputs.map(|names| names.split_whitespace().map(str::to_owned).collect());
        Pipeline::new(written.collect(), None, outputs, Vec::new())
    }

    #[test]
    fn inputs_and_outputs_follow_from_the_steps() {
        let graph = pipeline("b: y -> z; a: x -> y w; c: x -> v", None).unwrap();
        let names = |list: &[usize]| list.iter().map(|at| graph.tensors[*at].as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!((names(&graph.inputs), names(&graph.outputs)), ("x".into(), "z w v".into()));
        let needed = |name: &str| {
            let at = graph.tensors.iter().position(|tensor| tensor == name);
            graph.needed(at.into_iter()).into_iter().map(|step| graph.steps[step].name.as_str()).collect::<String>()
        };
        assert_eq!((needed("z"), needed("v"), needed("w")), ("ab".into(), "c".into(), "a".into()));
        assert!(pipeline("b: y -> z; a: x -> y", Some("y z")).is_ok_and(|graph| graph.outputs.len() == 2));
    }

    #[test]
    fn what_is_no_graph_is_refused_by_name() {
        for (steps, outputs, words) in [
            ("a: x -> y; b: x -> y", None, "tensor 'y' is given by 'a' and by 'b'"),
            ("a: x q -> y; b: y -> q z", None, "steps wait for each other: a, b"),
            ("a: x -> y; a: y -> z", None, "step 'a' is there twice"),
            ("a: x ->", None, "step 'a' gives none"),
            ("a: -> x", None, "step 'a' takes no tensor"),
            ("a b: x -> y", None, "needs a name"),
            ("a: x -> y", Some("q"), "output 'q' is a tensor of no step"),
            ("a: x -> y", Some("x"), "output 'x' is given by no step"),
            ("a: x -> y", Some("y y"), "listed twice"),
            ("a: x -> x", None, "it has no input"),
        ] {
            let error = pipeline(steps, outputs).unwrap_err();
            assert!(error.message.contains(words), "{steps}: {error}");
        }
    }
}
