//! What this machine is, read from the system: processor, memory and GPUs. Nothing here is measured by running work.

mod cgroup;
mod fingerprint;
mod memory;
mod nvidia;
mod process;
mod processor;

use orion_proto::session::{Capability, Device, DeviceTelemetry, Telemetry};
use sysinfo::System;

pub use memory::Memory;
pub use orion_net::free_disk_bytes;

use nvidia::Nvidia;
use processor::Processor;

/// The machine as a worker keeps it: what does not change, read once, and the handle through which GPUs are asked.
pub struct Inventory {
    processor: Processor,
    nvidia: Nvidia,
}

impl Inventory {
    /// Reads the machine and opens the NVIDIA driver's library if there is one; a machine without it is normal.
    pub fn open() -> Inventory {
        Inventory { processor: Processor::read(), nvidia: Nvidia::open() }
    }

    /// What this machine is. Memory and GPU figures that change are those of now.
    pub fn capability(&self) -> Capability {
        let memory = Memory::read();
        let mut devices = vec![self.cpu_device(memory)];
        devices.extend(self.nvidia.devices());
        let mut capability = Capability {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            arch: std::env::consts::ARCH.to_owned(),
            hostname: System::host_name().unwrap_or_default(),
            cpu: self.processor.brand.clone(),
            physical_cores: self.processor.physical_cores,
            logical_cores: self.processor.logical_cores,
            instruction_sets: self.processor.instruction_sets.iter().map(|&name| name.to_owned()).collect(),
            memory_bytes: memory.total_bytes,
            devices,
            ..Capability::default()
        };
        capability.fingerprint = fingerprint::of(&capability);
        capability
    }

    /// What changes from second to second. The round trips are left 0: whoever keeps the session knows them.
    pub fn telemetry(&self) -> Telemetry {
        let memory = Memory::read();
        let mut devices = vec![DeviceTelemetry {
            name: CPU_DEVICE.to_owned(),
            memory_free_bytes: memory.free_bytes,
            ..DeviceTelemetry::default()
        }];
        devices.extend(self.nvidia.telemetry());
        Telemetry {
            cpu_seconds: process::cpu_seconds(),
            resident_bytes: process::resident_bytes(),
            memory_free_bytes: memory.free_bytes,
            devices,
            ..Telemetry::default()
        }
    }

    /// Why no GPU is listed through the NVIDIA driver; `None` when the driver's library answers.
    pub fn nvidia_absence(&self) -> Option<&str> {
        self.nvidia.absence()
    }

    fn cpu_device(&self, memory: Memory) -> Device {
        Device {
            name: CPU_DEVICE.to_owned(),
            kind: "cpu".to_owned(),
            model: self.processor.brand.clone(),
            memory_total_bytes: memory.total_bytes,
            memory_free_bytes: memory.free_bytes,
            usable: true,
            datatypes: ["f32", "f16", "bf16"].map(str::to_owned).into(),
            ..Device::default()
        }
    }
}

/// Every machine has this device.
const CPU_DEVICE: &str = "cpu0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_usable_cpu_that_agrees_with_the_system() {
        let inventory = Inventory::open();
        let capability = inventory.capability();
        let allowed = std::thread::available_parallelism().unwrap().get();
        assert_eq!(capability.logical_cores as usize, allowed);
        assert!((1..=capability.logical_cores).contains(&capability.physical_cores), "{capability:?}");
        assert!(!capability.cpu.is_empty() && !capability.hostname.is_empty(), "{capability:?}");
        let cpu = &capability.devices[0];
        assert!(cpu.name == "cpu0" && cpu.kind == "cpu" && cpu.usable, "{cpu:?}");
        assert!(cpu.memory_free_bytes > 0 && cpu.memory_free_bytes <= cpu.memory_total_bytes, "{cpu:?}");
        for gpu in &capability.devices[1..] {
            assert!(gpu.kind == "cuda" && !gpu.usable && !gpu.note.is_empty(), "{gpu:?}");
        }
        assert!(inventory.nvidia_absence().is_none() || capability.devices.len() == 1, "{capability:?}");
        assert_eq!(capability.fingerprint, inventory.capability().fingerprint);
    }

    #[test]
    fn telemetry_follows_the_process() {
        let inventory = Inventory::open();
        let before = inventory.telemetry();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        // Work until the process's clock has moved, however coarse it is.
        while inventory.telemetry().cpu_seconds <= before.cpu_seconds {
            std::hint::black_box(block.iter().map(|&byte| u64::from(byte)).sum::<u64>());
        }
        let during = inventory.telemetry();
        assert!(during.resident_bytes >= before.resident_bytes + (48 << 20), "{before:?} {during:?}");
        let names: Vec<_> = inventory.capability().devices.into_iter().map(|device| device.name).collect();
        assert_eq!(names, during.devices.into_iter().map(|device| device.name).collect::<Vec<_>>());
    }
}
