//! The rows of a file of CSV.

use std::{cell::Cell, collections::VecDeque, io, rc::Rc};

use orion_proto::{Code, Error, ModelSpec, Result, jobs::FileCalls};

use super::{
    decide::ReadLines,
    lines::{self, LONGEST, Line},
    reader::Reader,
    row::{self, Given},
};

/// Columns of a file.
const MOST_COLUMNS: usize = 1024;
/// Bytes of rows that are taken up at once, but for the last.
pub(super) const AT_ONCE: u64 = 1 << 20;
/// Bytes of rows that are read ahead, but for the last.
const AHEAD: u64 = 64 << 10;
/// What names a row.
pub(super) const CUSTOM_ID: &str = "custom_id";

/// The first row: the names of the columns, and where the next begins.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) names: Vec<String>,
    end: u64,
}

/// One row: its values, and where the next begins.
struct Row {
    values: Vec<Option<String>>,
    end: u64,
}

/// Stops what reads a row that does not end.
struct Limited<R> {
    inner: R,
    left: Rc<Cell<usize>>,
}

impl<R: io::Read> io::Read for Limited<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("it does not end"));
        }
        let read = self.inner.read(room)?;
        self.left.set(self.left.get().saturating_sub(read));
        Ok(read)
    }
}

/// Reads the header.
///
/// # Errors
/// INVALID_ARGUMENT naming what is wrong with it; INTERNAL where the file cannot be read.
pub(super) fn header(reader: &mut Reader) -> Result<Header> {
    let mut found = None;
    each(reader, 0, 0, |_, row| {
        found = Some(row);
        false
    })?;
    let row = found.ok_or_else(|| Error::invalid("the file has no first row, it must name the columns"))?;
    let names = row.values.into_iter().collect::<Option<Vec<String>>>();
    let names = names.ok_or_else(|| Error::invalid("the file's first row is no UTF-8 text"))?;
    if names.len() > MOST_COLUMNS {
        return Err(Error::invalid(format!("the file has {} columns, it may have {MOST_COLUMNS}", names.len())));
    }
    for (place, name) in names.iter().enumerate() {
        if name.is_empty() || names[..place].contains(name) {
            let text = format!("column {} of the file is named '{name}', each needs a name of its own", place + 1);
            return Err(Error::invalid(text));
        }
    }
    Ok(Header { names, end: row.end })
}

/// Reads rows from a place on, of which `before` are before it, until it is told to stop.
fn each(reader: &mut Reader, from: u64, before: u64, mut next: impl FnMut(u64, Row) -> bool) -> Result<()> {
    let left = Rc::new(Cell::new(2 * LONGEST));
    let stream = Limited { inner: reader.from(from), left: left.clone() };
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(stream);
    let (mut record, mut number) = (csv::ByteRecord::new(), before);
    loop {
        number += 1;
        match rows.read_byte_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(_) if left.get() == 0 => {
                let text = format!("row {number} is too long, a row may have {LONGEST} bytes: is a quote not closed?");
                return Err(Error::invalid(text));
            }
            Err(error) => return Err(Error::new(Code::Internal, format!("its file cannot be read: {error}"))),
        }
        left.set(2 * LONGEST);
        let text = |field: &[u8]| std::str::from_utf8(field).map(str::to_owned).ok();
        let values = record.iter().map(text).collect();
        if !next(number, Row { values, end: from + rows.position().byte() }) {
            return Ok(());
        }
    }
}

/// The rows after those that were taken up, at most so many.
///
/// # Errors
/// INVALID_ARGUMENT where the file does not go on; INTERNAL where it cannot be read.
pub(super) fn rows(
    reader: &mut Reader,
    header: &Header,
    (from, before): (u64, u64),
    most: usize,
    of: &FileCalls,
    model: Option<&ModelSpec>,
) -> Result<ReadLines> {
    let mut read = ReadLines { bytes: from.max(header.end), count: before, ..ReadLines::default() };
    let (start, mut is_full) = (read.bytes, false);
    each(reader, start, before, |number, row| {
        (read.bytes, read.count) = (row.end, number);
        read.lines.push(line(number, header, row, of, model));
        is_full = read.lines.len() >= most || read.bytes - start >= AT_ONCE;
        !is_full
    })?;
    if !is_full {
        read.bytes = reader.length();
    }
    Ok(read)
}

fn line(number: u64, header: &Header, row: Row, of: &FileCalls, model: Option<&ModelSpec>) -> Line {
    let named = named(header, row);
    let custom_id =
        named.as_ref().ok().and_then(|row| Some(row.iter().find(|(name, _)| *name == CUSTOM_ID)?.1.clone()));
    let call = named.and_then(|mut row| {
        row.retain(|(name, _)| *name != CUSTOM_ID);
        let row: Vec<(&str, Given)> = row.into_iter().map(|(name, text)| (name, Given::Text(text))).collect();
        row::call(&row, of, model)
    });
    lines::row(number, custom_id.unwrap_or_default(), call)
}

fn named(header: &Header, row: Row) -> Result<Vec<(&str, String)>> {
    let (given, wanted) = (row.values.len(), header.names.len());
    if given != wanted {
        return Err(Error::invalid(format!("the row has {given} values, the file has {wanted} columns")));
    }
    let names = header.names.iter().map(String::as_str).zip(row.values);
    let text = |(name, value): (&str, Option<String>)| {
        let wrong = || Error::invalid(format!("the value of column '{}' is no UTF-8 text", name.escape_default()));
        value.ok_or_else(wrong)
    };
    names.map(|(name, value)| Ok((name, text((name, value))?))).collect()
}

/// The rows of a file one after the other, beside what came of them.
pub(super) struct Beside {
    reader: Reader,
    pub(super) header: Header,
    at: u64,
    before: u64,
    /// Rows that were read ahead, with their numbers.
    ahead: VecDeque<(u64, Vec<String>)>,
}

impl Beside {
    pub(super) fn new(mut reader: Reader) -> Result<Self> {
        let header = header(&mut reader)?;
        Ok(Self { at: header.end, reader, header, before: 0, ahead: VecDeque::new() })
    }

    /// The values of the row of this number, which rises from call to call; what is no text is empty.
    ///
    /// # Errors
    /// INTERNAL where the file cannot be read, or has no such row.
    pub(super) fn values(&mut self, number: u64) -> Result<Vec<String>> {
        loop {
            match self.ahead.pop_front() {
                Some((found, values)) if found == number => return Ok(values),
                Some(_) => {}
                None if self.read_ahead()? => {}
                None => return Err(Error::new(Code::Internal, format!("its file has no row {number}"))),
            }
        }
    }

    /// Whether there was anything more.
    fn read_ahead(&mut self) -> Result<bool> {
        let (mut at, mut before, mut bytes) = (self.at, self.before, 0);
        let ahead = &mut self.ahead;
        let read = each(&mut self.reader, self.at, self.before, |number, row| {
            bytes += row.end - at;
            (at, before) = (row.end, number);
            ahead.push_back((number, row.values.into_iter().map(Option::unwrap_or_default).collect()));
            bytes < AHEAD
        });
        (self.at, self.before) = (at, before);
        // A row that does not end takes nothing from those before it.
        if self.ahead.is_empty() { read.map(|()| false) } else { Ok(true) }
    }
}
