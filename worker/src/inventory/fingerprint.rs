//! The hash under which measured figures are kept.

use orion_proto::session::Capability;

/// FNV-1a, 64 bits: written out because it must say the same in every build, which std's hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Hash, in hex, of what measured figures depend on: processor, cores, instruction sets, memory, GPUs.
pub(super) fn of(capability: &Capability) -> String {
    // Whole GiB: a kernel update that keeps some KiB more for itself is no new machine.
    let gibibytes = capability.memory_bytes >> 30;
    let mut text = format!(
        "{}\n{}\n{} {}\n{}\n{gibibytes}\n",
        capability.arch,
        capability.cpu,
        capability.physical_cores,
        capability.logical_cores,
        capability.instruction_sets.join(" ")
    );
    for gpu in capability.devices.iter().filter(|device| device.kind == "cuda") {
        text.push_str(&gpu.model);
        text.push('\n');
    }
    format!("{:016x}", fnv1a(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use orion_proto::session::Device;

    use super::*;

    #[test]
    fn hashes_as_the_published_vectors_say() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn changes_with_the_hardware_and_with_nothing_else() {
        let base = Capability { cpu: "a".into(), logical_cores: 2, memory_bytes: 8 << 30, ..Capability::default() };
        let moved = Capability { hostname: "b".into(), memory_bytes: (8 << 30) + 4096, ..base.clone() };
        assert_eq!(of(&base), of(&moved));
        let gpu = Device { kind: "cuda".into(), model: "H200".into(), ..Device::default() };
        for other in [
            Capability { cpu: "b".into(), ..base.clone() },
            Capability { logical_cores: 4, ..base.clone() },
            Capability { memory_bytes: 16 << 30, ..base.clone() },
            Capability { instruction_sets: vec!["avx2".into()], ..base.clone() },
            Capability { devices: vec![gpu], ..base.clone() },
        ] {
            assert_ne!(of(&base), of(&other), "{other:?}");
        }
    }
}
