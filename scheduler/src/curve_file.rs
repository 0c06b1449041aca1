//! The file in which measured curves outlive the process.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::core::Remembered;

/// A file with more bytes than this is not one of ours.
const LARGEST: u64 = 64 << 20;

/// Curves on disk: an optimisation, so that nothing that is wrong with it stops a scheduler.
#[derive(Debug)]
pub(crate) struct CurveFile {
    path: PathBuf,
    written: Vec<Remembered>,
}

impl CurveFile {
    /// The file of this path, which need not be there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, written: Vec::new() }
    }

    /// What an earlier process has learnt. A file that cannot be read is left behind with a warning.
    pub(crate) fn read(&mut self) -> Vec<Remembered> {
        self.written = read(&self.path).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "curves_not_read");
            Vec::new()
        });
        self.written.clone()
    }

    /// Writes the curves, if they differ from those that are there.
    pub(crate) fn write(&mut self, curves: Vec<Remembered>) {
        if curves == self.written {
            return;
        }
        match replace(&self.path, &curves) {
            Ok(()) => self.written = curves,
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "curves_not_written"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Remembered>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
        Ok(found) if !found.is_file() || found.len() > LARGEST => return Err("it is no file of curves".into()),
        Ok(_) => {}
    }
    let json = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

/// Old or new, never half.
fn replace(path: &Path, curves: &[Remembered]) -> std::io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(curves)?)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(model: &str) -> Remembered {
        Remembered {
            model: model.into(),
            path: "/m".into(),
            fingerprint: "f".into(),
            device_kind: "cpu".into(),
            device_model: "c".into(),
            base_seconds: 0.001,
            per_row_seconds: 0.002,
        }
    }

    #[test]
    fn curves_come_back_and_a_broken_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.json");
        assert_eq!(CurveFile::new(path.clone()).read(), []);
        CurveFile::new(path.clone()).write(vec![curve("a"), curve("b")]);
        assert_eq!(CurveFile::new(path.clone()).read(), [curve("a"), curve("b")]);
        for broken in ["[{\"model\": \"a\"", "{}", "[1]"] {
            fs::write(&path, broken).unwrap();
            assert_eq!(CurveFile::new(path.clone()).read(), [], "{broken}");
        }
        assert_eq!(CurveFile::new(folder.path().to_owned()).read(), []);
    }
}
