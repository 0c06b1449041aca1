//! The rows of a batch: a file each, of all requests together, and back.

use bytes::Bytes;
use orion_proto::{Error, ModelSpec, Result, bytes_elements};

use super::{Rgb, decode};
use crate::{GivenUp, ModelRequest};

/// The input of every model that takes images.
pub(crate) const INPUT: &str = "image";

/// Why a row has no result.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// What is wrong with its file, and what would be right.
    Unreadable(String),
    /// Nobody waits for it any more.
    GivenUp,
}

/// The files of a batch, by request.
pub(crate) struct Rows {
    requests: Vec<(Result<Vec<Bytes>>, GivenUp)>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    file: &'a Bytes,
    given_up: &'a GivenUp,
}

impl Rows {
    /// Takes the files out of a batch; a request that does not fit the declaration is refused here, alone.
    pub(crate) fn of(spec: &ModelSpec, batch: &[ModelRequest]) -> Self {
        let files = |request: &ModelRequest| {
            spec.check_inputs(&request.inputs)?;
            match request.inputs.first() {
                Some(image) => bytes_elements(&image.name, &image.data.contiguous(), image.rows()),
                None => Ok(Vec::new()),
            }
        };
        Self { requests: batch.iter().map(|request| (files(request), request.given_up.clone())).collect() }
    }

    /// All rows, in order.
    pub(crate) fn all(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for (files, given_up) in &self.requests {
            rows.extend(files.iter().flatten().map(|file| Row { file, given_up }));
        }
        rows
    }

    /// Hands the results of all rows back to the requests that brought them: a request has all of its own, or the first
    /// that failed and why.
    pub(crate) fn by_request<T>(
        &self,
        results: impl IntoIterator<Item = std::result::Result<T, Refusal>>,
    ) -> Vec<Result<Vec<T>>> {
        let mut results = results.into_iter();
        let of = |(files, _): &(Result<Vec<Bytes>>, GivenUp)| -> Result<Vec<T>> {
            let files = files.as_ref().map_err(Error::clone)?;
            // All of them are taken, also those behind a bad one.
            let own: Vec<_> = results.by_ref().take(files.len()).collect();
            own.into_iter().enumerate().map(|(row, result)| result.map_err(|refusal| refusal.of_row(row))).collect()
        };
        self.requests.iter().map(of).collect()
    }
}

impl Row<'_> {
    /// Its pixels, unless nobody waits for them any more.
    pub(crate) fn decode(self) -> std::result::Result<Rgb, Refusal> {
        if self.given_up.is_set() {
            return Err(Refusal::GivenUp);
        }
        decode(self.file).map_err(Refusal::Unreadable)
    }
}

impl Refusal {
    fn of_row(self, row: usize) -> Error {
        match self {
            Self::Unreadable(reason) => Error::invalid(format!("element {row} of input '{INPUT}': {reason}")),
            Self::GivenUp => GivenUp::error(),
        }
    }
}
