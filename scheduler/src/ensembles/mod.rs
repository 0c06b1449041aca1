//! Several models that answer as one: pipelines, which are graphs of models and steps, and committees, whose members answer the
//! same question. To clients an ensemble is a model; each of its parts is a request of its own to the scheduler, which batches,
//! places, retries and refuses it like any other.

mod combine;
mod committee;
mod declare;
mod file;
mod fuse;
mod graph;
mod numbers;
mod pipeline;
mod registry;
mod triton;

use orion_proto::{ModelName, TensorSpec};

pub(crate) use combine::combine;
pub(crate) use committee::{Ballot, members_time};
pub(crate) use declare::stacking_input;
pub(crate) use file::read;
pub(crate) use fuse::Fuses;
pub(crate) use graph::{Pipeline, Step};
pub(crate) use pipeline::Flow;
pub(crate) use registry::{Ensembles, Entry, Prepared};

/// Ensembles within ensembles.
pub(crate) const DEEPEST: usize = 8;
/// Requests to one ensemble that are under way at once, where it does not say.
const MOST_REQUESTS: usize = 1024;

/// What an ensemble is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ensemble {
    pub(crate) name: ModelName,
    /// The family that it is served as; empty: its members', or `ensemble`.
    pub(crate) family: String,
    /// Requests that are under way at once at most.
    pub(crate) most_requests: usize,
    pub(crate) form: Form,
}

/// How its parts are put together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    Pipeline(Pipeline),
    Committee(Committee),
}

/// Models that are asked the same.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Committee {
    pub(crate) members: Vec<Member>,
    pub(crate) combine: Combine,
    /// The output that is combined; empty: the only one.
    pub(crate) output: String,
    /// Answers that are enough.
    pub(crate) quorum: usize,
    /// How long the others are waited for once there are enough, within the request's deadline.
    pub(crate) wait: std::time::Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) model: ModelName,
    pub(crate) weight: f32,
}

/// How answers become one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Combine {
    /// The mean, by the members' weights.
    Mean,
    /// For each row what most members say: the class with the greatest value, or the value itself where it is text or whole.
    Vote,
    /// For each row the answer of the member that is surest of its class.
    Best,
    /// What another model makes of all answers, side by side along the last dimension.
    Stacking { model: ModelName, input: String },
}

impl Ensemble {
    /// The models that it asks, in order, without repetition.
    pub(crate) fn parts(&self) -> Vec<&str> {
        let mut parts: Vec<&str> = match &self.form {
            Form::Pipeline(pipeline) => pipeline.steps.iter().map(|step| step.model.as_str()).collect(),
            Form::Committee(committee) => committee.models().collect(),
        };
        let mut seen = std::collections::BTreeSet::new();
        parts.retain(|part| seen.insert(*part));
        parts
    }

    /// The steps that it brings itself: names under which they are served, and their paths.
    pub(crate) fn own_steps(&self) -> impl Iterator<Item = (&ModelName, &str)> {
        let steps = match &self.form {
            Form::Pipeline(pipeline) => pipeline.steps.as_slice(),
            Form::Committee(_) => &[],
        };
        steps.iter().filter_map(|step| Some((&step.model, step.path.as_deref()?)))
    }
}

impl Committee {
    fn models(&self) -> impl Iterator<Item = &str> {
        let stacks = match &self.combine {
            Combine::Stacking { model, .. } => Some(model.as_str()),
            Combine::Mean | Combine::Vote | Combine::Best => None,
        };
        self.members.iter().map(|member| member.model.as_str()).chain(stacks)
    }
}

/// Looks a part's declaration up.
type Declared<'a> = &'a dyn Fn(&str) -> orion_proto::Result<std::sync::Arc<orion_proto::ModelSpec>>;

/// The name that a tensor's shape has in messages.
fn shown(spec: &TensorSpec) -> String {
    match spec.any_shape() {
        true => format!("{} of any shape", spec.datatype),
        false => format!("{} {:?}", spec.datatype, spec.shape),
    }
}
