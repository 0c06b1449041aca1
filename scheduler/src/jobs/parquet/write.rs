//! Rows written as Parquet: groups of them, as they come.

use std::{io, sync::Arc};

use orion_proto::{Code, Error, Result};
use parking_lot::Mutex;
use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::{Type, TypePtr},
};
use serde_json::Value;

use super::{Kept, column::Cells};

/// A file that is being written.
pub(in crate::jobs) struct Writer {
    /// Until it is closed.
    writer: Option<SerializedFileWriter<Sink>>,
    sink: Sink,
}

/// What was written and not taken yet.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    /// A file of these columns.
    pub(in crate::jobs) fn new(fields: Vec<TypePtr>) -> Result<Self> {
        let sink = Sink::default();
        let schema = Type::group_type_builder("schema").with_fields(fields).build().map_err(unwritten)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(sink.clone(), Arc::new(schema), Arc::new(properties));
        Ok(Self { writer: Some(writer.map_err(unwritten)?), sink })
    }

    /// Writes rows, column by column.
    pub(in crate::jobs) fn group(&mut self, columns: &[Box<dyn Kept>]) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let mut group = writer.next_row_group().map_err(unwritten)?;
        for column in columns {
            let Some(mut into) = group.next_column().map_err(unwritten)? else { break };
            column.write(&mut into).and_then(|()| into.close()).map_err(unwritten)?;
        }
        group.close().map(|_| ()).map_err(unwritten)
    }

    /// Writes what is at the end; there is nothing more afterwards.
    pub(in crate::jobs) fn close(&mut self) -> Result<()> {
        self.writer.take().map_or(Ok(()), |writer| writer.close().map(|_| ()).map_err(unwritten))
    }

    /// What was written since this was asked last.
    pub(in crate::jobs) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.sink.0.lock())
    }
}

fn unwritten(error: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("the table cannot be written: {error}"))
}

/// What the values of a column that is written are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) enum Kind {
    Bool,
    Int32,
    Int64,
    Float,
    Double,
    /// Also of what is no text: its JSON.
    Text,
}

impl Kind {
    /// What values of both are.
    pub(in crate::jobs) fn with(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Int32 | Self::Int64, Self::Int32 | Self::Int64) => Self::Int64,
            (Self::Text | Self::Bool, _) | (_, Self::Text | Self::Bool) => Self::Text,
            _ => Self::Double,
        }
    }
}

/// A column that is written value by value.
pub(in crate::jobs) trait Written: Send {
    /// The next row's value; null where there is none.
    ///
    /// # Errors
    /// INTERNAL where it is none of its kind.
    fn push(&mut self, value: &Value) -> Result<()>;

    /// Bytes that wait to be written.
    fn bytes(&self) -> usize;

    /// What waits, which is then written.
    fn take(&mut self) -> Box<dyn Kept>;
}

/// A column of this name, of values or of lists of them, and its type.
pub(in crate::jobs) fn column(name: &str, kind: Kind, is_list: bool) -> Result<(TypePtr, Box<dyn Written>)> {
    let (physical, logical) = match kind {
        Kind::Bool => (Physical::BOOLEAN, None),
        Kind::Int32 => (Physical::INT32, None),
        Kind::Int64 => (Physical::INT64, None),
        Kind::Float => (Physical::FLOAT, None),
        Kind::Double => (Physical::DOUBLE, None),
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    let value = |name| {
        let value = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        value.with_logical_type(logical.clone()).build().map(Arc::new)
    };
    let list = || {
        let elements = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
        let elements = Arc::new(elements.with_fields(vec![value("element")?]).build()?);
        let list = Type::group_type_builder(name).with_repetition(Repetition::OPTIONAL);
        list.with_logical_type(Some(LogicalType::List)).with_fields(vec![elements]).build().map(Arc::new)
    };
    let field = if is_list { list() } else { value(name) };
    let written: Box<dyn Written> = match kind {
        Kind::Bool => one::<BoolType>(is_list, Value::as_bool),
        Kind::Int32 => one::<Int32Type>(is_list, |value| i32::try_from(value.as_i64()?).ok()),
        Kind::Int64 => one::<Int64Type>(is_list, Value::as_i64),
        // What is no number has no other JSON than null.
        Kind::Float => one::<FloatType>(is_list, |value| value.as_f64().map(|value| value as f32)),
        Kind::Double => one::<DoubleType>(is_list, Value::as_f64),
        Kind::Text => one::<ByteArrayType>(is_list, |value| Some(text(value))),
    };
    Ok((field.map_err(unwritten)?, written))
}

fn text(value: &Value) -> ByteArray {
    match value {
        Value::String(text) => ByteArray::from(text.as_str()),
        value => ByteArray::from(value.to_string().into_bytes()),
    }
}

struct Values<T: DataType> {
    cells: Cells<T>,
    bytes: usize,
    is_list: bool,
    of: fn(&Value) -> Option<T::T>,
}

fn one<T: DataType>(is_list: bool, of: fn(&Value) -> Option<T::T>) -> Box<dyn Written> {
    Box::new(Values::<T> { cells: Cells::new(true, is_list), bytes: 0, is_list, of })
}

impl<T: DataType> Values<T> {
    fn add(&mut self, value: &Value, (definition, repetition): (i16, i16)) -> Result<()> {
        let there = match value {
            Value::Null => None,
            value => {
                let wrong = || Error::new(Code::Internal, "what was answered has another form than what was before it");
                Some((self.of)(value).ok_or_else(wrong)?)
            }
        };
        self.cells.definitions.push(definition + i16::from(there.is_some()));
        self.cells.repetitions.push(repetition);
        self.bytes += size_of::<T::T>() + value.as_str().map_or(4, str::len);
        self.cells.values.extend(there);
        Ok(())
    }
}

impl<T: DataType> Written for Values<T> {
    fn push(&mut self, value: &Value) -> Result<()> {
        match value {
            value if !self.is_list => self.add(value, (0, 0)),
            Value::Null => self.add(value, (0, 0)),
            Value::Array(all) if all.is_empty() => self.add(&Value::Null, (1, 0)),
            Value::Array(all) => {
                all.iter().enumerate().try_for_each(|(place, value)| self.add(value, (2, i16::from(place > 0))))
            }
            only => self.add(only, (2, 0)),
        }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self) -> Box<dyn Kept> {
        self.bytes = 0;
        Box::new(std::mem::replace(&mut self.cells, Cells::new(true, self.is_list)))
    }
}
