//! The store that a command works on.

use std::path::{Path, PathBuf};

use clap::Args;
use orion_net::store::{Policy, Quota, Store};

use crate::{Failure, data_folder};

/// Where a command keeps artifacts on this machine.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArguments {
    #[command(flatten)]
    flags: StoreFlags,
    /// Folder for what is kept between runs; the user's data folder if not given
    #[arg(long, global = true, env = "ORION_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The store itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreFlags {
    /// Folder of this machine's artifacts [default: `store` in the data folder]
    #[arg(long, global = true, env = "ORION_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// Bytes that the store may take, such as 200GB or 64GiB [default: as many as there are]
    #[arg(long, global = true, env = "ORION_STORE_BYTES", value_name = "SIZE", value_parser = size)]
    store_bytes: Option<u64>,
    /// What leaves a full store first: lru, lfu, fifo, ttl:SECONDS or adaptive
    #[arg(long, global = true, env = "ORION_STORE_POLICY", value_name = "POLICY", default_value = "adaptive")]
    store_policy: Policy,
}

impl StoreArguments {
    /// Opens it.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        match &self.data_dir {
            Some(data_dir) => self.flags.open(data_dir),
            None => self.flags.open(&data_folder::users()?),
        }
    }
}

impl StoreFlags {
    /// Opens it; it is in the data folder unless it was said where.
    pub(crate) fn open(&self, data_dir: &Path) -> Result<Store, Failure> {
        let folder = self.store.clone().unwrap_or_else(|| data_dir.join("store"));
        Ok(Store::open(folder, Quota { bytes: self.store_bytes, policy: self.store_policy })?)
    }
}

/// Reads a count of bytes with its unit.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let found = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = found.unwrap_or((text, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "a count of bytes, such as 200GB or 64GiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("1", 1), ("7B", 7), ("64 GiB", 64 << 30), ("200GB", 200_000_000_000), ("3KB", 3000)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "GB", "-1", "1.5GB", "99999999999TB", "1XB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
