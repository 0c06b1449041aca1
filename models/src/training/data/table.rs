//! Texts, with a class each or without: read where they lie, when they are wanted; only where each row begins is kept.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use orion_proto::{Error, Result};

use super::{
    Part,
    rows::{Columns, RowFile, ends_in},
};
use crate::{unreadable, unservable};

/// Classes that a file may have: one for each text is a mistake.
const MOST_CLASSES: usize = 1 << 12;

/// A row's place.
#[derive(Clone, Copy, Debug)]
struct Row {
    start: usize,
    line: u64,
    class: u32,
}

/// Texts.
#[derive(Debug)]
pub(in crate::training) struct Table {
    file: RowFile,
    rows: Vec<Row>,
    /// The classes in the order in which they were found.
    found: Vec<String>,
}

impl Table {
    /// Opens what lies at a path; none where it has no such part: a file has one alone.
    ///
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file, the line and what is wrong with it.
    fn open(path: &Path, part: Part, columns: Columns<String>) -> Result<Option<Self>> {
        let Some(path) = file(path, part)? else { return Ok(None) };
        let file = RowFile::open(path, columns)?;
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        file.scan(|start, line, columns| {
            let (class, next) = (columns.label.unwrap_or_default(), known.len());
            let class = match known.get(&class) {
                Some(class) => *class,
                None if next == MOST_CLASSES => {
                    return Err(file.wrong(line, &format!("it is of another class, {MOST_CLASSES} are at most")));
                }
                None => {
                    found.push(class.clone());
                    known.insert(class, next as u32);
                    next as u32
                }
            };
            rows.push(Row { start, line, class });
            Ok(())
        })?;
        if rows.is_empty() {
            return Err(unservable(format!("{} has no rows", file.path().display())));
        }
        Ok(Some(Self { file, rows, found }))
    }

    /// What is learnt from, and what it is tested with, as a plan has them.
    ///
    /// # Errors
    /// As [`Table::open`], and where there is nothing at a path that is named.
    pub(in crate::training) fn both(
        train: &Path,
        test: Option<&Path>,
        columns: &Columns<String>,
    ) -> Result<(Self, Option<Self>)> {
        let open = |path, part| Self::open(path, part, columns.clone());
        let learnt = open(train, Part::Train)?;
        let learnt = learnt.ok_or_else(|| unservable(format!("{} has no examples", train.display())))?;
        let none = |path: &Path| unservable(format!("folder {} has neither test.jsonl nor test.csv", path.display()));
        let test = match test {
            Some(path) => Some(open(path, Part::Test)?.ok_or_else(|| none(path))?),
            None if train.is_file() => None,
            None => open(train, Part::Test)?,
        };
        Ok((learnt, test))
    }

    /// How many there are.
    pub(in crate::training) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The classes that were found.
    pub(in crate::training) fn found(&self) -> &[String] {
        &self.found
    }

    /// Whose classes they are, in messages.
    pub(in crate::training) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What a row has, and its class as [`Table::found`] counts them.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where the file was changed meanwhile.
    pub(in crate::training) fn row(&self, index: usize) -> Result<(Columns<String>, u32)> {
        let Row { start, line, class } = self.rows[index];
        Ok((self.file.row(start, line)?, class))
    }

    /// That something is wrong with a row.
    pub(in crate::training) fn wrong(&self, index: usize, why: &str) -> Error {
        self.file.wrong(self.rows[index].line, &why)
    }

    /// Hashes all that is learnt from.
    pub(in crate::training) fn hash(&self, hasher: &mut blake3::Hasher) {
        self.file.hash(hasher);
    }
}

/// The file of a part: a file is whatever it is asked for, a folder has one for each.
fn file(path: &Path, part: Part) -> Result<Option<PathBuf>> {
    let is_table = |path: &Path| ["jsonl", "csv"].iter().any(|end| ends_in(path, end));
    if !path.is_dir() && path.exists() {
        if is_table(path) {
            return Ok(Some(path.into()));
        }
        return Err(unservable(format!("{} must be a file in .jsonl or .csv, or a folder of such", path.display())));
    }
    let name = if part == Part::Train { "train" } else { "test" };
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.sort();
    let of_part: Vec<&PathBuf> =
        names.iter().filter(|path| is_table(path) && path.file_stem().is_some_and(|stem| stem == name)).collect();
    match (of_part.as_slice(), part) {
        ([one], _) => Ok(Some((*one).clone())),
        ([], Part::Test) => Ok(None),
        ([], Part::Train) => {
            Err(unservable(format!("folder {} has neither train.jsonl nor train.csv", path.display())))
        }
        _ => Err(unservable(format!("folder {} has several files of {name} examples", path.display()))),
    }
}
