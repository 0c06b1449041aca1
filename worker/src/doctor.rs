//! What is missing on this machine, and the command that mends it on Debian and Ubuntu.

mod folder;
mod nvidia;
mod ports;
mod tools;

use std::path::Path;

use serde::Serialize;

use crate::inventory::{Inventory, Memory};

/// What one look at the machine found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// Whether Orion runs well with it.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// A command that mends it, where there is one.
    pub mend: Option<String>,
}

/// Whether Orion runs well with what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Something that is needed is not there.
    Missing,
    /// Orion runs, but slower or with less than it could.
    Warning,
}

impl Finding {
    fn new(subject: &'static str, state: State, detail: impl Into<String>, mend: Option<String>) -> Finding {
        Finding { subject, state, detail: detail.into(), mend }
    }

    fn good(subject: &'static str, detail: impl Into<String>) -> Finding {
        Finding::new(subject, State::Good, detail, None)
    }
}

/// Looks at everything that Orion needs. Changes nothing: a data folder that is not there is not made.
pub fn diagnose(data_dir: &Path) -> Vec<Finding> {
    let inventory = Inventory::open();
    let capability = inventory.capability();
    let mut findings = vec![
        processor(std::env::consts::ARCH, &capability.cpu, &capability.instruction_sets),
        memory(Memory::read()),
        open_files(open_file_limits()),
        folder::writable(data_dir),
    ];
    findings.extend(folder::room(data_dir));
    findings.push(nvidia::finding(&nvidia::Traces::read(&inventory), &capability.devices));
    findings.push(ports::finding(&ports::DEFAULTS));
    findings.extend(tools::findings());
    findings
}

fn processor(arch: &str, brand: &str, instruction_sets: &[String]) -> Finding {
    let wanted: &[&str] = match arch {
        "x86_64" => &["avx2", "fma"],
        "aarch64" => &["neon"],
        _ => &[],
    };
    let missing: Vec<_> =
        wanted.iter().copied().filter(|name| !instruction_sets.iter().any(|set| set == name)).collect();
    if missing.is_empty() {
        return Finding::good("processor", format!("{brand}: {}", instruction_sets.join(" ")));
    }
    let detail = format!("{brand} has no {}: models run several times slower", missing.join(" and no "));
    Finding::new("processor", State::Warning, detail, None)
}

fn memory(memory: Memory) -> Finding {
    const LITTLE: u64 = 1 << 30;
    let detail = format!("{} free of {}", gibibytes(memory.free_bytes), gibibytes(memory.total_bytes));
    let state = if memory.free_bytes < LITTLE { State::Warning } else { State::Good };
    Finding::new("memory", state, detail, None)
}

/// The soft and the hard limit on open files.
fn open_file_limits() -> (u64, u64) {
    // SAFETY: rlimit is plain numbers that the call fills; 0 is left where it fails.
    let limit = unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit
    };
    (limit.rlim_cur, limit.rlim_max)
}

fn open_files((soft, hard): (u64, u64)) -> Finding {
    const FEWEST: u64 = 4096;
    const WANTED: u64 = 65536;
    if soft >= FEWEST {
        return Finding::good("open files", format!("{soft} allowed"));
    }
    let mend = if hard >= FEWEST {
        format!("ulimit -n {}", hard.min(WANTED))
    } else {
        // The shell cannot pass the hard limit; the next login has the new one.
        let line = format!("* - nofile {WANTED}");
        as_root(&format!("sh -c \"echo '{line}' > /etc/security/limits.d/orion.conf\""))
    };
    let detail = format!("{soft} allowed, fewer than {FEWEST}: each client's connection takes one");
    Finding::new("open files", State::Warning, detail, Some(mend))
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// The command as root: a container's root has no sudo and needs none.
fn as_root(command: &str) -> String {
    // SAFETY: geteuid only returns a number.
    if unsafe { libc::geteuid() } == 0 { command.to_owned() } else { format!("sudo {command}") }
}

fn apt_install(packages: &str) -> String {
    as_root(&format!("apt-get install -y {packages}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_looked_at_and_a_problem_that_has_a_command_names_it() {
        let data = tempfile::tempdir().unwrap();
        let findings = diagnose(data.path());
        let subjects: Vec<_> = findings.iter().map(|finding| finding.subject).collect();
        let expected =
            ["processor", "memory", "open files", "data folder", "disk", "nvidia gpu", "ports", "python3", "pip"];
        assert_eq!(subjects, expected);
        for finding in &findings {
            assert!(!finding.detail.is_empty(), "{finding:?}");
            assert!(finding.state != State::Missing || finding.mend.is_some(), "{finding:?}");
            assert!(finding.state != State::Good || finding.mend.is_none(), "{finding:?}");
        }
    }

    #[test]
    fn a_processor_without_fast_instructions_is_named() {
        let sets = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(processor("x86_64", "new", &sets(&["avx2", "fma"])).state, State::Good);
        let old = processor("x86_64", "old", &sets(&["sse4.2", "fma"]));
        assert_eq!(old.state, State::Warning);
        assert!(old.detail.contains("no avx2") && !old.detail.contains("no fma"), "{old:?}");
        assert_eq!(processor("aarch64", "arm", &sets(&["neon"])).state, State::Good);
        assert_eq!(processor("aarch64", "arm", &[]).state, State::Warning);
    }

    #[test]
    fn few_open_files_are_mended_as_far_as_the_hard_limit_goes() {
        assert_eq!(open_files((4096, 4096)).state, State::Good);
        assert_eq!(open_files((1024, u64::MAX)).mend.as_deref(), Some("ulimit -n 65536"));
        assert_eq!(open_files((1024, 8192)).mend.as_deref(), Some("ulimit -n 8192"));
        assert!(open_files((1024, 1024)).mend.is_some_and(|mend| mend.contains("limits.d")));
    }

    #[test]
    fn little_memory_is_a_warning() {
        assert_eq!(memory(Memory { total_bytes: 8 << 30, free_bytes: 4 << 30 }).state, State::Good);
        assert_eq!(memory(Memory { total_bytes: 8 << 30, free_bytes: 1 << 20 }).state, State::Warning);
    }
}
