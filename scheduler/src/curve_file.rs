//! The file in which measured curves outlive the process.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    core::Remembered,
    data_folder::{read, replace},
};

/// Curves that are kept.
const CURVES: usize = 65_536;

/// Curves on disk: an optimisation, so that nothing that is wrong with it stops a scheduler.
#[derive(Debug)]
pub(crate) struct CurveFile {
    path: PathBuf,
    curves: BTreeMap<Key, Kept>,
    /// Whether they differ from what is on disk.
    changed: bool,
}

type Key = ([String; 5], u8);

#[derive(Debug)]
struct Kept {
    curve: Remembered,
    /// Whether this process taught it.
    new: bool,
}

fn key(curve: &Remembered) -> Key {
    let Remembered { model, path, fingerprint, device_kind, device_model, bucket, .. } = curve;
    ([model, path, fingerprint, device_kind, device_model].map(Clone::clone), *bucket)
}

impl CurveFile {
    /// The file of this path, which need not be there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, curves: BTreeMap::new(), changed: false }
    }

    /// What an earlier process has learnt. A file that cannot be read is left behind with a warning.
    pub(crate) fn read(&mut self) -> Vec<Remembered> {
        let read = read::<Vec<Remembered>>(&self.path).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "curves_not_read");
            None
        });
        let curves = read.unwrap_or_default();
        self.curves = curves.iter().map(|curve| (key(curve), Kept { curve: curve.clone(), new: false })).collect();
        curves
    }

    /// Keeps curves that batches have taught. Where they become too many, those that no batch of this process taught go.
    pub(crate) fn keep(&mut self, curves: Vec<Remembered>) {
        for curve in curves {
            let kept = Kept { curve, new: true };
            let old = self.curves.get(&key(&kept.curve));
            self.changed |= old.is_none_or(|old| old.curve != kept.curve);
            self.curves.insert(key(&kept.curve), kept);
        }
        if self.curves.len() > CURVES {
            self.curves.retain(|_, kept| kept.new);
        }
        while self.curves.len() > CURVES {
            self.curves.pop_last();
        }
    }

    /// Writes the curves, if they differ from those that are there.
    pub(crate) fn write(&mut self) {
        if !self.changed {
            return;
        }
        let curves: Vec<&Remembered> = self.curves.values().map(|kept| &kept.curve).collect();
        match replace(&self.path, &curves) {
            Ok(()) => self.changed = false,
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "curves_not_written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn curve(model: &str, bucket: u8) -> Remembered {
        Remembered {
            model: model.into(),
            path: "/m".into(),
            fingerprint: "f".into(),
            device_kind: "cpu".into(),
            device_model: "c".into(),
            bucket,
            base_seconds: 0.001,
            per_row_seconds: 0.002,
            inflation: 1.5,
        }
    }

    fn read_again(path: &Path) -> Vec<Remembered> {
        CurveFile::new(path.to_owned()).read()
    }

    #[test]
    fn curves_come_back_and_a_broken_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.json");
        assert_eq!(read_again(&path), []);
        let mut file = CurveFile::new(path.clone());
        file.keep(vec![curve("b", 0), curve("a", 1), curve("a", 0)]);
        file.write();
        assert_eq!(read_again(&path), [curve("a", 0), curve("a", 1), curve("b", 0)]);
        for broken in ["[{\"model\": \"a\"", "{}", "[1]"] {
            fs::write(&path, broken).unwrap();
            assert_eq!(read_again(&path), [], "{broken}");
        }
        assert_eq!(read_again(folder.path()), []);
    }

    #[test]
    fn what_is_new_joins_what_was_there_and_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.json");
        let old = r#"[{"model":"a","path":"/m","fingerprint":"f","device_kind":"cpu","device_model":"c",
            "base_seconds":0.001,"per_row_seconds":0.002}]"#;
        fs::write(&path, old).unwrap();
        let mut file = CurveFile::new(path.clone());
        let exact = Remembered { inflation: 1.0, ..curve("a", 0) };
        assert_eq!(file.read(), std::slice::from_ref(&exact), "a file of an earlier version");
        file.keep(vec![curve("b", 0)]);
        file.write();
        assert_eq!(read_again(&path), [exact, curve("b", 0)]);
        fs::remove_file(&path).unwrap();
        file.keep(vec![curve("b", 0)]);
        file.write();
        assert!(!path.exists(), "nothing changed");
    }

    #[test]
    fn there_is_room_for_what_this_process_taught() {
        let mut file = CurveFile::new(PathBuf::new());
        let many = |name: &str| (0..CURVES / 2 + 1).map(|at| curve(&format!("{name}{at}"), 0)).collect::<Vec<_>>();
        file.curves = many("old").iter().map(|c| (key(c), Kept { curve: c.clone(), new: false })).collect();
        file.keep(many("new"));
        assert!(file.curves.len() == CURVES / 2 + 1 && file.curves.values().all(|kept| kept.new));
    }
}
