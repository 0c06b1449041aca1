//! One column: its values record by record, as JSON and as they are.

use std::sync::{Arc, atomic::AtomicU64};

use orion_proto::{Error, Result};
use parquet::{
    basic::Type as Physical,
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader, get_typed_column_reader},
    data_type::{
        BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type,
        Int64Type, Int96, Int96Type,
    },
    file::{metadata::RowGroupMetaData, writer::SerializedColumnWriter},
    schema::types::ColumnDescPtr,
};
use serde_json::Value;

use super::{
    budget::Share,
    shape::Shape,
    shown::Shown,
    source::{Pages, Source},
    unread,
};

/// Bytes of the levels of a value.
const LEVELS: usize = 4;

/// A column of a group of rows, record after record.
pub(super) trait Column: Send {
    /// Goes to the next record; the first is next at the beginning.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where there is none, or the file is damaged.
    fn advance(&mut self) -> Result<()>;

    /// The record as JSON; null where it is not there.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where no JSON can be made of it.
    fn value(&self) -> Result<Value>;

    /// Bytes of the record.
    fn bytes(&self) -> usize;

    /// Adds the record to those that are kept, and says how many bytes these have.
    fn keep(&mut self) -> usize;

    /// What is kept, which is then written.
    fn take(&mut self) -> Box<dyn Kept>;
}

/// Records of a column that are to be written.
pub(in crate::jobs) trait Kept: Send {
    /// Writes them.
    fn write(&self, into: &mut SerializedColumnWriter<'_>) -> parquet::errors::Result<()>;
}

/// Opens a column of a group of rows.
pub(super) fn open(
    source: &Source,
    group: &RowGroupMetaData,
    place: usize,
    shape: Shape,
    held: &Arc<AtomicU64>,
) -> Result<Box<dyn Column>> {
    let column = group.column(place);
    let rows =
        usize::try_from(group.num_rows()).map_err(|_| Error::invalid("a group of the file has too many rows"))?;
    let descr = column.column_descr_ptr();
    // Buffers double as they grow.
    let value_bytes = 2 * (LEVELS + width(descr.physical_type())) as u64;
    let share = Share::new(held.clone(), group.num_columns(), if shape.is_list { value_bytes } else { 0 });
    let pages = Pages::new(source.clone(), column, rows, share.clone())?;
    let reader = get_column_reader(descr.clone(), Box::new(pages));
    Ok(match descr.physical_type() {
        Physical::BOOLEAN => typed::<BoolType>(reader, descr, shape, share),
        Physical::INT32 => typed::<Int32Type>(reader, descr, shape, share),
        Physical::INT64 => typed::<Int64Type>(reader, descr, shape, share),
        Physical::INT96 => typed::<Int96Type>(reader, descr, shape, share),
        Physical::FLOAT => typed::<FloatType>(reader, descr, shape, share),
        Physical::DOUBLE => typed::<DoubleType>(reader, descr, shape, share),
        Physical::BYTE_ARRAY => typed::<ByteArrayType>(reader, descr, shape, share),
        Physical::FIXED_LEN_BYTE_ARRAY => typed::<FixedLenByteArrayType>(reader, descr, shape, share),
    })
}

/// Bytes of a value of this type in memory.
fn width(physical: Physical) -> usize {
    match physical {
        Physical::BOOLEAN => size_of::<bool>(),
        Physical::INT32 | Physical::FLOAT => size_of::<i32>(),
        Physical::INT64 | Physical::DOUBLE => size_of::<i64>(),
        Physical::INT96 => size_of::<Int96>(),
        Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => size_of::<ByteArray>(),
    }
}

fn typed<T: DataType<T: Shown>>(
    reader: ColumnReader,
    descr: ColumnDescPtr,
    shape: Shape,
    share: Arc<Share>,
) -> Box<dyn Column> {
    let (most, reader) = (descr.max_def_level(), get_typed_column_reader(reader));
    let (held, kept) = (Cells::<T>::new(most > 0, shape.is_list), Cells::new(most > 0, shape.is_list));
    Box::new(Typed { reader, shape, most, share, held, at: Span::default(), kept, kept_bytes: 0 })
}

/// Values, and where they belong. <https://parquet.apache.org/docs/file-format/nestedencoding/>
pub(super) struct Cells<T: DataType> {
    pub(super) values: Vec<T::T>,
    pub(super) definitions: Vec<i16>,
    pub(super) repetitions: Vec<i16>,
    /// Whether the column has such levels.
    levels: (bool, bool),
}

impl<T: DataType> Cells<T> {
    pub(super) fn new(is_optional: bool, is_list: bool) -> Self {
        let levels = (is_optional, is_list);
        Self { values: Vec::new(), definitions: Vec::new(), repetitions: Vec::new(), levels }
    }
}

/// Where a record is among those that are held.
#[derive(Clone, Copy, Default)]
struct Span {
    levels: (usize, usize),
    values: (usize, usize),
}

struct Typed<T: DataType> {
    reader: ColumnReaderImpl<T>,
    shape: Shape,
    /// The definition level of what is there.
    most: i16,
    share: Arc<Share>,
    held: Cells<T>,
    at: Span,
    kept: Cells<T>,
    kept_bytes: usize,
}

impl<T: DataType<T: Shown>> Typed<T> {
    /// Reads records behind the last.
    fn refill(&mut self) -> Result<()> {
        // What was long must not stay reserved.
        self.held = Cells::new(self.held.levels.0, self.held.levels.1);
        let Cells { values, definitions, repetitions, .. } = &mut self.held;
        self.at = Span::default();
        let read = self.reader.read_records(self.share.next(), Some(definitions), Some(repetitions), values);
        let (records, found, levels) = read.map_err(unread)?;
        self.share.read(records);
        if self.most == 0 {
            definitions.resize(found, 0);
        }
        if !self.shape.is_list {
            repetitions.clear();
            repetitions.resize(definitions.len(), 0);
        }
        let is_sound = definitions.len() == repetitions.len() && (levels == definitions.len() || self.most == 0);
        let present = definitions.iter().filter(|level| **level == self.most).count();
        if !is_sound || present != values.len() || repetitions.first().is_some_and(|first| *first != 0) {
            return Err(Error::invalid("the file is damaged: its lists and values do not fit together"));
        }
        Ok(())
    }

    fn levels(&self) -> &[i16] {
        &self.held.definitions[self.at.levels.0..self.at.levels.1]
    }

    fn values(&self) -> &[T::T] {
        &self.held.values[self.at.values.0..self.at.values.1]
    }
}

impl<T: DataType<T: Shown>> Column for Typed<T> {
    fn advance(&mut self) -> Result<()> {
        if self.at.levels.1 >= self.held.definitions.len() {
            self.refill()?;
        }
        let begins = self.at.levels.1;
        let rest = self.held.repetitions.get(begins + 1..).unwrap_or_default();
        if begins >= self.held.definitions.len() {
            return Err(Error::invalid("the file is damaged: a column has fewer rows than its group"));
        }
        let ends = begins + 1 + rest.iter().position(|level| *level == 0).unwrap_or(rest.len());
        let present = self.held.definitions[begins..ends].iter().filter(|level| **level == self.most).count();
        let from = self.at.values.1;
        self.at = Span { levels: (begins, ends), values: (from, from + present) };
        Ok(())
    }

    fn value(&self) -> Result<Value> {
        if let Some(why) = self.shape.no_number {
            return Err(Error::invalid(why));
        }
        let mut values = self.values().iter();
        let mut next = |level: &i16| match (*level == self.most).then(|| values.next()).flatten() {
            Some(value) => value.shown(self.shape.is_unsigned),
            None => Ok(Value::Null),
        };
        if !self.shape.is_list {
            return self.levels().iter().map(next).next().unwrap_or(Ok(Value::Null));
        }
        match self.levels() {
            [only] if *only < self.shape.elements => {
                Ok(if *only + 1 == self.shape.elements { Value::Array(Vec::new()) } else { Value::Null })
            }
            levels => levels.iter().map(&mut next).collect::<Result<_>>().map(Value::Array),
        }
    }

    fn bytes(&self) -> usize {
        self.values().iter().map(Shown::bytes).sum::<usize>() + self.levels().len()
    }

    fn keep(&mut self) -> usize {
        let (levels, values) = (self.at.levels, self.at.values);
        self.kept.definitions.extend_from_slice(&self.held.definitions[levels.0..levels.1]);
        self.kept.repetitions.extend_from_slice(&self.held.repetitions[levels.0..levels.1]);
        let kept = &self.held.values[values.0..values.1];
        self.kept.values.extend(kept.iter().map(Shown::owned));
        let each = LEVELS + size_of::<T::T>();
        self.kept_bytes += kept.iter().map(Shown::bytes).sum::<usize>() + each * (levels.1 - levels.0);
        self.kept_bytes
    }

    fn take(&mut self) -> Box<dyn Kept> {
        let (is_optional, is_list) = self.kept.levels;
        self.kept_bytes = 0;
        Box::new(std::mem::replace(&mut self.kept, Cells::new(is_optional, is_list)))
    }
}

impl<T: DataType> Kept for Cells<T> {
    fn write(&self, into: &mut SerializedColumnWriter<'_>) -> parquet::errors::Result<()> {
        let definitions = self.levels.0.then_some(&*self.definitions);
        let repetitions = self.levels.1.then_some(&*self.repetitions);
        into.typed::<T>().write_batch(&self.values, definitions, repetitions).map(|_| ())
    }
}
