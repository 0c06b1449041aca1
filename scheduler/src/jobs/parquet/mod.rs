//! Files of Parquet: rows read one after the other, and rows written. <https://parquet.apache.org/docs/file-format/>
//! A column is a value a row or a list of them. What a file says of itself is held against its bytes before it is believed.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicU64},
};

use orion_proto::{Code, Error, Result};
use parquet::{
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, ParquetMetaDataReader},
        reader::ChunkReader,
    },
    schema::types::{Type, TypePtr},
};
use serde_json::Value;
use tokio::sync::Semaphore;

mod budget;
mod column;
pub(super) mod rows;
mod shape;
mod shown;
mod source;
#[cfg(test)]
mod tests;
mod thrift;
pub(super) mod write;

use column::Column;
pub(super) use column::Kept;
use shape::Shape;
use source::Source;

use crate::journal::{Address, Journal};

/// Columns of a file, and bytes that it may say of itself.
const MOST_COLUMNS: usize = 1024;
const MOST_METADATA: usize = 2 << 20;
/// Rows that any file may have: a few bytes may be billions of the same.
const FEW_ROWS: u64 = 1_000_000;
/// Levels of a schema: its root, a list, what is repeated, a value; and those that are refused with a word.
const DEEPEST: usize = 8;
/// Bytes of a stack on which so much metadata is decoded: a level of a schema has 5 bytes of it, and takes some 800 there.
const STACK: usize = 512 << 20;
/// Bytes at the end: how many it says of itself, and what it is.
const TAIL: usize = 8;

/// Files that are read at once, by jobs and by those who read what came of them.
const READ: usize = 8;

/// How many more files may be read.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) of_jobs: Arc<Semaphore>,
    pub(super) of_readers: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self { of_jobs: Arc::new(Semaphore::new(READ)), of_readers: Arc::new(Semaphore::new(READ)) }
    }
}

/// A file whose rows are read.
pub(super) struct Parquet {
    source: Source,
    metadata: ParquetMetaData,
    /// Of its columns.
    shapes: Vec<Shape>,
    /// Bytes that its columns have in memory.
    held: Arc<AtomicU64>,
    columns: Vec<Box<dyn Column>>,
    /// The group of rows that follows, and how many rows are left of this one.
    group: usize,
    left: u64,
    /// Rows that are behind.
    at: u64,
}

impl Parquet {
    /// Opens a file.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming what is wrong with it; INTERNAL where it cannot be read.
    pub(super) fn open(journal: Arc<dyn Journal>, address: Address, length: u64) -> Result<Self> {
        let source = Source { journal, address, length };
        let metadata = guarded(|| metadata(&source))?;
        let fields = metadata.file_metadata().schema().get_fields();
        if fields.is_empty() || fields.len() > MOST_COLUMNS {
            let text = format!("the file has {} columns, it must have 1 to {MOST_COLUMNS}", fields.len());
            return Err(Error::invalid(text));
        }
        let mut shapes = Vec::with_capacity(fields.len());
        for (place, field) in fields.iter().enumerate() {
            let name = field.name();
            if name.is_empty() || fields[..place].iter().any(|other| other.name() == name) {
                let text = format!("column {} of the file is named '{name}', each needs a name of its own", place + 1);
                return Err(Error::invalid(text));
            }
            shapes.push(shape::shape(field)?);
        }
        let held = Arc::default();
        let file = Self { source, metadata, shapes, held, columns: Vec::new(), group: 0, left: 0, at: 0 };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        let (mut rows, mut bytes, count) = (0u64, 0u64, self.metadata.file_metadata().num_rows());
        for group in self.metadata.row_groups() {
            let own = u64::try_from(group.num_rows()).ok();
            rows = own.and_then(|own| rows.checked_add(own)).unwrap_or(u64::MAX);
            let sizes =
                group.columns().iter().map(|column| u64::try_from(column.compressed_size()).unwrap_or(u64::MAX));
            bytes = sizes.fold(bytes, u64::saturating_add);
        }
        if bytes > self.source.length {
            return Err(Error::invalid("the file is damaged: its columns have more bytes than it"));
        }
        let most = self.source.length.max(FEW_ROWS);
        if rows > most {
            return Err(Error::invalid(format!("the file has {rows} rows, one of its length may have {most}")));
        }
        if i64::try_from(rows) != Ok(count) {
            return Err(Error::invalid("the file is damaged: its groups have other rows than it says"));
        }
        Ok(())
    }

    /// How many rows the file has.
    pub(super) fn rows(&self) -> u64 {
        self.metadata.row_groups().iter().map(|group| group.num_rows().unsigned_abs()).sum()
    }

    /// The names of the columns, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields().iter().map(|field| field.name())
    }

    /// The types of the file's columns.
    pub(super) fn fields(&self) -> &[TypePtr] {
        self.metadata.file_metadata().schema().get_fields()
    }

    /// Goes to the row of this number, from 1; one that is before the last is looked for from the beginning.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where there is none or the file is damaged; INTERNAL where it cannot be read.
    pub(super) fn go_to(&mut self, row: u64) -> Result<()> {
        if row < self.at {
            self.columns.clear();
            (self.group, self.left, self.at) = (0, 0, 0);
        }
        // Groups that are before it are not read.
        while self.leaves_group(row) {
            self.at += self.left;
            self.open_group()?;
        }
        while self.at < row {
            guarded(|| self.columns.iter_mut().try_for_each(|column| column.advance()))?;
            (self.at, self.left) = (self.at + 1, self.left - 1);
        }
        Ok(())
    }

    /// Whether this row is in a later group of rows; what is kept must be taken before it is gone to.
    pub(super) fn leaves_group(&self, row: u64) -> bool {
        row > self.at.saturating_add(self.left)
    }

    fn open_group(&mut self) -> Result<()> {
        // Their pages are given back first.
        self.columns.clear();
        if self.group >= self.metadata.num_row_groups() {
            return Err(Error::invalid(format!("the file has {} rows", self.rows())));
        }
        let group = self.metadata.row_group(self.group);
        // Each shape has one column, so that they have the same places.
        let open = |(place, shape): (usize, &Shape)| column::open(&self.source, group, place, *shape, &self.held);
        self.columns = guarded(|| self.shapes.iter().enumerate().map(open).collect())?;
        (self.group, self.left) = (self.group + 1, group.num_rows().unsigned_abs());
        Ok(())
    }

    /// The value of the row in this column.
    pub(super) fn value(&self, place: usize) -> Result<Value> {
        self.columns.get(place).map_or(Ok(Value::Null), |column| column.value())
    }

    /// Bytes of the row, column by column.
    pub(super) fn bytes(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|column| column.bytes())
    }

    /// Adds the row to those that are kept, and says how many bytes they have.
    pub(super) fn keep(&mut self) -> usize {
        self.columns.iter_mut().map(|column| column.keep()).sum()
    }

    /// The rows that are kept, column by column.
    pub(super) fn take(&mut self) -> Vec<Box<dyn Kept>> {
        self.columns.iter_mut().map(|column| column.take()).collect()
    }
}

/// What a file says of itself, looked at before it is decoded.
fn metadata(source: &Source) -> Result<ParquetMetaData> {
    let no_file = || Error::invalid("the file is no Parquet: it does not end in PAR1");
    let begins = source.length.checked_sub(TAIL as u64).ok_or_else(no_file)?;
    let tail = source.get_bytes(begins, TAIL).map_err(unread)?;
    let (length, magic) = tail.split_at(4);
    match magic {
        b"PAR1" => {}
        b"PARE" => return Err(Error::invalid("the file is encrypted, it must not be")),
        _ => return Err(no_file()),
    }
    let length = length.iter().rev().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    if length > MOST_METADATA {
        let text = format!("the file says {length} bytes of itself, it may have {MOST_METADATA} of metadata");
        return Err(Error::invalid(text));
    }
    let damaged = || Error::invalid("the file is damaged: what it says of itself cannot be read");
    let begins = begins.checked_sub(length as u64).ok_or_else(damaged)?;
    let bytes = source.get_bytes(begins, length).map_err(unread)?;
    thrift::structure(&bytes, &mut |_, _| ()).ok_or_else(damaged)?;
    let no_thread = |_| Error::new(Code::Internal, "its metadata cannot be read: there is no thread for it");
    std::thread::scope(|scope| {
        let decoding = std::thread::Builder::new().stack_size(STACK);
        let decoding = decoding.spawn_scoped(scope, || guarded(|| decoded(&bytes))).map_err(no_thread)?;
        decoding.join().map_err(|_| damaged())?
    })
}

/// Decodes it, where the stack is deep enough: the library calls itself for each level of a schema, also where it is dropped.
fn decoded(bytes: &[u8]) -> Result<ParquetMetaData> {
    let metadata = ParquetMetaDataReader::decode_metadata(bytes).map_err(unread)?;
    if metadata.file_metadata().schema().get_fields().iter().any(|field| is_deep(field, DEEPEST)) {
        return Err(Error::invalid("the file's columns must be values or lists of values: they are nested deeper"));
    }
    Ok(metadata)
}

fn is_deep(field: &Type, most: usize) -> bool {
    !field.is_primitive() && (most == 0 || field.get_fields().iter().any(|field| is_deep(field, most - 1)))
}

/// What the library makes of a damaged file is an error, also where it gives up.
fn guarded<R>(read: impl FnOnce() -> Result<R>) -> Result<R> {
    // What was being read is not looked at again.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(Error::invalid("the file is damaged")))
}

fn unread(error: ParquetError) -> Error {
    match error {
        ParquetError::External(error) if error.is::<io::Error>() => {
            Error::new(Code::Internal, format!("its file cannot be read: {error}"))
        }
        error => Error::invalid(format!("the file cannot be read: {error}")),
    }
}
