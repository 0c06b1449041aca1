//! The names of classes: `labels.txt`, one a line, or Hugging Face's `id2label`.

use std::{collections::HashMap, path::Path};

use orion_proto::Result;

use crate::{file::read_text, unservable};

const FILE: &str = "labels.txt";

/// One label for each class; empty ones where the folder names none.
pub(super) fn read(folder: &Path, named: &HashMap<usize, String>, classes: usize) -> Result<Vec<String>> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok((0..classes).map(|class| named.get(&class).cloned().unwrap_or_default()).collect());
    }
    let text = String::from_utf8(read_text(&path)?)
        .map_err(|error| unservable(format!("{} is not utf-8: {error}", path.display())))?;
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if labels.len() == classes {
        return Ok(labels);
    }
    Err(unservable(format!("{} has {} lines, the model has {classes} classes", path.display(), labels.len())))
}
