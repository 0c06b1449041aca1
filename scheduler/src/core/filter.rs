//! Hard filters: whether a device can hold a model at all, and if not, why.

use std::fmt;

use orion_proto::{ModelSpec, Requirements, compute_capability};

use super::{Cordon, WorkerState, cluster::Worker, device::Device};

/// The kind of emulated devices: nothing real runs there.
pub(super) const SIMULATED: &str = "simulated";

/// Why a device cannot take a new copy of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unfit<'a> {
    Worker(WorkerState),
    Cordoned(Cordon),
    Unusable(&'a str),
    OnlySimulated,
    Kind(&'a [String], &'a str),
    Datatype(&'a str, &'a [String]),
    Role(&'a str),
    Zone(&'a str, &'a str),
    Label(&'a str, &'a str, Option<&'a str>),
    InstructionSet(&'a str),
    ComputeCapability((u32, u32), &'a str),
    Memory { needed: u64, capacity: u64 },
}

impl fmt::Display for Unfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(state) => write!(f, "the worker is {}", state.name()),
            Self::Cordoned(cordon) => write!(f, "the worker is {}", cordon.name()),
            Self::Unusable("") => f.write_str("this worker's build cannot use the device"),
            Self::Unusable(note) => write!(f, "the device cannot be used: {note}"),
            Self::OnlySimulated => f.write_str("a simulated device runs simulated models only"),
            Self::Kind(wanted, kind) => {
                write!(f, "the model wants a device of kind {}, this is {kind}", wanted.join(" or "))
            }
            Self::Datatype(wanted, has) => {
                write!(f, "the model computes in {wanted}, the device in {}", has.join(", "))
            }
            Self::Role(role) => write!(f, "the worker's role is {role}, the model runs on others"),
            Self::Zone(wanted, zone) => write!(f, "the model wants zone '{wanted}', the worker is in '{zone}'"),
            Self::Label(key, wanted, None) => {
                write!(f, "the model wants label {key}={wanted}, the worker has no {key}")
            }
            Self::Label(key, wanted, Some(value)) => {
                write!(f, "the model wants label {key}={wanted}, the worker has {key}={value}")
            }
            Self::InstructionSet(set) => write!(f, "the processor has no {set}"),
            Self::ComputeCapability((major, minor), "") => {
                write!(f, "the model wants compute capability {major}.{minor}, the device has none")
            }
            Self::ComputeCapability((major, minor), has) => {
                write!(f, "the model wants compute capability {major}.{minor}, the device has {has}")
            }
            Self::Memory { needed, capacity } => {
                write!(f, "the model needs {needed} bytes, the device has {capacity} in all")
            }
        }
    }
}

/// Whether a device can take a new copy of a model once its memory is free.
///
/// # Errors
/// The first reason why not.
pub(super) fn check<'a, L>(spec: &'a ModelSpec, worker: &'a Worker<L>, device: &'a Device) -> Result<(), Unfit<'a>> {
    if worker.state != WorkerState::Ready {
        return Err(Unfit::Worker(worker.state));
    }
    if worker.cordon != Cordon::No {
        return Err(Unfit::Cordoned(worker.cordon));
    }
    suits(spec, worker, device)
}

/// Whether a device is of the kind that a model needs, whatever its worker's state.
pub(super) fn suits<'a, L>(spec: &'a ModelSpec, worker: &'a Worker<L>, device: &'a Device) -> Result<(), Unfit<'a>> {
    let info = &device.info;
    if !info.usable {
        return Err(Unfit::Unusable(&info.note));
    }
    if info.kind == SIMULATED && spec.family != SIMULATED {
        return Err(Unfit::OnlySimulated);
    }
    // Before the memory: who is refused only for that is of the right kind, for smaller models with the same needs.
    meets(&spec.policy.requirements, worker, device)?;
    if !device.ledger.could_hold(spec.memory_bytes) {
        return Err(Unfit::Memory { needed: spec.memory_bytes, capacity: device.ledger.capacity() });
    }
    Ok(())
}

fn meets<'a, L>(needs: &'a Requirements, worker: &'a Worker<L>, device: &'a Device) -> Result<(), Unfit<'a>> {
    let (info, node) = (&device.info, &worker.capability);
    if !needs.device_kinds.is_empty() && !needs.device_kinds.contains(&info.kind) {
        return Err(Unfit::Kind(&needs.device_kinds, &info.kind));
    }
    // A device that names no types is believed to have the model's.
    if !needs.datatype.is_empty() && !info.datatypes.is_empty() && !info.datatypes.contains(&needs.datatype) {
        return Err(Unfit::Datatype(&needs.datatype, &info.datatypes));
    }
    if !needs.takes_role(&node.role) {
        return Err(Unfit::Role(if node.role.is_empty() { "compute" } else { &node.role }));
    }
    if !needs.zone.is_empty() && needs.zone != node.zone {
        return Err(Unfit::Zone(&needs.zone, &node.zone));
    }
    for (key, wanted) in &needs.labels {
        let value = node.labels.get(key);
        if value != Some(wanted) {
            return Err(Unfit::Label(key, wanted, value.map(String::as_str)));
        }
    }
    if let Some(set) = needs.instruction_sets.iter().find(|set| !node.instruction_sets.contains(set)) {
        return Err(Unfit::InstructionSet(set));
    }
    match needs.compute_capability {
        Some(least) if compute_capability(&info.compute_capability).ok().is_none_or(|has| has < least) => {
            Err(Unfit::ComputeCapability(least, &info.compute_capability))
        }
        _ => Ok(()),
    }
}
