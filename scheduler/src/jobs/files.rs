//! Files of calls and of what came of them.

use std::sync::Arc;

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result,
    files::{File, ListFilesRequest, ListFilesResponse},
};

use super::{Jobs, ask::Ask, terms::Millis, view::View};
use crate::{
    api::http::reply::excerpt,
    journal::{Staging, address},
};

/// At the end of the ids of what came of a file's lines.
pub(super) const OUTPUT: &str = "-output";
pub(super) const ERRORS: &str = "-errors";
/// Formats of files.
pub(super) const JSONL: &str = "jsonl";
pub(super) const CSV: &str = "csv";
pub(super) const PARQUET: &str = "parquet";
/// How long a file is kept where nothing is said, and at most.
const KEEP: Millis = 30 * 24 * 3600 * 1000;
const LONGEST_KEEP: Millis = 3650 * 24 * 3600 * 1000;
/// Bytes of a file, of its name and of its purpose.
pub(crate) const MOST_BYTES: u64 = 1 << 30;
const NAME_BYTES: usize = 255;
const PURPOSE_BYTES: usize = 64;
/// Files of one answer, where nothing is said and at most.
const PAGE: usize = 100;
const MOST_PAGE: usize = 10_000;

/// The id of the file of this number, or of what came of the lines of the job of this number.
pub(super) fn id(number: u64, of: &str) -> String {
    format!("file-{number}{of}")
}

/// The number of the file of this id.
pub(super) fn number(id: &str) -> Option<u64> {
    let number = id.strip_prefix("file-")?.parse().ok()?;
    // One name for each.
    (self::id(number, "") == id).then_some(number)
}

/// The format that a file's name says.
pub(super) fn format_of(name: &str) -> &'static str {
    let ends = |format: &str| name.to_ascii_lowercase().ends_with(&format!(".{format}"));
    [CSV, PARQUET].into_iter().find(|format| ends(format)).unwrap_or(JSONL)
}

/// The terms by which a file is found.
pub(super) fn terms(file: &File) -> Vec<String> {
    vec![term(""), term(&file.purpose)]
}

/// The term of all files.
pub(super) const LISTED: &str = "f:";

fn term(purpose: &str) -> String {
    format!("{LISTED}{purpose}")
}

/// A file that is not kept yet, and for how long it will be.
#[derive(Debug)]
pub(crate) struct Announced {
    pub(super) name: String,
    pub(super) purpose: String,
    pub(super) keep: Millis,
}

/// What is said of a file before it comes.
///
/// # Errors
/// INVALID_ARGUMENT naming what is wrong.
pub(crate) fn announced(name: &str, purpose: &str, keep: Millis) -> Result<Announced> {
    let plain = |text: &str, most| text.len() <= most && !text.contains(char::is_control);
    if name.is_empty() || !plain(name, NAME_BYTES) {
        return Err(Error::invalid(format!(
            "a file's name must have 1 to {NAME_BYTES} bytes without control characters"
        )));
    }
    if !plain(purpose, PURPOSE_BYTES) {
        return Err(Error::invalid(format!("a purpose may have {PURPOSE_BYTES} bytes without control characters")));
    }
    let keep = if keep == 0 { KEEP } else { keep.min(LONGEST_KEEP) };
    Ok(Announced { name: name.into(), purpose: purpose.into(), keep })
}

impl Jobs {
    /// Begins to take a file up.
    ///
    /// # Errors
    /// UNAVAILABLE where it cannot be kept.
    pub(crate) fn stage(&self) -> Result<Box<dyn Staging>> {
        self.view.journal().stage()
    }

    /// Keeps what was staged as this file; it is on disk then.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(crate) async fn keep_file(&self, file: Announced, staged: Box<dyn Staging>) -> Result<File> {
        let finished = tokio::task::spawn_blocking(move || staged.finish()).await;
        let staged = finished.map_err(|_| Error::new(Code::Internal, "keeping the file failed unexpectedly"))??;
        self.ask(|reply| Ask::File(file, staged, reply)).await
    }

    /// Keeps a file no more.
    ///
    /// # Errors
    /// NOT_FOUND; INVALID_ARGUMENT for what came of a job, which goes with it.
    pub(crate) async fn drop_file(&self, id: &str) -> Result<File> {
        if super::answers::of(id).is_some() {
            return Err(Error::invalid(format!("file '{id}' is what came of a job, and goes with it")));
        }
        let number = number(id).ok_or_else(|| unknown(id))?;
        self.ask(|reply| Ask::NoFile(number, reply)).await
    }
}

pub(super) fn unknown(id: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no file '{}'", excerpt(id)))
}

impl View {
    /// A file, or what came of a job's.
    ///
    /// # Errors
    /// NOT_FOUND; INTERNAL where the journal cannot be read.
    pub fn file(self: &Arc<Self>, id: &str) -> Result<File> {
        if let Some((job, _)) = super::answers::of(id) {
            return self.answers_file(id, job);
        }
        let file = number(id).map(|number| self.journal().file(number)).transpose()?.flatten();
        file.ok_or_else(|| unknown(id))
    }

    /// A page of files, the newest first.
    ///
    /// # Errors
    /// INTERNAL where the journal cannot be read.
    pub fn files(&self, asked: &ListFilesRequest) -> Result<ListFilesResponse> {
        let most = if asked.limit == 0 { PAGE } else { (asked.limit as usize).min(MOST_PAGE) };
        let before = match asked.after.as_str() {
            "" => u64::MAX,
            after => number(after).ok_or_else(|| unknown(after))?,
        };
        let mut numbers = self.journal().found(&term(&asked.purpose), before, most + 1)?;
        let has_more = numbers.len() > most;
        numbers.truncate(most);
        let files = numbers.into_iter().map(|number| self.journal().file(number)).filter_map(Result::transpose);
        Ok(ListFilesResponse { files: files.collect::<Result<_>>()?, has_more })
    }

    /// Bytes of a file from this place on, at most so many; none after its end.
    ///
    /// # Errors
    /// NOT_FOUND; INTERNAL where it cannot be read.
    pub fn read_file(self: &Arc<Self>, file: &File, from: u64, most: usize) -> Result<Bytes> {
        self.journal().content(&address(&file.address)?, from, most)
    }
}
