//! What `orion.toml` says of placing and ordering a model.

use std::{collections::BTreeMap, time::Duration};

use orion_proto::{Requirements, compute_capability, valid_name};
use serde::Deserialize;

use super::{Error, ModelPolicy, OrionToml, Result};

const BALANCERS: [&str; 8] = [
    "predicted-completion",
    "round-robin",
    "smooth-weighted",
    "least-connections",
    "random",
    "consistent-hash",
    "response-time",
    "power-of-two",
];
const DEVICES: [&str; 3] = ["cpu", "cuda", "simulated"];
const ROLES: [&str; 5] = ["compute", "storage", "gateway", "sensor", "hybrid"];
/// Seconds of a day: a longer time is a mistake in the unit.
const DAY: f64 = 86_400.0;

/// The table `[placement]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Placement {
    min_replicas: Option<u32>,
    max_replicas: Option<u32>,
    pin: bool,
    device: Devices,
    labels: BTreeMap<String, String>,
    roles: Vec<String>,
    zone: String,
    compute_capability: Option<String>,
    instruction_sets: Vec<String>,
}

/// One kind, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "placement.device must be a string or a list of strings")]
enum Devices {
    One(String),
    Several(Vec<String>),
}

impl Default for Devices {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl OrionToml {
    /// How its owner wants the model placed and ordered.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the key, its value and what it may be.
    pub(crate) fn policy(&self) -> Result<ModelPolicy> {
        let default = ModelPolicy::default();
        if let Some(balancer) = &self.balancer {
            one_of("balancer", balancer, &BALANCERS)?;
        }
        let (min_replicas, max_replicas) = self.placement.replicas(default.min_replicas)?;
        Ok(ModelPolicy {
            slo: self.slo_ms.map(|value| time("slo_ms", value, 1e3)).transpose()?,
            max_queue: self.max_queue_s.map_or(Ok(default.max_queue), |value| time("max_queue_s", value, 1.0))?,
            min_replicas,
            max_replicas,
            pin: self.placement.pin,
            balancer: self.balancer.clone().unwrap_or_default(),
            hedge: self.hedge,
            sequences: default.sequences,
            requirements: self.requirements()?,
        })
    }

    fn requirements(&self) -> Result<Requirements> {
        let placement = &self.placement;
        let device_kinds = match &placement.device {
            Devices::One(kind) => vec![kind.clone()],
            Devices::Several(kinds) => kinds.clone(),
        };
        device_kinds.iter().try_for_each(|kind| one_of("placement.device", kind, &DEVICES))?;
        placement.roles.iter().try_for_each(|role| one_of("placement.roles", role, &ROLES))?;
        placement.instruction_sets.iter().try_for_each(|set| named("placement.instruction_sets", set))?;
        for (key, value) in &placement.labels {
            named("a key of placement.labels", key)?;
            named(&format!("placement.labels.{key}"), value)?;
        }
        if !placement.zone.is_empty() {
            named("placement.zone", &placement.zone)?;
        }
        let capability = placement.compute_capability.as_deref().map(compute_capability).transpose();
        Ok(Requirements {
            device_kinds,
            // A latency model computes in no type.
            datatype: match self.kind {
                Some(super::Kind::Simulated) => String::new(),
                _ => self.precision.unwrap_or_default().name().to_owned(),
            },
            labels: placement.labels.clone(),
            roles: placement.roles.clone(),
            zone: placement.zone.clone(),
            compute_capability: capability
                .map_err(|error| Error::invalid(format!("placement.compute_capability: {error}")))?,
            instruction_sets: placement.instruction_sets.clone(),
        })
    }
}

impl Placement {
    fn replicas(&self, default: u32) -> Result<(u32, Option<u32>)> {
        // Whoever only says how many there may be at most wants no more than that.
        let least = self.min_replicas.unwrap_or(default.min(self.max_replicas.unwrap_or(default)));
        match self.max_replicas {
            Some(0) => Err(Error::invalid("placement.max_replicas is 0, it must be 1 or more")),
            Some(most) if most < least => Err(Error::invalid(format!(
                "placement.max_replicas is {most}, it must be placement.min_replicas, {least}, or more"
            ))),
            most => Ok((least, most)),
        }
    }
}

fn one_of(key: &str, value: &str, known: &[&str]) -> Result<()> {
    match known.contains(&value) {
        true => Ok(()),
        false => Err(Error::invalid(format!("{key} is \"{value}\", it must be one of: {}", known.join(", ")))),
    }
}

fn named(key: &str, value: &str) -> Result<()> {
    match valid_name(value) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{key} is \"{value}\", it must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"
        ))),
    }
}

/// A time, in a unit of which there are so many a second.
fn time(key: &str, value: f64, units: f64) -> Result<Duration> {
    let most = DAY * units;
    // Less than a nanosecond would be none at all.
    let time = Duration::try_from_secs_f64(value / units).ok().filter(|time| !time.is_zero() && value <= most);
    time.ok_or_else(|| Error::invalid(format!("{key} is {value}, it must be more than 0 and at most {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<ModelPolicy> {
        OrionToml::parse(text)?.policy()
    }

    #[test]
    fn every_key_reaches_the_policy() {
        let text = r#"
            precision = "bf16"
            slo_ms = 50
            max_queue_s = 2.5
            balancer = "power-of-two"
            hedge = true
            [placement]
            min_replicas = 0
            max_replicas = 3
            pin = true
            device = "cuda"
            labels = { rack = "a1", tier = "gold" }
            roles = ["compute", "gateway"]
            zone = "eu-1"
            compute_capability = "8.6"
            instruction_sets = ["avx2"]"#;
        let labels = [("rack", "a1"), ("tier", "gold")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let expected = ModelPolicy {
            slo: Some(Duration::from_millis(50)),
            max_queue: Duration::from_millis(2500),
            min_replicas: 0,
            max_replicas: Some(3),
            pin: true,
            balancer: "power-of-two".into(),
            hedge: true,
            sequences: false,
            requirements: Requirements {
                device_kinds: vec!["cuda".into()],
                datatype: "bf16".into(),
                labels: labels.into(),
                roles: vec!["compute".into(), "gateway".into()],
                zone: "eu-1".into(),
                compute_capability: Some((8, 6)),
                instruction_sets: vec!["avx2".into()],
            },
        };
        assert_eq!(policy(text).unwrap(), expected);
        // What is accepted here is accepted by the scheduler.
        assert_eq!(ModelPolicy::try_from(orion_proto::session::ModelPolicy::from(&expected)).unwrap(), expected);
    }

    #[test]
    fn nothing_said_is_the_default_in_the_precision_of_the_model() {
        let mut default = ModelPolicy::default();
        assert_eq!(policy("kind = \"simulated\"").unwrap(), default);
        default.requirements.datatype = "f32".into();
        assert_eq!(policy("").unwrap(), default);
        let kinds = policy("[placement]\ndevice = [\"cpu\", \"cuda\"]").unwrap().requirements.device_kinds;
        assert_eq!(kinds, ["cpu", "cuda"]);
    }

    #[test]
    fn mistakes_name_key_value_and_what_is_right() {
        for (text, words) in [
            ("slo_ms = 0", ["slo_ms is 0", "more than 0"]),
            ("slo_ms = nan", ["slo_ms is NaN", "at most 86400000"]),
            ("slo_ms = 1e-9", ["slo_ms", "more than 0"]),
            ("max_queue_s = -1.5", ["max_queue_s is -1.5", "at most 86400"]),
            ("max_queue_s = 1e300", ["max_queue_s", "at most 86400"]),
            ("balancer = \"fastest\"", ["balancer is \"fastest\"", "power-of-two"]),
            ("hedge = 1", ["line 1", "boolean"]),
            ("[placement]\nmax_replicas = 0", ["placement.max_replicas is 0", "1 or more"]),
            ("[placement]\nmin_replicas = 3\nmax_replicas = 2", ["max_replicas is 2", "min_replicas, 3"]),
            ("[placement]\ndevice = \"tpu\"", ["placement.device is \"tpu\"", "cpu, cuda, simulated"]),
            ("[placement]\ndevice = 3", ["placement.device must be", "a list of strings"]),
            ("[placement]\nroles = [\"boss\"]", ["placement.roles is \"boss\"", "sensor, hybrid"]),
            ("[placement]\nzone = \"a b\"", ["placement.zone is \"a b\"", "1 to 128"]),
            ("[placement.labels]\nrack = \"\"", ["placement.labels.rack is \"\"", "1 to 128"]),
            ("[placement.labels]\n\"a b\" = \"c\"", ["placement.labels is \"a b\"", "1 to 128"]),
            ("[placement]\ncompute_capability = \"8\"", ["placement.compute_capability", "such as 8.0"]),
            ("[placement]\ninstruction_sets = [\"avx 2\"]", ["instruction_sets is \"avx 2\"", "1 to 128"]),
            ("[placement]\nreplicas = 2", ["line 2", "replicas"]),
        ] {
            let message = policy(text).unwrap_err().message;
            assert!(words.iter().all(|word| message.contains(word)), "{text:?} gave {message:?}");
        }
    }
}
