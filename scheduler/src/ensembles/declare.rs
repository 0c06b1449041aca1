//! What an ensemble takes and gives, from what its parts declare.

use std::sync::Arc;

use orion_proto::{Code, Datatype, Error, ModelPolicy, ModelSpec, Result, TensorSpec};

use super::{Combine, Committee, Declared, Ensemble, Form, Fuses, Pipeline, graph::Step, shown};

/// How much the members of a committee differ: FP32, one a row.
pub(super) const DISAGREEMENT: &str = "disagreement";
/// How many of them answered: INT32, one a row.
pub(super) const ANSWERED: &str = "answered";
/// The family of an ensemble that is none of its members'.
const FAMILY: &str = "ensemble";

impl Ensemble {
    /// Its declaration.
    ///
    /// # Errors
    /// As of a part that is not there; FAILED_PRECONDITION naming the tensor by which two parts do not fit.
    pub(crate) fn declare(&self, declared: Declared<'_>) -> Result<ModelSpec> {
        let spec = match &self.form {
            Form::Pipeline(pipeline) => pipeline.declare(self, declared),
            Form::Committee(committee) => committee.declare(self, declared),
        };
        spec.map_err(|error| Error { message: format!("ensemble '{}': {}", self.name, error.message), ..error })
    }

    fn spec(
        &self,
        parts: &[Arc<ModelSpec>],
        family: &str,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> ModelSpec {
        let family = if self.family.is_empty() { family } else { &self.family };
        ModelSpec {
            name: self.name.clone(),
            version: "1".into(),
            family: family.into(),
            inputs,
            outputs,
            max_batch_rows: parts.iter().map(|part| part.max_batch_rows).min().unwrap_or(1),
            memory_bytes: 0,
            inline: false,
            policy: ModelPolicy::default(),
            generator: None,
        }
    }
}

fn unfit(message: String) -> Error {
    Error::new(Code::FailedPrecondition, message)
}

fn known(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What two declarations of one tensor allow; none where they exclude each other.
fn both(one: &TensorSpec, other: &TensorSpec) -> Option<TensorSpec> {
    if one.datatype != other.datatype {
        return None;
    }
    if one.any_shape() || other.any_shape() {
        let shape = if one.any_shape() { &other.shape } else { &one.shape };
        return Some(TensorSpec { shape: shape.clone(), ..one.clone() });
    }
    let fit = |(one, other): (&i64, &i64)| match (*one, *other) {
        (any, size) | (size, any) if any < 0 => Some(size),
        (one, other) => (one == other).then_some(one),
    };
    let same_rank = one.shape.len() == other.shape.len();
    let shape = same_rank.then(|| one.shape.iter().zip(&other.shape).map(fit).collect::<Option<Vec<_>>>())??;
    Some(TensorSpec { shape, ..one.clone() })
}

/// The declaration of a step that a pipeline brings, with what is known of the shapes of what it gives.
fn known_shapes(step: &Step, spec: Arc<ModelSpec>, tensors: &[Option<(TensorSpec, &str)>]) -> Arc<ModelSpec> {
    let x = step.takes.iter().find(|(own, _)| own == "x").and_then(|(_, at)| tensors[*at].as_ref());
    let (Some(run), Some((x, _))) = (step.run(), x.filter(|(x, _)| !x.any_shape())) else { return spec };
    let Some(shape) = run.shape(&x.shape) else { return spec };
    let mut spec = ModelSpec::clone(&spec);
    spec.outputs.iter_mut().for_each(|output| output.shape.clone_from(&shape));
    Arc::new(spec)
}

/// What is known of a pipeline's parts, and of its tensors.
struct Tensors {
    parts: Vec<Arc<ModelSpec>>,
    specs: Vec<TensorSpec>,
}

impl Pipeline {
    fn declare(&self, of: &Ensemble, declared: Declared<'_>) -> Result<ModelSpec> {
        let Tensors { parts, specs } = self.tensors(declared)?;
        let inputs = self.inputs.iter().map(|at| specs[*at].clone()).collect();
        let outputs = self.outputs.iter().map(|at| TensorSpec { optional: false, ..specs[*at].clone() });
        Ok(of.spec(&parts, FAMILY, inputs, outputs.collect()))
    }

    /// The pipeline as it is run, and what each step with others takes and gives.
    pub(crate) fn prepare(
        &self,
        declared: Declared<'_>,
        fuses: Fuses<'_>,
    ) -> Result<(Self, Vec<Option<Arc<ModelSpec>>>)> {
        let Tensors { specs, .. } = self.tensors(declared)?;
        let pipeline = self.fused(fuses);
        let of_step = |step: &Step| {
            if step.fused.is_none() {
                return Ok(None);
            }
            let named = |pairs: &[(String, usize)]| pairs.iter().map(|(_, at)| specs[*at].clone()).collect();
            let spec = ModelSpec {
                inputs: named(&step.takes),
                outputs: named(&step.gives),
                ..(*declared(step.model.as_str())?).clone()
            };
            Ok(Some(Arc::new(spec)))
        };
        let of_steps = pipeline.steps.iter().map(of_step).collect::<Result<_>>()?;
        Ok((pipeline, of_steps))
    }

    fn tensors(&self, declared: Declared<'_>) -> Result<Tensors> {
        let mut parts = Vec::with_capacity(self.steps.len());
        // What is known of each tensor, and from whom.
        let mut tensors: Vec<Option<(TensorSpec, &str)>> = vec![None; self.tensors.len()];
        // Of the inputs: whether all that take it can do without.
        let mut optional = vec![true; self.tensors.len()];
        for step in &self.steps {
            let spec = declared(step.model.as_str())
                .map_err(|error| Error { message: format!("step '{}': {}", step.name, error.message), ..error })?;
            if !step.version.is_empty() && step.version != spec.version {
                let (name, model, version, wanted) = (&step.name, &step.model, &spec.version, &step.version);
                let text = format!("step '{name}': model '{model}' has the version '{version}', not '{wanted}'");
                return Err(Error::new(Code::NotFound, text));
            }
            let spec = known_shapes(step, spec, &tensors);
            let ends = [(&step.takes, &spec.inputs, "input"), (&step.gives, &spec.outputs, "output")];
            for (mapped, own, what) in ends {
                for (name, at) in mapped {
                    let found = own.iter().find(|spec| spec.name == *name).ok_or_else(|| {
                        let (model, known) = (&step.model, known(own));
                        unfit(format!("step '{}': model '{model}' has no {what} '{name}', it has: {known}", step.name))
                    })?;
                    optional[*at] &= what == "input" && found.optional;
                    self.meet(&mut tensors[*at], *at, found, &step.name)?;
                }
            }
            let brought = |name: &str| step.takes.iter().any(|(own, _)| own == name);
            if let Some(missing) = spec.inputs.iter().find(|input| !input.optional && !brought(&input.name)) {
                let (model, missing) = (&step.model, &missing.name);
                return Err(unfit(format!("step '{}' does not bring input '{missing}' of model '{model}'", step.name)));
            }
            parts.push(spec);
        }
        for owners in &self.declared {
            if let Some(at) = self.tensors.iter().position(|name| *name == owners.name) {
                optional[at] |= owners.optional;
                self.meet(&mut tensors[at], at, owners, "its own declaration")?;
            }
        }
        // Each tensor is given or taken by a step, so each is known.
        let specs = tensors.into_iter().enumerate().filter_map(|(at, known)| {
            let (spec, _) = known?;
            Some(TensorSpec { name: self.tensors[at].clone(), optional: optional[at], ..spec })
        });
        Ok(Tensors { parts, specs: specs.collect() })
    }

    fn meet<'a>(
        &self,
        known: &mut Option<(TensorSpec, &'a str)>,
        at: usize,
        spec: &TensorSpec,
        by: &'a str,
    ) -> Result<()> {
        let Some((earlier, from)) = known.take() else {
            *known = Some((spec.clone(), by));
            return Ok(());
        };
        let fits = both(&earlier, spec).ok_or_else(|| {
            let tensor = &self.tensors[at];
            unfit(format!("tensor '{tensor}' is {} by {from}, {} by {by}", shown(&earlier), shown(spec)))
        })?;
        *known = Some((fits, from));
        Ok(())
    }
}

impl Committee {
    /// The output that is combined, as one member declares it.
    pub(crate) fn output_of<'a>(&self, spec: &'a ModelSpec) -> Result<&'a TensorSpec> {
        let found = match (self.output.as_str(), spec.outputs.as_slice()) {
            ("", [only]) => Some(only),
            ("", _) => None,
            (name, outputs) => outputs.iter().find(|output| output.name == name),
        };
        found.ok_or_else(|| {
            let (name, known) = (&spec.name, known(&spec.outputs));
            unfit(match self.output.as_str() {
                "" => format!("member '{name}' has the outputs {known}, say which one is combined: output = \"…\""),
                output => format!("member '{name}' has no output '{output}', it has: {known}"),
            })
        })
    }

    fn declare(&self, of: &Ensemble, declared: Declared<'_>) -> Result<ModelSpec> {
        let known: Vec<Result<Arc<ModelSpec>>> =
            self.members.iter().map(|member| declared(member.model.as_str())).collect();
        let there = known.iter().filter(|member| member.is_ok()).count();
        // As many as are enough may answer while the others are not there yet.
        let members: Vec<Arc<ModelSpec>> = match there >= self.quorum {
            true => known.into_iter().flatten().collect(),
            false => known.into_iter().collect::<Result<_>>()?,
        };
        let first = &members[0];
        let mut inputs = first.inputs.clone();
        let mut output = self.output_of(first)?.clone();
        for other in &members[1..] {
            self.meet_member(&mut inputs, &mut output, first, other)?;
        }
        if !inputs
            .iter()
            .chain([&output])
            .all(|spec| spec.any_shape() || spec.shape.first().is_some_and(|size| *size < 0))
        {
            return Err(unfit(format!("member '{}' has no rows, which is what answers are combined by", first.name)));
        }
        let float = matches!(output.datatype, Datatype::Fp32 | Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp64);
        if !float && self.combine != Combine::Vote {
            let text = format!("output '{}' is {}, which can be combined by vote alone", output.name, output.datatype);
            return Err(unfit(text));
        }
        let mut parts = members.clone();
        let mut outputs = match &self.combine {
            Combine::Mean | Combine::Best => vec![TensorSpec { datatype: Datatype::Fp32, ..output }],
            // The class of each row, or what most say.
            Combine::Vote if float => vec![TensorSpec { datatype: Datatype::Int64, shape: vec![-1], ..output }],
            Combine::Vote => vec![output],
            Combine::Stacking { model, input } => {
                let stacks = declared(model.as_str())?;
                let takes = stacking_input(&stacks, input)?;
                if takes.datatype != Datatype::Fp32 {
                    let text = format!("model '{model}' stacks {}, it must be FP32", shown(takes));
                    return Err(unfit(text));
                }
                let outputs = stacks.outputs.clone();
                parts.push(stacks);
                outputs
            }
        };
        outputs.push(TensorSpec::new(DISAGREEMENT, Datatype::Fp32, [-1]));
        outputs.push(TensorSpec::new(ANSWERED, Datatype::Int32, [-1]));
        let same = members.iter().all(|member| member.family == first.family);
        let family = if same && self.combine == Combine::Mean { &first.family } else { FAMILY };
        Ok(of.spec(&parts, family, inputs, outputs))
    }

    fn meet_member(
        &self,
        inputs: &mut [TensorSpec],
        output: &mut TensorSpec,
        first: &ModelSpec,
        other: &ModelSpec,
    ) -> Result<()> {
        let differ = |what: &str, one: &TensorSpec, two: &TensorSpec| {
            let (of, than) = (&other.name, &first.name);
            unfit(format!("{what} '{}' is {} for member '{than}', {} for '{of}'", one.name, shown(one), shown(two)))
        };
        let theirs = |name: &str| other.inputs.iter().find(|input| input.name == name);
        for input in inputs.iter_mut() {
            let Some(same) = theirs(&input.name) else {
                return Err(unfit(format!(
                    "member '{}' has no input '{}', '{}' has",
                    other.name, input.name, first.name
                )));
            };
            let optional = input.optional && same.optional;
            let fits = both(input, same).ok_or_else(|| differ("input", input, same))?;
            *input = TensorSpec { optional, ..fits };
        }
        let more = other.inputs.iter().find(|input| !input.optional && inputs.iter().all(|own| own.name != input.name));
        if let Some(more) = more {
            return Err(unfit(format!(
                "member '{}' has an input '{}', '{}' has none",
                other.name, more.name, first.name
            )));
        }
        let same = self.output_of(other)?;
        // Votes may be cast in other types, shares of the same classes must be as many.
        *output = both(output, same).ok_or_else(|| differ("output", output, same))?;
        Ok(())
    }
}

/// The input of a stacking model that answers go to.
pub(crate) fn stacking_input<'a>(stacks: &'a ModelSpec, input: &str) -> Result<&'a TensorSpec> {
    let found = match (input, stacks.inputs.as_slice()) {
        ("", [only]) => Some(only),
        ("", _) => None,
        (name, inputs) => inputs.iter().find(|spec| spec.name == name),
    };
    found.ok_or_else(|| {
        let (name, known) = (&stacks.name, known(&stacks.inputs));
        unfit(format!(
            "model '{name}' has the inputs {known}, say which one stacks: stack = {{ model, input = \"…\" }}"
        ))
    })
}
