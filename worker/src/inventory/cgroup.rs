//! Memory limits that control groups of either version put on this process.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// A limit and what its group uses of it.
#[derive(Debug, PartialEq)]
pub(super) struct MemoryLimit {
    pub(super) limit_bytes: u64,
    /// Without file pages that are not in use: the kernel drops those before it refuses memory.
    pub(super) used_bytes: u64,
}

struct Layout {
    root: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` that counts file pages not in use, children's included.
    inactive: &'static str,
}

const VERSION_1: Layout = Layout {
    root: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};
const VERSION_2: Layout =
    Layout { root: "sys/fs/cgroup", limit: "memory.max", usage: "memory.current", inactive: "inactive_file" };

/// Every limit on this process: its group's and those of the groups above.
pub(super) fn memory_limits() -> Vec<MemoryLimit> {
    limits_below(Path::new("/"))
}

fn limits_below(system_root: &Path) -> Vec<MemoryLimit> {
    let groups = read_to_string(system_root.join("proc/self/cgroup")).unwrap_or_default();
    groups
        .lines()
        .filter_map(|line| membership(system_root, line))
        .flat_map(|(layout, group)| limits(layout, &group))
        .collect()
}

/// The group that a line of `/proc/self/cgroup` (`number:controllers:path`) names, if it is one that limits memory.
fn membership(system_root: &Path, line: &str) -> Option<(&'static Layout, PathBuf)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let layout = match controllers {
        "" => &VERSION_2,
        names if names.split(',').any(|name| name == "memory") => &VERSION_1,
        _ => return None,
    };
    Some((layout, system_root.join(layout.root).join(path)))
}

/// A container sees its own group as the root while the path may still be the host's, so folders that are not there
/// are passed over on the way up.
fn limits(layout: &'static Layout, group: &Path) -> Vec<MemoryLimit> {
    group
        .ancestors()
        .take_while(|folder| in_hierarchy(folder, layout))
        .filter_map(|folder| limit(layout, folder))
        .collect()
}

fn in_hierarchy(folder: &Path, layout: &Layout) -> bool {
    folder.ancestors().any(|above| above.ends_with(layout.root))
}

fn limit(layout: &Layout, folder: &Path) -> Option<MemoryLimit> {
    let number = |file: &str| read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    // `max`, which says that there is none, does not parse.
    let limit_bytes = number(layout.limit)?;
    let inactive = read_to_string(folder.join("memory.stat")).ok().and_then(|stat| field(&stat, layout.inactive));
    let used_bytes = number(layout.usage).unwrap_or(0).saturating_sub(inactive.unwrap_or(0));
    Some(MemoryLimit { limit_bytes, used_bytes })
}

fn field(stat: &str, name: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2_counts_every_group_above() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/user/orion\n"),
            ("sys/fs/cgroup/user/orion/memory.max", "max\n"),
            ("sys/fs/cgroup/user/memory.max", "1000\n"),
            ("sys/fs/cgroup/user/memory.current", "700\n"),
            ("sys/fs/cgroup/user/memory.stat", "anon 1\ninactive_file 200\n"),
        ]);
        assert_eq!(limits_below(root.path()), [MemoryLimit { limit_bytes: 1000, used_bytes: 500 }]);
    }

    #[test]
    fn version_1_in_a_container_reads_the_root_it_sees() {
        let root = machine(&[
            ("proc/self/cgroup", "7:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1024\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 24\n"),
        ]);
        assert_eq!(limits_below(root.path()), [MemoryLimit { limit_bytes: 4096, used_bytes: 1000 }]);
    }

    #[test]
    fn a_machine_without_groups_has_no_limit() {
        assert_eq!(limits_below(machine(&[]).path()), []);
    }
}
