//! The rows of a file of Parquet as calls.

use orion_proto::{Error, ModelSpec, Result, jobs::FileCalls};
use serde_json::Value;

use super::Parquet;
use crate::{
    api::http::reply::excerpt,
    jobs::{
        decide::ReadLines,
        lines::{self, LONGEST, Line},
        row::{self, Given, TEXTS},
        rows::{AT_ONCE, CUSTOM_ID},
    },
};

/// The rows after those that were taken up, at most so many.
///
/// # Errors
/// INVALID_ARGUMENT where the file is damaged; INTERNAL where it cannot be read.
pub(in crate::jobs) fn rows(
    file: &mut Parquet,
    before: u64,
    most: usize,
    of: &FileCalls,
    model: Option<&ModelSpec>,
) -> Result<ReadLines> {
    let (rows, mut taken) = (file.rows(), 0);
    let mut read = ReadLines { count: before, ..ReadLines::default() };
    while read.count < rows && read.lines.len() < most && taken < AT_ONCE {
        file.go_to(read.count + 1)?;
        read.count += 1;
        let line = line(read.count, file, of, model);
        taken += line.call.as_ref().map_or(0, |call| call.body.len() as u64);
        read.lines.push(line);
    }
    read.bytes = place(file.source.length, read.count, rows);
    Ok(read)
}

/// How much of a file is behind this row; all of it only behind the last.
fn place(length: u64, row: u64, rows: u64) -> u64 {
    if row >= rows {
        return length;
    }
    // What it is of is less than the file's length.
    let share = u128::from(length) * u128::from(row) / u128::from(rows);
    u64::try_from(share).unwrap_or(length).min(length.saturating_sub(1))
}

fn line(number: u64, file: &Parquet, of: &FileCalls, model: Option<&ModelSpec>) -> Line {
    let named = named(file, model);
    let custom_id = named.as_ref().ok().and_then(|row| match &row.iter().find(|(name, _)| *name == CUSTOM_ID)?.1 {
        Given::Text(text) => Some(text.clone()),
        Given::Value(Value::Null) => None,
        Given::Value(value) => Some(value.to_string()),
    });
    let call = named.and_then(|mut row| {
        row.retain(|(name, _)| *name != CUSTOM_ID);
        row::call(&row, of, model)
    });
    lines::row(number, custom_id.unwrap_or_default(), call)
}

/// The columns that a call is made of: the inputs of its model, or all that have JSON.
fn named<'f>(file: &'f Parquet, model: Option<&ModelSpec>) -> Result<Vec<(&'f str, Given)>> {
    let is_used =
        |name: &str| name == CUSTOM_ID || model.is_none_or(|model| model.inputs.iter().any(|input| input.name == name));
    // Before any of it is made: much may come of little.
    let bytes = file.names().zip(file.bytes()).filter(|(name, _)| is_used(name)).map(|(_, bytes)| bytes).sum::<usize>();
    if bytes > LONGEST {
        return Err(Error::invalid(format!("the row has {bytes} bytes, it may have {LONGEST}")));
    }
    let mut row = Vec::new();
    for (place, name) in file.names().enumerate().filter(|(_, name)| is_used(name)) {
        match file.value(place) {
            Ok(Value::String(text)) => row.push((name, Given::Text(text))),
            Ok(value) => row.push((name, Given::Value(value))),
            // A field that it cannot be is none.
            Err(_) if model.is_none() && !TEXTS.contains(&name) => {}
            Err(Error { code, message, .. }) => {
                let text = format!("the value of column '{}' cannot be taken: {message}", excerpt(name));
                return Err(Error::new(code, text));
            }
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_its_last_row_is() {
        for (length, rows) in [(100, 7), (100, 1000), (5, 1_000_000), (u64::MAX, u64::MAX)] {
            let mut before = 0;
            for row in [1, 2, rows / 2, rows - 1] {
                let now = place(length, row, rows);
                assert!(now >= before && now < length || rows == row, "{length} {row} {rows}");
                before = now;
            }
            assert_eq!(place(length, rows, rows), length);
        }
        assert_eq!(place(12, 0, 0), 12);
    }
}
