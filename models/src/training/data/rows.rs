//! Files of rows, in JSONL or CSV.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use csv::StringRecord;
use orion_proto::{Error, Result};
use serde_json::{Map, Value};

use crate::{mapped::MappedFile, unservable};

/// Bytes of one row, and of the buffer through which it is read.
const ROW_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 1 << 10;
/// Bytes of a class's name.
const LABEL_BYTES: usize = 256;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a row has: a text, and where it is wanted a class and the path of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::training) struct Columns<T> {
    pub(in crate::training) text: T,
    pub(in crate::training) label: Option<T>,
    pub(in crate::training) image: Option<T>,
}

impl<T> Columns<T> {
    /// The same of something else.
    fn each<U>(&self, mut of: impl FnMut(&T) -> Result<U>) -> Result<Columns<U>> {
        let text = of(&self.text)?;
        let mut optional = |column: &Option<T>| column.as_ref().map(&mut of).transpose();
        Ok(Columns { text, label: optional(&self.label)?, image: optional(&self.image)? })
    }
}

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    /// With these keys.
    Jsonl(Columns<String>),
    /// At these places of a row.
    Csv(Columns<usize>),
}

/// A file of rows.
#[derive(Debug)]
pub(super) struct RowFile {
    path: PathBuf,
    map: MappedFile,
    format: Format,
}

impl RowFile {
    /// Opens a file whose columns have these names.
    ///
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file, or the column that it has not.
    pub(super) fn open(path: PathBuf, columns: Columns<String>) -> Result<Self> {
        let map = MappedFile::open(&path)?;
        let format = match ends_in(&path, "csv") {
            false => Format::Jsonl(columns),
            true => Format::Csv(columns.each(|name| column(&path, map.bytes(), name))?),
        };
        Ok(Self { path, map, format })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(format!("{:?} {}", self.format, self.map.bytes().len()).as_bytes());
        hasher.update(self.map.bytes());
    }

    pub(super) fn wrong(&self, line: u64, why: &dyn Display) -> Error {
        wrong(&self.path, line, why)
    }

    /// Says of each row where it begins, its line and what it has.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the line and what is wrong with it, or what `row` says.
    pub(super) fn scan(&self, mut row: impl FnMut(usize, u64, Columns<String>) -> Result<()>) -> Result<()> {
        let bytes = self.map.bytes();
        let long = |line| self.wrong(line, &format!("it has more than {ROW_BYTES} bytes"));
        let mut check = |start: usize, line: u64, columns: Columns<String>| {
            match &columns.label {
                Some(label) if label.trim().is_empty() => return Err(self.wrong(line, &"its label is empty")),
                Some(label) if label.len() > LABEL_BYTES => {
                    return Err(self.wrong(line, &format!("its label has more than {LABEL_BYTES} bytes")));
                }
                _ => {}
            }
            if columns.text.trim().is_empty() {
                return Err(self.wrong(line, &"its text is empty"));
            }
            row(start, line, columns)
        };
        match &self.format {
            Format::Jsonl(names) => {
                // What some editors put before a text is no part of it.
                let mut start = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
                for (number, line) in (1..).zip(bytes[start..].split(|byte| *byte == b'\n')) {
                    if line.len() > ROW_BYTES {
                        return Err(long(number));
                    }
                    if !line.trim_ascii().is_empty() {
                        check(start, number, self.json(names, line, number)?)?;
                    }
                    start += line.len() + 1;
                }
            }
            Format::Csv(places) => {
                let (mut record, mut reader) = (StringRecord::new(), csv::Reader::from_reader(bytes));
                // The names of the columns are no row.
                reader.headers().map_err(|error| self.wrong(1, &error))?;
                let broken = |error: csv::Error| unservable(format!("{}: {error}", self.path.display()));
                while reader.read_record(&mut record).map_err(broken)? {
                    let (start, line) = record.position().map_or((0, 0), |at| (at.byte() as usize, at.line()));
                    if record.as_slice().len() > ROW_BYTES {
                        return Err(long(line));
                    }
                    check(start, line, cells(places, &record)?)?;
                }
            }
        }
        Ok(())
    }

    /// The row that begins there.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where the file was changed meanwhile.
    pub(super) fn row(&self, start: usize, line: u64) -> Result<Columns<String>> {
        let bytes = self.map.bytes().get(start..).unwrap_or_default();
        match &self.format {
            Format::Jsonl(names) => {
                let row = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                self.json(names, row, line)
            }
            Format::Csv(places) => {
                let mut reader = csv::ReaderBuilder::new();
                let mut reader = reader.has_headers(false).buffer_capacity(BUFFER_BYTES).from_reader(bytes);
                let mut record = StringRecord::new();
                reader.read_record(&mut record).map_err(|error| self.wrong(line, &error))?;
                cells(places, &record)
            }
        }
    }

    /// What a line has.
    fn json(&self, names: &Columns<String>, line: &[u8], number: u64) -> Result<Columns<String>> {
        let no_object = |error| self.wrong(number, &format!("it is no JSON object: {error}"));
        let row: Map<String, Value> = serde_json::from_slice(line).map_err(no_object)?;
        names.each(|name| match row.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            // Classes may be counted.
            Some(Value::Number(class)) if names.label.as_ref() == Some(name) && !class.is_f64() => {
                Ok(class.to_string())
            }
            Some(Value::Bool(class)) if names.label.as_ref() == Some(name) => Ok(class.to_string()),
            Some(_) if names.label.as_ref() == Some(name) => {
                Err(self.wrong(number, &format!("'{name}' must be a text, a whole number, true or false")))
            }
            Some(_) => Err(self.wrong(number, &format!("'{name}' must be a text"))),
            None => Err(self.wrong(number, &format!("it has no '{name}'"))),
        })
    }
}

/// What a record has.
fn cells(places: &Columns<usize>, record: &StringRecord) -> Result<Columns<String>> {
    places.each(|at| Ok(record.get(*at).unwrap_or_default().to_owned()))
}

fn wrong(path: &Path, line: u64, why: &dyn Display) -> Error {
    unservable(format!("line {line} of {}: {why}", path.display()))
}

pub(super) fn ends_in(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(end))
}

/// Where the column of this name is.
fn column(path: &Path, bytes: &[u8], name: &str) -> Result<usize> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|error| wrong(path, 1, &error))?;
    header.iter().position(|column| column == name).ok_or_else(|| {
        let found: Vec<&str> = header.iter().take(16).collect();
        let found = if found.is_empty() { "none".into() } else { found.join(", ") };
        wrong(path, 1, &format!("there is no column '{name}', it has {found}"))
    })
}
