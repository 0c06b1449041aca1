//! What came of the rows of a file of CSV: the file's columns, and what was answered.

use std::collections::BTreeSet;

use orion_proto::{
    Code, Error, Result,
    jobs::{HttpAnswer, Job, JobResult, job_result::Outcome},
};
use serde_json::Value;

use crate::jobs::{reader::Reader, row::answer, rows::Beside, shown::why};

/// Columns of what did not succeed.
pub(super) const ERROR: [&str; 2] = ["error_code", "error_message"];

/// A table that is being written.
pub(super) struct Table {
    beside: Beside,
    path: String,
    /// Of the answers, once the first was seen.
    columns: Option<Vec<String>>,
}

impl Table {
    pub(super) fn new(reader: Reader, path: String) -> Result<Self> {
        Ok(Self { beside: Beside::new(reader)?, path, columns: None })
    }

    /// Writes what came of this row, which is after those before.
    pub(super) fn write(&mut self, text: &mut Vec<u8>, job: &Job, result: Option<&JobResult>) -> Result<()> {
        let number = job.row.as_ref().map_or(0, |row| row.line);
        let mut values = self.beside.values(number)?;
        let answers = self.answers(job, result)?;
        let mut out = csv::Writer::from_writer(text);
        let columns = match &self.columns {
            Some(columns) => columns,
            None => {
                let columns = names(&self.beside.header.names, answers.iter().map(|(name, _)| name.as_str()));
                out.write_record(self.beside.header.names.iter().chain(&columns)).map_err(unwritten)?;
                self.columns.insert(answers.iter().map(|(name, _)| name.clone()).collect())
            }
        };
        values.resize(self.beside.header.names.len(), String::new());
        let cell = |name: &String| answers.iter().find(|(own, _)| own == name).map(|(_, value)| shown(value));
        values.extend(columns.iter().map(|name| cell(name).unwrap_or_default()));
        out.write_record(values).map_err(unwritten)?;
        out.flush().map_err(unwritten)
    }

    fn answers(&self, job: &Job, result: Option<&JobResult>) -> Result<Vec<(String, Value)>> {
        let damaged = || Error::new(Code::Internal, format!("the result of job {} is damaged", job.id));
        match result.and_then(|result| result.outcome.as_ref()) {
            Some(Outcome::Call(HttpAnswer { body, .. })) => {
                Ok(answer(&self.path, &serde_json::from_slice(body).map_err(|_| damaged())?))
            }
            Some(_) => Err(damaged()),
            None => {
                let (code, message) = why(job);
                let [first, second] = ERROR.map(str::to_owned);
                Ok(vec![(first, code.into()), (second, message.into())])
            }
        }
    }
}

/// The answers' columns beside the file's own, none of which they may be called like.
pub(super) fn names<'a>(own: &[String], answers: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken: BTreeSet<String> = own.iter().cloned().collect();
    let mut names = Vec::new();
    for name in answers {
        let mut name = name.to_owned();
        while !taken.insert(name.clone()) {
            name.push_str("_out");
        }
        names.push(name);
    }
    names
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn unwritten(error: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("the table cannot be written: {error}"))
}
