//! The data folder and the disk below it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Finding, State, as_root, gibibytes};
use crate::inventory::free_disk_bytes;

/// Whether the folder can be written, or made at the first start.
pub(super) fn writable(data_dir: &Path) -> Finding {
    judged(data_dir, may_write)
}

fn judged(data_dir: &Path, may_write: fn(&Path) -> bool) -> Finding {
    const SUBJECT: &str = "data folder";
    let shown = data_dir.display();
    let Some(existing) = nearest_existing(data_dir) else {
        return Finding::new(SUBJECT, State::Missing, format!("{shown} cannot be looked at"), Some(mend(data_dir)));
    };
    if !existing.is_dir() {
        let detail = format!("{} is no folder", existing.display());
        let aside = format!("mv {0} {0}.old", quoted(&existing));
        return Finding::new(SUBJECT, State::Missing, detail, Some(aside));
    }
    match (may_write(&existing), existing == data_dir) {
        (true, true) => Finding::good(SUBJECT, format!("{shown}")),
        (true, false) => Finding::good(SUBJECT, format!("{shown}: made at the first start")),
        (false, _) => {
            let detail = format!("{shown}: this user may not write to {}", existing.display());
            Finding::new(SUBJECT, State::Missing, detail, Some(mend(data_dir)))
        }
    }
}

/// Free disk for models and measured figures; nothing when the folder itself is the trouble.
pub(super) fn room(data_dir: &Path) -> Option<Finding> {
    const LITTLE: u64 = 2 << 30;
    let free = free_disk_bytes(&nearest_existing(data_dir)?).ok()?;
    let state = if free < LITTLE { State::Warning } else { State::Good };
    let mend = (state == State::Warning).then(|| as_root("apt-get clean"));
    Some(Finding::new("disk", state, format!("{} free below {}", gibibytes(free), data_dir.display()), mend))
}

fn nearest_existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find(|folder| folder.symlink_metadata().is_ok()).map(Path::to_path_buf)
}

fn may_write(folder: &Path) -> bool {
    let Ok(folder) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: the path ends in a nul byte.
    unsafe { libc::access(folder.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

fn mend(data_dir: &Path) -> String {
    as_root(&format!("install -d -o \"$(id -un)\" {}", quoted(data_dir)))
}

/// As a shell takes it literally.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_be_made_is_good_and_is_not_made() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(writable(root.path()).state, State::Good);
        let below = root.path().join("a/b");
        assert_eq!(writable(&below).state, State::Good);
        assert!(!root.path().join("a").exists());
        assert!(room(&below).is_some());
    }

    #[test]
    fn a_file_in_its_place_is_named_with_a_command_that_a_shell_reads_right() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("it's");
        std::fs::write(&file, "").unwrap();
        let finding = writable(&file.join("below"));
        assert_eq!(finding.state, State::Missing);
        let status = std::process::Command::new("sh").args(["-c", &finding.mend.unwrap()]).status().unwrap();
        assert!(status.success() && writable(&file.join("below")).state == State::Good);
    }

    #[test]
    fn a_folder_that_this_user_may_not_write_is_missing_and_names_what_stands_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        let finding = judged(&root.path().join("a/b"), |_| false);
        assert_eq!(finding.state, State::Missing);
        assert!(finding.detail.ends_with(&format!("may not write to {}", root.path().display())), "{finding:?}");
        assert!(finding.mend.is_some_and(|mend| mend.contains("install -d") && mend.ends_with("a/b'")));
        assert!(may_write(root.path()) && !may_write(&root.path().join("a")));
    }
}
