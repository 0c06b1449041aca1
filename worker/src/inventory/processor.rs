//! The processor: its brand, the cores this process may use, and the instruction sets that fast kernels ask for.

use std::thread::available_parallelism;

use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// What does not change while the process runs.
pub(super) struct Processor {
    pub(super) brand: String,
    pub(super) physical_cores: u32,
    pub(super) logical_cores: u32,
    pub(super) instruction_sets: Vec<&'static str>,
}

impl Processor {
    pub(super) fn read() -> Processor {
        // Affinity and a cgroup's quota count here: a container of two cores is a machine of two cores.
        let logical = available_parallelism().map_or(1, |cores| cores.get());
        let physical = System::physical_core_count().unwrap_or(logical).clamp(1, logical);
        Processor {
            brand: brand(),
            physical_cores: physical as u32,
            logical_cores: logical as u32,
            instruction_sets: instruction_sets(),
        }
    }
}

fn brand() -> String {
    // No frequency and no usage: those take sysinfo milliseconds a core.
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let brand = system.ok().and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
    brand.filter(|brand| !brand.is_empty()).unwrap_or_else(|| format!("unnamed {}", std::env::consts::ARCH))
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn instruction_sets() -> Vec<&'static str> {
    let detected = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx_vnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512_vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512_bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512_fp16", is_x86_feature_detected!("avx512fp16")),
    ];
    let mut names: Vec<_> = detected.into_iter().filter_map(|(name, present)| present.then_some(name)).collect();
    names.extend(matrix_extensions());
    names
}

/// The tile instructions, whose detection macro is not stable; the kernel lists them only when it saves their state.
#[cfg(target_arch = "x86_64")]
fn matrix_extensions() -> Vec<&'static str> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    ["amx_tile", "amx_int8", "amx_bf16", "amx_fp16"]
        .into_iter()
        .filter(|name| flags.split_whitespace().any(|flag| flag == *name))
        .collect()
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn instruction_sets() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;
    let detected = [
        ("neon", is_aarch64_feature_detected!("neon")),
        ("fp16", is_aarch64_feature_detected!("fp16")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("bf16", is_aarch64_feature_detected!("bf16")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
        ("sve", is_aarch64_feature_detected!("sve")),
        ("sve2", is_aarch64_feature_detected!("sve2")),
    ];
    detected.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    #[test]
    fn instruction_sets_are_those_that_the_kernel_lists() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags: Vec<_> =
            cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap().split_whitespace().collect();
        for (ours, theirs) in [("avx2", "avx2"), ("fma", "fma"), ("avx512_bf16", "avx512_bf16"), ("sse4.2", "sse4_2")] {
            assert_eq!(super::instruction_sets().contains(&ours), flags.contains(&theirs), "{ours}");
        }
    }
}
