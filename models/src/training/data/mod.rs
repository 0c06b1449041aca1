//! What a model learns from: examples that are read where they lie, when they are wanted.

mod idx;
mod order;
mod rows;
mod table;

use std::path::{Path, PathBuf};

use orion_proto::Result;

pub(super) use order::{mix, places};
pub(super) use rows::Columns;
pub(super) use table::Table;

use crate::{unreadable, unservable};
use idx::Idx;

/// Which part of a folder that has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Test,
}

/// Examples with a class each.
#[derive(Debug)]
pub(super) struct Dataset {
    images: Idx,
    labels: Idx,
    /// Of one example: channels, height, width.
    pub(super) shape: [usize; 3],
    /// One more than the greatest class.
    pub(super) classes: usize,
}

/// Some examples, ready to be computed with.
pub(super) struct Examples {
    /// One after the other.
    pub(super) values: Vec<f32>,
    pub(super) classes: Vec<u32>,
}

impl Dataset {
    /// Opens what lies at a path; none where the folder has no such part.
    pub(super) fn open(path: &Path, part: Part) -> Result<Option<Self>> {
        let Some((images, labels)) = files(path, part)? else { return Ok(None) };
        let (images, labels) = (Idx::open(&images)?, Idx::open(&labels)?);
        let shape = match *images.dims.as_slice() {
            [_, height, width] => [1, height, width],
            [_, channels, height, width] => [channels, height, width],
            _ => {
                return Err(unservable(format!("the images have {:?} dimensions, they must have 3 or 4", images.dims)));
            }
        };
        if labels.dims.len() != 1 || labels.dims[0] != images.dims[0] {
            return Err(unservable(format!("there are labels of {:?} for images of {:?}", labels.dims, images.dims)));
        }
        if labels.dims[0] == 0 || shape.contains(&0) {
            return Err(unservable(format!("{} has no examples", path.display())));
        }
        let greatest = (0..labels.dims[0]).map(|index| labels.at(index)[0]).max().unwrap_or(0);
        Ok(Some(Self { images, labels, shape, classes: usize::from(greatest) + 1 }))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.labels.dims[0]
    }

    /// Hashes all that is learnt from.
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        for file in [&self.images, &self.labels] {
            file.hash(hasher);
        }
    }

    /// Reads some.
    pub(super) fn read(&self, indices: impl Iterator<Item = usize>) -> Examples {
        let mut examples = Examples { values: Vec::new(), classes: Vec::new() };
        for index in indices {
            examples.values.extend(self.images.at(index).iter().map(|byte| f32::from(*byte) / 255.0));
            examples.classes.push(u32::from(self.labels.at(index)[0]));
        }
        examples
    }
}

/// The files of images and labels of a folder, as MNIST's are named.
fn files(path: &Path, part: Part) -> Result<Option<(PathBuf, PathBuf)>> {
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.ends_with(".gz"))
        .collect();
    names.sort();
    let begins = |name: &String| match part {
        Part::Train => name.starts_with("train"),
        Part::Test => name.starts_with("t10k") || name.starts_with("test"),
    };
    let find = |what: &str| names.iter().find(|name| begins(name) && name.contains(what)).map(|name| path.join(name));
    match (find("images"), find("labels"), part) {
        (Some(images), Some(labels), _) => Ok(Some((images, labels))),
        (None, None, Part::Test) => Ok(None),
        _ => {
            let listed: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
            let text =
                "it must have IDX files such as train-images-idx3-ubyte and train-labels-idx1-ubyte, uncompressed";
            Err(unservable(format!("folder {} holds {}: {text}", path.display(), listed.join(", "))))
        }
    }
}
