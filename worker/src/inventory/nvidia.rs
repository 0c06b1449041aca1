//! NVIDIA GPUs, asked through the driver's own library (NVML), which is loaded at run time.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Gpu, Nvml};
use orion_proto::session::{Device, DeviceTelemetry};

const NOT_USABLE: &str = "this build has no cuda support";

/// The driver's library, or why it does not answer.
pub(super) struct Nvidia(Result<Nvml, String>);

impl Nvidia {
    pub(super) fn open() -> Nvidia {
        Nvidia(Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => "the driver's library libnvidia-ml.so.1 is not installed".to_owned(),
            other => format!("libnvidia-ml.so.1 does not start: {other}"),
        }))
    }

    pub(super) fn absence(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    pub(super) fn devices(&self) -> Vec<Device> {
        self.each(device)
    }

    pub(super) fn telemetry(&self) -> Vec<DeviceTelemetry> {
        self.each(telemetry)
    }

    /// A GPU that fell off its bus is left out; its neighbours keep their numbers.
    fn each<T>(&self, read: impl Fn(String, &Gpu<'_>) -> T) -> Vec<T> {
        let Ok(nvml) = &self.0 else { return Vec::new() };
        let count = nvml.device_count().unwrap_or(0);
        (0..count).filter_map(|index| Some(read(format!("cuda{index}"), &nvml.device_by_index(index).ok()?))).collect()
    }
}

fn device(name: String, gpu: &Gpu<'_>) -> Device {
    let now = telemetry(name, gpu);
    let capability = gpu.cuda_compute_capability().ok().map(|capability| (capability.major, capability.minor));
    Device {
        name: now.name,
        kind: "cuda".to_owned(),
        model: gpu.name().unwrap_or_default(),
        memory_total_bytes: gpu.memory_info().map_or(0, |memory| memory.total),
        memory_free_bytes: now.memory_free_bytes,
        compute_capability: capability.map(|(major, minor)| format!("{major}.{minor}")).unwrap_or_default(),
        mig: gpu.mig_mode().is_ok_and(|mode| mode.current == 1),
        // What the link can do: an idle GPU lowers its link to save power.
        pcie_generation: gpu.max_pcie_link_gen().unwrap_or(0),
        pcie_width: gpu.max_pcie_link_width().unwrap_or(0),
        temperature_celsius: now.temperature_celsius,
        power_watts: now.power_watts,
        usable: false,
        note: NOT_USABLE.to_owned(),
        datatypes: datatypes(capability),
    }
}

/// Half precision came with compute capability 5.3, bf16 with 8.0 (CUDA C++ Programming Guide, "Arithmetic instructions").
fn datatypes(capability: Option<(i32, i32)>) -> Vec<String> {
    let since = [("f32", (0, 0)), ("f16", (5, 3)), ("bf16", (8, 0))];
    since.into_iter().filter(|(_, least)| capability >= Some(*least)).map(|(name, _)| name.to_owned()).collect()
}

/// A figure that a GPU does not have stays 0.
fn telemetry(name: String, gpu: &Gpu<'_>) -> DeviceTelemetry {
    DeviceTelemetry {
        name,
        // A full GPU is another thing than one that does not say.
        memory_free_bytes: gpu.memory_info().map_or(0, |memory| memory.free.max(1)),
        temperature_celsius: gpu.temperature(TemperatureSensor::Gpu).unwrap_or(0),
        power_watts: gpu.power_usage().map_or(0.0, |milliwatts| f64::from(milliwatts) / 1000.0),
        utilisation_percent: gpu.utilization_rates().map_or(0, |rates| rates.gpu),
        ..DeviceTelemetry::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn datatypes_follow_the_compute_capability() {
        for (capability, names) in [
            (None, &[][..]),
            (Some((5, 2)), &["f32"]),
            (Some((7, 5)), &["f32", "f16"]),
            (Some((8, 0)), &["f32", "f16", "bf16"]),
            (Some((12, 0)), &["f32", "f16", "bf16"]),
        ] {
            assert_eq!(super::datatypes(capability), names, "{capability:?}");
        }
    }
}
