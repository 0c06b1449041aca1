//! NVIDIA's card, driver and library: each may be there without the next.

use std::fs::{read_dir, read_to_string};

use orion_proto::session::Device;
use sysinfo::System;

use super::{Finding, State, apt_install, as_root};
use crate::inventory::Inventory;

const SUBJECT: &str = "nvidia gpu";

/// What there is of each layer, from the library down to the card.
pub(super) struct Traces {
    /// Why the driver's library does not answer.
    absence: Option<String>,
    /// The driver made its device files.
    device_files: bool,
    /// The driver's major version, which its library must share.
    driver_major: Option<u32>,
    /// A card on the PCI bus.
    card: bool,
    ubuntu: bool,
}

impl Traces {
    pub(super) fn read(inventory: &Inventory) -> Traces {
        let driver = read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
        Traces {
            absence: inventory.nvidia_absence().map(str::to_owned),
            device_files: names("/dev").iter().any(|name| is_gpu_file(name)),
            driver_major: driver_major(&driver),
            card: names("/sys/bus/pci/devices").iter().any(|slot| is_nvidia_display(slot)),
            ubuntu: System::distribution_id() == "ubuntu",
        }
    }
}

pub(super) fn finding(traces: &Traces, devices: &[Device]) -> Finding {
    let gpus: Vec<_> = devices.iter().filter(|device| device.kind == "cuda").collect();
    match &traces.absence {
        None if gpus.is_empty() => Finding::good(SUBJECT, "none: the driver lists no GPU, CPU only"),
        None => seen(&gpus),
        Some(absence) if traces.device_files => {
            let detail = format!("the driver has made its device files, but {absence}");
            Finding::new(SUBJECT, State::Missing, detail, Some(install_library(traces)))
        }
        Some(absence) if traces.card => {
            let detail = format!("a card is in this machine, but {absence}");
            let mend = if traces.ubuntu {
                let tool = apt_install("ubuntu-drivers-common");
                format!("{tool} && {}", as_root("ubuntu-drivers install"))
            } else {
                apt_install("nvidia-driver")
            };
            Finding::new(SUBJECT, State::Missing, detail, Some(mend))
        }
        Some(_) => Finding::good(SUBJECT, "none: CPU only"),
    }
}

fn seen(gpus: &[&Device]) -> Finding {
    let notes: Vec<_> = gpus.iter().filter(|gpu| !gpu.usable).map(|gpu| gpu.note.as_str()).collect();
    let names: Vec<_> = gpus.iter().map(|gpu| format!("{} {}", gpu.name, gpu.model)).collect();
    match notes.first() {
        None => Finding::good(SUBJECT, names.join(", ")),
        Some(note) => Finding::new(SUBJECT, State::Warning, format!("{}: {note}", names.join(", ")), None),
    }
}

fn install_library(traces: &Traces) -> String {
    match (traces.ubuntu, traces.driver_major) {
        (true, Some(major)) => apt_install(&format!("libnvidia-compute-{major}")),
        (true, None) => format!("{} && {}", apt_install("ubuntu-drivers-common"), as_root("ubuntu-drivers install")),
        (false, _) => apt_install("libnvidia-ml1"),
    }
}

fn names(folder: &str) -> Vec<String> {
    let entries = read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// `nvidia0`, `nvidia1`…: `nvidiactl` alone is no GPU.
fn is_gpu_file(name: &str) -> bool {
    name.strip_prefix("nvidia")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// NVIDIA also makes network cards and bridges; a display controller's class begins with 0x03.
fn is_nvidia_display(slot: &str) -> bool {
    let read = |file: &str| read_to_string(format!("/sys/bus/pci/devices/{slot}/{file}")).unwrap_or_default();
    read("vendor").trim() == "0x10de" && read("class").starts_with("0x03")
}

/// From `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu …`.
fn driver_major(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    line.split_whitespace().find_map(|word| word.split_once('.')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(device_files: bool, card: bool, ubuntu: bool, driver_major: Option<u32>) -> Traces {
        Traces { absence: Some("it is not installed".to_owned()), device_files, driver_major, card, ubuntu }
    }

    #[test]
    fn each_missing_layer_has_its_own_command() {
        let cases = [
            (traces(true, true, true, Some(550)), "apt-get install -y libnvidia-compute-550"),
            (traces(true, true, true, None), "ubuntu-drivers install"),
            (traces(true, true, false, Some(550)), "apt-get install -y libnvidia-ml1"),
            (traces(false, true, false, None), "apt-get install -y nvidia-driver"),
            (traces(false, true, true, None), "ubuntu-drivers install"),
        ];
        for (traces, command) in cases {
            let finding = finding(&traces, &[]);
            assert_eq!(finding.state, State::Missing);
            assert!(finding.mend.as_deref().is_some_and(|mend| mend.ends_with(command)), "{finding:?}");
        }
    }

    #[test]
    fn a_machine_without_a_card_is_good_and_a_card_that_this_build_cannot_use_is_a_warning() {
        assert_eq!(finding(&traces(false, false, true, None), &[]), Finding::good(SUBJECT, "none: CPU only"));
        let answering = Traces { absence: None, ..traces(true, true, true, Some(550)) };
        let gpu = |usable| Device { kind: "cuda".into(), usable, note: "why not".into(), ..Device::default() };
        assert_eq!(finding(&answering, &[gpu(true)]).state, State::Good);
        let unusable = finding(&answering, &[gpu(true), gpu(false)]);
        assert!(unusable.state == State::Warning && unusable.detail.ends_with("why not"), "{unusable:?}");
    }

    #[test]
    fn reads_the_drivers_version_and_tells_gpus_from_other_files() {
        let proprietary = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n";
        let open =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version: 13.3.0";
        assert_eq!(driver_major(proprietary), Some(550));
        assert_eq!(driver_major(open), Some(570));
        assert_eq!(driver_major("GCC version: 13.3.0"), None);
        assert!(is_gpu_file("nvidia0") && is_gpu_file("nvidia12"));
        assert!(!is_gpu_file("nvidiactl") && !is_gpu_file("nvidia") && !is_gpu_file("nvidia-uvm"));
    }
}
