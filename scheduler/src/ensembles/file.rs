//! `ensemble.toml`: how an owner writes an ensemble.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use orion_proto::{Code, Error, ModelName, Result, step::Run};
use serde::Deserialize;

use super::{
    Combine, Committee, Ensemble, Form, MOST_REQUESTS, Member,
    graph::{Pipeline, Written},
    triton,
};

/// The file that makes a folder an ensemble.
const FILE: &str = "ensemble.toml";
/// Triton's file, which does so where it says `ensemble_scheduling`.
const TRITON: &str = "config.pbtxt";
/// Bytes of such a file.
const MOST_BYTES: u64 = 1 << 20;
const MOST_MEMBERS: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    #[serde(default)]
    family: String,
    max_requests: Option<usize>,
    inputs: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
    #[serde(default)]
    step: Vec<StepToml>,
    committee: Option<CommitteeToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepToml {
    name: Option<String>,
    model: Option<String>,
    run: Option<String>,
    #[serde(default)]
    with: BTreeMap<String, toml::Value>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitteeToml {
    members: Vec<MemberToml>,
    combine: String,
    #[serde(default)]
    output: String,
    quorum: Option<usize>,
    wait_ms: Option<u64>,
    stack: Option<StackToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StackToml {
    model: String,
    #[serde(default)]
    input: String,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum MemberToml {
    Name(String),
    Weighted { model: String, weight: f32 },
}

/// The ensemble that lies at a path; none where something else does.
///
/// # Errors
/// INVALID_ARGUMENT naming the file and what is wrong in it; FAILED_PRECONDITION where it cannot be read.
pub(crate) fn read(name: &ModelName, path: &Path) -> Result<Option<Ensemble>> {
    let own = |path: &Path| path.file_name().is_some_and(|name| name == FILE);
    let file = match () {
        () if path.is_file() && path.extension().is_some_and(|kind| kind == "toml") => path.to_owned(),
        () if path.join(FILE).is_file() => path.join(FILE),
        () if path.join(TRITON).is_file() => path.join(TRITON),
        () => return Ok(None),
    };
    let text = text_of(&file)?;
    let read = match own(&file) || file.extension().is_some_and(|kind| kind == "toml") {
        true => from_toml(name, &text, file.parent().unwrap_or(path)).map(Some),
        false => triton::from_text(name, &text),
    };
    read.map_err(|error| Error::new(error.code, format!("ensemble '{name}', {}: {}", file.display(), error.message)))
}

fn text_of(file: &PathBuf) -> Result<String> {
    let unreadable = |error: std::io::Error| {
        Error::new(Code::FailedPrecondition, format!("cannot read {}: {error}", file.display()))
    };
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > MOST_BYTES {
        let text = format!("{} has {bytes} bytes, at most {MOST_BYTES} are read", file.display());
        return Err(Error::new(Code::FailedPrecondition, text));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

/// `folder`: where the files lie that steps name.
fn from_toml(name: &ModelName, text: &str, folder: &Path) -> Result<Ensemble> {
    let read: Toml = toml::from_str(text).map_err(|error| Error::invalid(error.to_string().trim_end().to_owned()))?;
    let form = match (read.committee, read.step) {
        (Some(committee), steps) if steps.is_empty() && read.inputs.is_none() && read.outputs.is_none() => {
            Form::Committee(committee.checked()?)
        }
        (None, steps) if !steps.is_empty() => {
            let steps = steps
                .into_iter()
                .enumerate()
                .map(|(at, step)| step.written((name, folder), at))
                .collect::<Result<_>>()?;
            Form::Pipeline(Pipeline::new(steps, read.inputs, read.outputs, Vec::new())?)
        }
        _ => return Err(Error::invalid("it must have either [[step]]s, or one [committee] and no inputs or outputs")),
    };
    let most_requests = read.max_requests.unwrap_or(MOST_REQUESTS);
    if most_requests == 0 {
        return Err(Error::invalid("max_requests is 0, it must be 1 or more"));
    }
    Ok(Ensemble { name: name.clone(), family: read.family, most_requests, form })
}

impl StepToml {
    fn written(self, (ensemble, folder): (&ModelName, &Path), at: usize) -> Result<Written> {
        let what = |step: &Self| step.name.clone().unwrap_or_else(|| format!("{}", at + 1));
        let (inputs, outputs) = (self.inputs.clone().into_iter().collect(), self.outputs.clone().into_iter().collect());
        match (&self.model, &self.run) {
            (Some(model), None) if self.with.is_empty() => {
                let name = self.name.clone().unwrap_or_else(|| model.clone());
                Ok(Written { name, model: model.clone(), inputs, outputs, ..Written::default() })
            }
            (None, Some(run)) => {
                let name = self.name.clone().unwrap_or_else(|| run.clone());
                let with = serde_json::to_value(&self.with).map_err(|error| Error::invalid(error.to_string()))?;
                let step = Run::new(run, with).map_err(|error| Error::invalid(format!("step '{name}': {error}")))?;
                let step = step.within(folder);
                // Its name says whose it is.
                let model = format!("{ensemble}.{name}");
                Ok(Written { model, name, path: Some(step.path()), inputs, outputs, ..Written::default() })
            }
            _ => Err(Error::invalid(format!(
                "step {} must have either model = \"NAME\", or run = \"STEP\" and with = {{ … }} for what the step takes",
                what(&self)
            ))),
        }
    }
}

impl CommitteeToml {
    fn checked(self) -> Result<Committee> {
        let members = self.members.into_iter().map(MemberToml::checked).collect::<Result<Vec<_>>>()?;
        if members.len() < 2 || members.len() > MOST_MEMBERS {
            let count = members.len();
            return Err(Error::invalid(format!("it has {count} members, it must have 2 to {MOST_MEMBERS}")));
        }
        let quorum = self.quorum.unwrap_or(members.len());
        if !(1..=members.len()).contains(&quorum) {
            let count = members.len();
            return Err(Error::invalid(format!("quorum is {quorum}, it must be 1 to {count}: it has so many members")));
        }
        let combine = match (self.combine.as_str(), self.stack) {
            ("mean", None) => Combine::Mean,
            ("vote", None) => Combine::Vote,
            ("best", None) => Combine::Best,
            // What a model was trained on are the answers of all.
            ("stacking", Some(_)) if quorum < members.len() => {
                return Err(Error::invalid("stacking needs all members' answers, leave quorum out"));
            }
            ("stacking", Some(stack)) => Combine::Stacking { model: ModelName::new(stack.model)?, input: stack.input },
            ("stacking", None) => return Err(Error::invalid("stacking needs stack = { model = \"NAME\" }")),
            ("mean" | "vote" | "best", Some(_)) => {
                return Err(Error::invalid("stack is there, and combine is not \"stacking\""));
            }
            (other, _) => {
                let other = other.escape_default();
                return Err(Error::invalid(format!(
                    "combine is \"{other}\", it must be mean, vote, best or stacking (weights of members make mean and vote weighted)"
                )));
            }
        };
        let wait = Duration::from_millis(self.wait_ms.unwrap_or(0));
        Ok(Committee { members, combine, output: self.output, quorum, wait })
    }
}

impl MemberToml {
    fn checked(self) -> Result<Member> {
        let (model, weight) = match self {
            Self::Name(model) => (model, 1.0),
            Self::Weighted { model, weight } => (model, weight),
        };
        if !(weight.is_finite() && weight > 0.0) {
            return Err(Error::invalid(format!("the weight of member '{model}' is {weight}, it must be above 0")));
        }
        Ok(Member { model: ModelName::new(model)?, weight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Ensemble> {
        from_toml(&ModelName::new("e").unwrap(), text, Path::new("/models/e"))
    }

    #[test]
    fn a_pipeline_names_models_and_brings_steps() {
        let text = r#"
            family = "text-classification"
            outputs = ["label", "e"]
            [[step]]
            model = "minilm"
            inputs = { text = "text" }
            outputs = { embedding = "e" }
            [[step]]
            run = "top-k"
            with = { k = 5, labels = ["a", "b"] }
            inputs = { x = "e" }
            outputs = { indices = "label" }
        "#;
        let ensemble = toml(text).unwrap();
        assert_eq!(ensemble.parts(), ["minilm", "e.top-k"]);
        let steps: Vec<_> = ensemble.own_steps().map(|(name, path)| format!("{name} {path}")).collect();
        assert_eq!(steps, [r#"e.top-k step:top-k{"k":5,"labels":["a","b"]}"#]);
        assert_eq!((ensemble.family.as_str(), ensemble.most_requests), ("text-classification", MOST_REQUESTS));
    }

    #[test]
    fn a_committee_is_checked() {
        let members = "[committee]\nmembers = [\"a\", { model = \"b\", weight = 2.0 }]\n";
        let good = toml(&format!("{members}combine = \"mean\"\nquorum = 1\nwait_ms = 5")).unwrap();
        let Form::Committee(committee) = &good.form else { panic!("{good:?}") };
        assert_eq!((committee.members[1].weight, committee.quorum), (2.0, 1));
        assert_eq!(committee.wait, Duration::from_millis(5));
        for (rest, words) in [
            ("combine = \"sum\"", "it must be mean, vote, best or stacking"),
            ("combine = \"mean\"\nquorum = 3", "quorum is 3, it must be 1 to 2"),
            ("combine = \"stacking\"", "stacking needs stack"),
            ("combine = \"stacking\"\nquorum = 1\nstack = { model = \"s\" }", "leave quorum out"),
            ("combine = \"vote\"\nstack = { model = \"s\" }", "combine is not \"stacking\""),
            ("combine = \"vote\"\nquroum = 1", "unknown field `quroum`"),
        ] {
            let error = toml(&format!("{members}{rest}")).unwrap_err();
            assert!(error.message.contains(words), "{rest}: {error}");
        }
        for (text, words) in [
            ("", "either [[step]]s, or one [committee]"),
            ("[committee]\nmembers = [\"a\"]\ncombine = \"mean\"", "it must have 2 to 64"),
            ("[committee]\nmembers = [\"a\", { model = \"b\", weight = -1.0 }]\ncombine = \"mean\"", "above 0"),
            ("[[step]]\ninputs = { a = \"b\" }", "step 1 must have either model"),
            ("max_requests = 0\n[[step]]\nmodel = \"m\"\ninputs = { a = \"b\" }\noutputs = { c = \"d\" }", "1 or more"),
        ] {
            let error = toml(text).unwrap_err();
            assert!(error.message.contains(words), "{text}: {error}");
        }
    }
}
