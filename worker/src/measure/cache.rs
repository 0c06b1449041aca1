//! Measured figures, kept per hardware.

use std::fs::{File, create_dir_all, read, remove_file, rename};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use orion_proto::session::Measurement;
use serde::{Deserialize, Serialize};

/// Below the data folder.
pub(super) const FOLDER: &str = "measured";

/// What is measured without a scheduler. 0: not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) f32_flops: f64,
    pub(super) bf16_flops: f64,
    pub(super) memory_bytes_per_second: f64,
    pub(super) disk_read_bytes_per_second: f64,
}

impl Figures {
    /// Whether every figure was measured; anything else is measured again.
    pub(super) fn complete(&self) -> bool {
        [self.f32_flops, self.bf16_flops, self.memory_bytes_per_second, self.disk_read_bytes_per_second]
            .into_iter()
            .all(|figure| figure.is_finite() && figure > 0.0)
    }

    pub(super) fn measurement(&self, cached: bool) -> Measurement {
        Measurement {
            f32_flops: self.f32_flops,
            bf16_flops: self.bf16_flops,
            memory_bytes_per_second: self.memory_bytes_per_second,
            disk_read_bytes_per_second: self.disk_read_bytes_per_second,
            cached,
            ..Measurement::default()
        }
    }
}

/// What the file holds. Another version may multiply faster or slower, so its figures are not this one's.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: String,
    figures: Figures,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The file that holds the figures of one fingerprint.
pub(super) struct Cache {
    path: PathBuf,
}

impl Cache {
    pub(super) fn new(data_dir: &Path, fingerprint: &str) -> Cache {
        Cache { path: data_dir.join(FOLDER).join(format!("{fingerprint}.json")) }
    }

    /// The figures, if they were kept. A file that does not hold them is removed, and measuring writes it anew.
    pub(super) fn load(&self) -> Option<Figures> {
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "kept figures cannot be read; measuring again");
                return None;
            }
        };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.figures.complete() => (kept.version == VERSION).then_some(kept.figures),
            _ => {
                tracing::warn!(file = %self.path.display(), "kept figures are damaged; measuring again");
                let _ = remove_file(&self.path);
                None
            }
        }
    }

    /// Keeps the figures; a reader sees the old file or the new one, never half of one.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub(super) fn store(&self, figures: &Figures) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            create_dir_all(folder)?;
        }
        let kept = Kept { version: VERSION.to_owned(), figures: figures.clone() };
        let fresh = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let written =
            write_synced(&fresh, &serde_json::to_vec_pretty(&kept)?).and_then(|()| rename(&fresh, &self.path));
        if written.is_err() {
            let _ = remove_file(&fresh);
        }
        written
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
