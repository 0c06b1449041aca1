//! What came of the rows of a file of Parquet: the file's columns as they are, and what was answered.

use orion_proto::{
    Code, Error, Result,
    jobs::{HttpAnswer, Job, JobResult, job_result::Outcome},
};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::table::{ERROR, names};
use crate::jobs::{
    parquet::{
        Parquet,
        write::{Kind, Writer, Written, column},
    },
    reader::Reader,
    row::answer,
    shown::why,
};

/// Bytes of a group of rows, but for the last row.
const GROUP: usize = 16 << 20;

/// A table that is being written.
pub(super) struct Table {
    beside: Parquet,
    path: String,
    /// Of the answers.
    columns: Vec<Column>,
    begun: Option<Begun>,
    _place: OwnedSemaphorePermit,
}

struct Begun {
    writer: Writer,
    /// What it is called in an answer, and what is written of it.
    answers: Vec<(String, Box<dyn Written>)>,
    /// Whether rows wait to be written.
    waits: bool,
}

/// A column of the answers.
struct Column {
    name: String,
    kind: Kind,
    is_list: bool,
}

impl Table {
    pub(super) fn new(reader: &Reader, path: String, place: OwnedSemaphorePermit) -> Result<Self> {
        Ok(Self { beside: reader.parquet()?, path, columns: Vec::new(), begun: None, _place: place })
    }

    /// Looks at what came of a row: what its columns are is known when all have been looked at.
    pub(super) fn look(&mut self, job: &Job, result: Option<&JobResult>) -> Result<()> {
        for (found, _) in self.found(job, result)? {
            match self.columns.iter_mut().find(|known| known.name == found.name) {
                None => self.columns.push(found),
                Some(known) => {
                    let kind = known.kind.with(found.kind);
                    // Lists and others than numbers are JSON, as lists they would be taken apart.
                    let is_plain = known.kind == found.kind || kind != Kind::Text;
                    (known.is_list, known.kind) = (is_plain && (known.is_list || found.is_list), kind);
                }
            }
        }
        Ok(())
    }

    /// Writes what came of this row, which is after those before.
    pub(super) fn write(&mut self, text: &mut Vec<u8>, job: &Job, result: Option<&JobResult>) -> Result<()> {
        let row = job.row.as_ref().map_or(0, |row| row.line);
        if self.beside.leaves_group(row) {
            self.flush()?;
        }
        self.beside.go_to(row)?;
        let found = self.found(job, result)?;
        let begun = self.begun.take();
        let begun = self.begun.insert(begun.map_or_else(|| Begun::new(&self.beside, &self.columns), Ok)?);
        for (name, written) in &mut begun.answers {
            let value = found.iter().find(|(found, _)| found.name == *name).map_or(&Value::Null, |(_, value)| value);
            written.push(value)?;
        }
        begun.waits = true;
        let waits = self.beside.keep() + begun.answers.iter().map(|(_, written)| written.bytes()).sum::<usize>();
        if waits >= GROUP {
            self.flush()?;
        }
        self.taken(text);
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(&mut self, text: &mut Vec<u8>) -> Result<()> {
        if self.begun.is_none() {
            self.begun = Some(Begun::new(&self.beside, &self.columns)?);
        }
        self.flush()?;
        if let Some(begun) = &mut self.begun {
            begun.writer.close()?;
        }
        self.taken(text);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.begun {
            Some(begun) if begun.waits => {
                let mut columns = self.beside.take();
                columns.extend(begun.answers.iter_mut().map(|(_, written)| written.take()));
                begun.waits = false;
                begun.writer.group(&columns)
            }
            _ => Ok(()),
        }
    }

    fn taken(&mut self, text: &mut Vec<u8>) {
        if let Some(begun) = &self.begun {
            text.append(&mut begun.writer.take());
        }
    }

    fn found(&self, job: &Job, result: Option<&JobResult>) -> Result<Vec<(Column, Value)>> {
        let damaged = || Error::new(Code::Internal, format!("the result of job {} is damaged", job.id));
        match result.and_then(|result| result.outcome.as_ref()) {
            Some(Outcome::Call(HttpAnswer { body, .. })) => {
                let body: Value = serde_json::from_slice(body).map_err(|_| damaged())?;
                let columns = answer(&self.path, &body).into_iter().enumerate();
                Ok(columns.map(|(place, (name, value))| found(name, value, &body["outputs"][place])).collect())
            }
            Some(_) => Err(damaged()),
            None => {
                let (code, message) = why(job);
                let text = |name: &str, value: &str| {
                    (Column { name: name.into(), kind: Kind::Text, is_list: false }, Value::from(value))
                };
                Ok(vec![text(ERROR[0], code), text(ERROR[1], message)])
            }
        }
    }
}

impl Begun {
    /// A table whose rows have these answers beside the file's own columns.
    fn new(beside: &Parquet, found: &[Column]) -> Result<Self> {
        let own: Vec<String> = beside.names().map(str::to_owned).collect();
        let mut fields = beside.fields().to_vec();
        let mut answers = Vec::new();
        for (name, found) in names(&own, found.iter().map(|found| found.name.as_str())).iter().zip(found) {
            let (field, written) = column(name, found.kind, found.is_list)?;
            fields.push(field);
            answers.push((found.name.clone(), written));
        }
        Ok(Self { writer: Writer::new(fields)?, answers, waits: false })
    }
}

/// A column of an answer, and what it is by the tensor that it is of, or by itself where it is of none.
fn found(name: String, value: Value, output: &Value) -> (Column, Value) {
    let (kind, is_list) = match output["datatype"].as_str() {
        Some(datatype) => {
            let kind = match datatype {
                "BOOL" => Kind::Bool,
                "INT8" | "INT16" | "INT32" | "UINT8" | "UINT16" => Kind::Int32,
                "INT64" | "UINT32" => Kind::Int64,
                "FP16" | "BF16" | "FP32" => Kind::Float,
                "FP64" => Kind::Double,
                // Of 64 bits without a sign, which no number of a file need hold.
                _ => Kind::Text,
            };
            // One row of an output that has no other dimension is one value.
            (kind, output["shape"].as_array().is_some_and(|shape| shape.len() > 1))
        }
        None if value.as_array().is_some_and(|all| all.iter().all(Value::is_number)) => (Kind::Float, true),
        None => (Kind::Text, false),
    };
    (Column { name, kind, is_list }, value)
}
