//! Where Orion keeps its data when nobody says where.

use std::path::PathBuf;

use crate::Failure;

/// The user's own data folder for Orion; it may not be there yet.
pub(crate) fn users() -> Result<PathBuf, Failure> {
    let folders = directories::ProjectDirs::from("", "", "orion");
    folders.map(|folders| folders.data_dir().to_owned()).ok_or_else(|| {
        Failure::new("the user's data folder is unknown since there is no home folder")
            .hint("give one with --data-dir DIR")
    })
}
