//! A model with the steps that a request wants before and after it.

use std::sync::Arc;

use orion_proto::{Code, Error, Fused, FusedStep, InferAnswer, ModelName, Result, Tensor};
use rayon::prelude::*;

use crate::{Model, ModelRequest, steps::StepModel};

/// The steps of a request, and the tensors that those after the model need of before.
type Kept = (Option<Arc<Fused>>, Vec<Tensor>);

/// Runs a batch, each request with its own steps. One whose steps fail is left out of the model's batch.
///
/// Computes on the rayon pool of its caller.
pub fn run_with_steps(model: &mut dyn Model, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
    if batch.iter().all(|request| request.fused.is_none()) {
        return model.run(batch);
    }
    let ready: Vec<Result<(ModelRequest, Kept)>> = batch.into_par_iter().map(before).collect();
    let mut asked = Vec::new();
    let mut take = |(request, kept): (ModelRequest, Kept)| {
        asked.push(request);
        kept
    };
    let kept: Vec<Result<Kept>> = ready.into_iter().map(|one| one.map(&mut take)).collect();
    let mut answers = model.run(asked).into_iter();
    let missing = || Err(Error::new(Code::Internal, "the model gave too few answers"));
    let mut both = |kept: Kept| (kept, answers.next().unwrap_or_else(missing));
    let answered: Vec<_> = kept.into_iter().map(|one| one.map(&mut both)).collect();
    answered.into_par_iter().map(|one| one.and_then(|(kept, answer)| after(kept, answer?))).collect()
}

/// What the model is asked, and the tensors that are known.
fn before(mut request: ModelRequest) -> Result<(ModelRequest, Kept)> {
    let Some(fused) = request.fused.clone() else { return Ok((request, (None, Vec::new()))) };
    let mut tensors = std::mem::take(&mut request.inputs);
    for step in &fused.before {
        run(step, &request, &mut tensors)?;
    }
    request.inputs = named(&fused.takes, &tensors);
    // What nothing after the model takes is not kept beside it.
    let needed = |tensor: &Tensor| {
        let taken = fused.after.iter().flat_map(|step| step.takes.iter().map(|(_, name)| name));
        taken.chain(&fused.outputs).any(|name| *name == tensor.name)
    };
    tensors.retain(needed);
    Ok((request, (Some(fused), tensors)))
}

fn after((fused, mut tensors): Kept, mut answer: InferAnswer) -> Result<InferAnswer> {
    let Some(fused) = fused else { return Ok(answer) };
    tensors.extend(renamed(&fused.gives, &answer.outputs));
    for step in &fused.after {
        run(step, &ModelRequest::default(), &mut tensors)?;
    }
    let given = fused.outputs.iter().map(|name| tensors.iter().find(|tensor| tensor.name == *name).cloned());
    let missing = || Error::new(Code::Internal, "a fused step did not give what it was to");
    answer.outputs = given.collect::<Option<Vec<_>>>().ok_or_else(missing)?;
    Ok(answer)
}

fn run(step: &FusedStep, request: &ModelRequest, tensors: &mut Vec<Tensor>) -> Result<()> {
    let in_step = |error: Error| Error { message: format!("step '{}': {}", step.name, error.message), ..error };
    let name = ModelName::new(step.name.clone())?;
    let asked = ModelRequest {
        inputs: named(&step.takes, tensors),
        given_up: request.given_up.clone(),
        ..ModelRequest::default()
    };
    let mut model = StepModel::of(&name, step.run.clone());
    let answers = model.run(vec![asked]);
    let nothing = || Err(Error::new(Code::Internal, "it gave nothing"));
    let answer = answers.into_iter().next().unwrap_or_else(nothing).map_err(in_step)?;
    tensors.extend(renamed(&step.gives, &answer.outputs));
    Ok(())
}

/// Tensors under a model's names; an optional one may not be there.
fn named(takes: &[(String, String)], tensors: &[Tensor]) -> Vec<Tensor> {
    let find = |(own, name): &(String, String)| {
        let tensor = tensors.iter().find(|tensor| tensor.name == *name)?;
        Some(Tensor { name: own.clone(), ..tensor.clone() })
    };
    takes.iter().filter_map(find).collect()
}

/// A model's outputs under the pipeline's names.
fn renamed(gives: &[(String, String)], outputs: &[Tensor]) -> Vec<Tensor> {
    let find = |(own, name): &(String, String)| {
        let tensor = outputs.iter().find(|tensor| tensor.name == *own)?;
        Some(Tensor { name: name.clone(), ..tensor.clone() })
    };
    gives.iter().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use orion_proto::{Datatype, Payload, step::Run};

    use super::*;

    fn fp32(name: &str, values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: vec![1, values.len() as i64],
            data: Payload::from(bytes),
        }
    }

    fn step(name: &str, run: &str, takes: (&str, &str), gives: (&str, &str)) -> FusedStep {
        let pair = |(own, tensor): (&str, &str)| vec![(own.to_owned(), tensor.to_owned())];
        FusedStep { name: name.into(), run: Run::of_path(run).unwrap(), takes: pair(takes), gives: pair(gives) }
    }

    #[test]
    fn each_request_has_its_own_steps_and_a_bad_one_fails_alone() {
        let mut model = StepModel::of(&ModelName::new("m").unwrap(), Run::Softmax {});
        let pair = |own: &str, tensor: &str| vec![(own.to_owned(), tensor.to_owned())];
        let fused = Fused {
            before: vec![step("first", r#"step:normalize{"mean":[1],"deviation":[1]}"#, ("x", "in"), ("y", "scaled"))],
            takes: pair("x", "scaled"),
            gives: pair("y", "shares"),
            after: vec![step("last", r#"step:top-k{"k":1}"#, ("x", "shares"), ("indices", "best"))],
            outputs: vec!["best".into(), "shares".into()],
        };
        let fused = Fused::from_json(&fused.to_json()).unwrap();
        let wrong = Fused {
            after: vec![step("last", r#"step:top-k{"k":9}"#, ("x", "shares"), ("indices", "best"))],
            ..fused.clone()
        };
        let absent =
            Fused { before: vec![step("first", "step:sigmoid", ("x", "nowhere"), ("y", "scaled"))], ..fused.clone() };
        let request = |name: &str, fused: Option<&Fused>| ModelRequest {
            inputs: vec![fp32(name, &[1.0, 1.0])],
            fused: fused.map(|fused| Arc::new(fused.clone())),
            ..ModelRequest::default()
        };
        let batch = vec![
            request("in", Some(&fused)),
            request("x", None),
            request("in", Some(&wrong)),
            request("in", Some(&absent)),
        ];
        let answers = run_with_steps(&mut model, batch);
        let outputs = &answers[0].as_ref().unwrap().outputs;
        assert_eq!(outputs[1], fp32("shares", &[0.5, 0.5]));
        assert_eq!((outputs[0].name.as_str(), outputs[0].data.contiguous().as_ref()), ("best", [0; 8].as_slice()));
        assert_eq!(answers[1].as_ref().unwrap().outputs, [fp32("y", &[0.5, 0.5])]);
        for (at, words) in [(2, "step 'last': input 'x' has shape [1, 2]"), (3, "step 'first': input 'x'")] {
            let error = answers[at].as_ref().unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
    }
}
