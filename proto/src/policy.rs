//! How a model's owner wants it placed and ordered: what its `orion.toml` says beside what the model is.

use std::{collections::BTreeMap, time::Duration};

use crate::{Error, Result, session};

/// Longest time that a policy may name.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Requests without a deadline are refused when their model's queue is predicted to take longer than this.
const MAX_QUEUE: Duration = Duration::from_secs(30);
/// Roles on which a model runs unless it names others.
const ROLES: [&str; 2] = ["compute", "hybrid"];

/// What a worker's device must have for a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirements {
    /// Device kinds that will do; empty: any.
    pub device_kinds: Vec<String>,
    /// Element type in which the model computes, such as `f32`.
    pub datatype: String,
    /// Labels that the worker must carry, with these values.
    pub labels: BTreeMap<String, String>,
    /// Roles that will do; empty: compute and hybrid.
    pub roles: Vec<String>,
    /// The zone in which the worker must be; empty: any.
    pub zone: String,
    /// Least CUDA compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Instruction sets that the worker's processor must have.
    pub instruction_sets: Vec<String>,
}

/// A model's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPolicy {
    /// For ordering requests without a deadline; none: ten times the predicted time of one row, at least 100 ms.
    pub slo: Option<Duration>,
    /// Longest predicted queue for requests without a deadline.
    pub max_queue: Duration,
    /// Replicas that are kept whatever the load. With 0 a first one is made while memory is free, and may be evicted.
    pub min_replicas: u32,
    /// Replicas that there may be; none: as many as devices.
    pub max_replicas: Option<u32>,
    /// Never evicted.
    pub pin: bool,
    /// The balancer's strategy; empty: predicted completion.
    pub balancer: String,
    /// Whether a straggling batch may be run a second time elsewhere.
    pub hedge: bool,
    /// Whether it keeps a state between the requests of a sequence, which therefore go to one replica one by one.
    pub sequences: bool,
    /// What a device must have.
    pub requirements: Requirements,
}

impl Default for ModelPolicy {
    fn default() -> Self {
        Self {
            slo: None,
            max_queue: MAX_QUEUE,
            min_replicas: 0,
            max_replicas: None,
            pin: false,
            balancer: String::new(),
            hedge: false,
            sequences: false,
            requirements: Requirements::default(),
        }
    }
}

impl Requirements {
    /// Whether a worker of this role will do.
    pub fn takes_role(&self, role: &str) -> bool {
        let role = if role.is_empty() { ROLES[0] } else { role };
        match self.roles.is_empty() {
            true => ROLES.contains(&role),
            false => self.roles.iter().any(|wanted| wanted == role),
        }
    }
}

/// Reads a compute capability such as `8.0`.
///
/// # Errors
/// INVALID_ARGUMENT for anything but two numbers with a dot between them.
pub fn compute_capability(text: &str) -> Result<(u32, u32)> {
    let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parts.ok_or_else(|| Error::invalid(format!("compute capability '{text}' must be two numbers, such as 8.0")))
}

fn duration(name: &str, seconds: f64) -> Result<Option<Duration>> {
    if seconds == 0.0 {
        return Ok(None);
    }
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= LONGEST);
    duration
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("{name} is {seconds} seconds, it must be 0 to {}", LONGEST.as_secs())))
}

impl TryFrom<session::ModelPolicy> for ModelPolicy {
    type Error = Error;

    fn try_from(wire: session::ModelPolicy) -> Result<Self> {
        let capability = Some(&wire.compute_capability).filter(|text| !text.is_empty());
        let policy = Self {
            slo: duration("slo", wire.slo_seconds)?,
            max_queue: duration("max_queue", wire.max_queue_seconds)?.unwrap_or(MAX_QUEUE),
            min_replicas: wire.min_replicas,
            max_replicas: Some(wire.max_replicas).filter(|most| *most > 0),
            pin: wire.pin,
            balancer: wire.balancer,
            hedge: wire.hedge,
            sequences: wire.sequences,
            requirements: Requirements {
                device_kinds: wire.device_kinds,
                datatype: wire.datatype,
                labels: wire.labels.into_iter().collect(),
                roles: wire.roles,
                zone: wire.zone,
                compute_capability: capability.map(|text| compute_capability(text)).transpose()?,
                instruction_sets: wire.instruction_sets,
            },
        };
        match policy.max_replicas {
            Some(most) if most < policy.min_replicas => Err(Error::invalid(format!(
                "min_replicas is {}, max_replicas is {most}: the first must not be larger",
                policy.min_replicas
            ))),
            _ => Ok(policy),
        }
    }
}

impl From<&ModelPolicy> for session::ModelPolicy {
    fn from(policy: &ModelPolicy) -> Self {
        let needs = &policy.requirements;
        let capability = needs.compute_capability.map(|(major, minor)| format!("{major}.{minor}"));
        Self {
            slo_seconds: policy.slo.map_or(0.0, |slo| slo.as_secs_f64()),
            max_queue_seconds: policy.max_queue.as_secs_f64(),
            min_replicas: policy.min_replicas,
            max_replicas: policy.max_replicas.unwrap_or(0),
            pin: policy.pin,
            balancer: policy.balancer.clone(),
            hedge: policy.hedge,
            sequences: policy.sequences,
            device_kinds: needs.device_kinds.clone(),
            datatype: needs.datatype.clone(),
            labels: needs.labels.clone().into_iter().collect(),
            roles: needs.roles.clone(),
            zone: needs.zone.clone(),
            compute_capability: capability.unwrap_or_default(),
            instruction_sets: needs.instruction_sets.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_travel_unchanged_and_bad_ones_are_named() {
        let policy = ModelPolicy {
            slo: Some(Duration::from_millis(50)),
            max_replicas: Some(3),
            min_replicas: 0,
            pin: true,
            balancer: "random".into(),
            sequences: true,
            requirements: Requirements {
                compute_capability: Some((8, 6)),
                labels: [("rack".to_owned(), "a".to_owned())].into(),
                ..Requirements::default()
            },
            ..ModelPolicy::default()
        };
        assert_eq!(ModelPolicy::try_from(session::ModelPolicy::from(&policy)).unwrap(), policy);
        assert_eq!(ModelPolicy::try_from(session::ModelPolicy::default()).unwrap(), ModelPolicy::default());
        let wrong = |change: fn(&mut session::ModelPolicy)| {
            let mut wire = session::ModelPolicy::default();
            change(&mut wire);
            ModelPolicy::try_from(wire).unwrap_err().message
        };
        assert!(wrong(|wire| wire.slo_seconds = f64::NAN).contains("slo"));
        assert!(wrong(|wire| wire.max_queue_seconds = -1.0).contains("max_queue"));
        assert!(wrong(|wire| wire.compute_capability = "8".into()).contains("such as 8.0"));
        assert!(wrong(|wire| (wire.min_replicas, wire.max_replicas) = (2, 1)).contains("min_replicas is 2"));
    }

    #[test]
    fn a_model_runs_on_compute_and_hybrid_unless_it_names_roles() {
        let any = Requirements::default();
        assert!(any.takes_role("") && any.takes_role("hybrid") && !any.takes_role("storage"));
        let named = Requirements { roles: vec!["sensor".into()], ..Requirements::default() };
        assert!(named.takes_role("sensor") && !named.takes_role("compute"));
    }
}
