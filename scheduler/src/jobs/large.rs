//! What is too large for a row: the inputs and the results of jobs, kept as contents.

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result,
    jobs::{FileCalls, HttpCall, JobResult, JobSpec, KeptContent, job_result::Outcome, job_spec::Work},
    journal::Submitted,
};
use prost::Message;

use super::{
    decide::ReadLines,
    lines::{self, Line},
};
use crate::journal::{Address, Journal, Staged, address};

/// Bytes of an input or a result from which on it is a content.
pub(super) const LARGE: usize = 64 << 10;

/// Bytes of a specification without its inputs.
const MOST_REST: usize = 1 << 20;

/// A content that a job needs, and the part of it that is the job's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    address: Address,
    from: u64,
    bytes: usize,
    /// Whether it is the line of a file; else it is the whole content.
    is_line: bool,
}

impl Needed {
    /// What a job needs to begin, beside its specification; none of a file, whose lines are taken up one after the other.
    pub(super) fn of(submitted: &Submitted) -> Option<Self> {
        let is_file = matches!(submitted.spec.as_ref()?.work, Some(Work::File(_)));
        let (from, bytes) = (submitted.from, usize::try_from(submitted.bytes).ok()?);
        let (address, is_line) = (address(&submitted.address).ok()?, submitted.row.is_some());
        (!is_file).then_some(Self { address, from, bytes, is_line })
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The specification with its inputs.
    ///
    /// # Errors
    /// INTERNAL where the content is not there or is damaged.
    pub(super) fn complete(&self, journal: &dyn Journal, spec: JobSpec) -> Result<JobSpec> {
        let work = match spec.work {
            Some(Work::Call(HttpCall { path, model, .. })) if self.is_line => {
                let bytes = journal.content(&self.address, self.from, self.bytes)?;
                let of = FileCalls { path, model, ..FileCalls::default() };
                Work::Call(lines::line(&bytes, &of)?)
            }
            _ => JobSpec::decode(whole(journal, &self.address, self.bytes)?)
                .ok()
                .and_then(|kept| kept.work)
                .ok_or_else(|| damaged("its inputs"))?,
        };
        Ok(JobSpec { work: Some(work), ..spec })
    }
}

/// A content that is what its address says.
fn whole(journal: &dyn Journal, address: &Address, bytes: usize) -> Result<Bytes> {
    let content = journal.content(address, 0, bytes)?;
    if blake3::hash(&content).as_bytes() == address {
        return Ok(content);
    }
    Err(damaged(&format!("content {}", blake3::Hash::from_bytes(*address))))
}

fn damaged(what: &str) -> Error {
    Error::new(Code::Internal, format!("the journal is damaged: {what}"))
}

/// Whether a job's inputs are to be kept as a content.
pub(super) fn is_large(spec: &JobSpec) -> bool {
    !matches!(spec.work, Some(Work::File(_))) && spec.encoded_len() > LARGE
}

/// Takes a job's inputs out of its specification, to be kept as a content.
pub(super) fn taken(journal: &dyn Journal, spec: &mut JobSpec) -> Result<Staged> {
    let work = JobSpec { work: spec.work.clone(), ..JobSpec::default() };
    let staged = staged(journal, &work.encode_to_vec())?;
    match &mut spec.work {
        Some(Work::Inference(request)) => {
            request.inputs.clear();
            request.raw_input_contents.clear();
        }
        Some(Work::Call(call)) => call.body = Bytes::new(),
        _ => {}
    }
    Ok(staged)
}

/// Checks what stays in a row of a job whose inputs were taken out.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn check_rest(spec: &JobSpec) -> Result<()> {
    match spec.encoded_len() {
        bytes if bytes > MOST_REST => {
            Err(Error::invalid(format!("the job has {bytes} bytes beside its inputs, it may have {MOST_REST}")))
        }
        _ => Ok(()),
    }
}

/// Takes the large rows of a table out of what was read of it, to be kept as one content, each as a line.
///
/// # Errors
/// As of [`Journal::stage`].
pub(super) fn rows_apart(journal: &dyn Journal, read: &mut ReadLines) -> Result<()> {
    let is_large = |line: &&mut Line| line.bytes == 0 && line.call.as_ref().is_ok_and(|call| call.body.len() > LARGE);
    let (mut staging, mut at) = (None, 0);
    for line in read.lines.iter_mut().filter(is_large) {
        let Ok(call) = &line.call else { continue };
        let staging = match &mut staging {
            Some(staging) => staging,
            none => none.insert(journal.stage()?),
        };
        let [before, after] = lines::AROUND.map(str::as_bytes);
        for piece in [before, &call.body, after] {
            staging.write(piece)?;
            line.bytes += piece.len() as u64;
        }
        line.from = at;
        at += line.bytes;
    }
    read.large = staging.map(|staging| staging.finish()).transpose()?;
    Ok(())
}

fn staged(journal: &dyn Journal, bytes: &[u8]) -> Result<Staged> {
    let mut staging = journal.stage()?;
    staging.write(bytes)?;
    staging.finish()
}

/// A result as its row has it, and the content that it is where that is too large.
pub(super) fn row(journal: &dyn Journal, result: Bytes) -> Result<(Bytes, Option<Staged>)> {
    if result.len() <= LARGE {
        return Ok((result, None));
    }
    let staged = staged(journal, &result)?;
    let kept = KeptContent { address: staged.address.to_vec().into(), bytes: staged.bytes };
    let row = JobResult { outcome: Some(Outcome::Kept(kept)) };
    Ok((row.encode_to_vec().into(), Some(staged)))
}

/// The result that a row is of.
///
/// # Errors
/// INTERNAL where it is damaged.
pub(super) fn result(journal: &dyn Journal, id: u64, row: Bytes) -> Result<JobResult> {
    let read = |bytes| JobResult::decode(bytes).map_err(|error| damaged(&format!("the result of job {id}: {error}")));
    match read(row)? {
        JobResult { outcome: Some(Outcome::Kept(kept)) } => {
            let most = usize::try_from(kept.bytes).map_err(|_| damaged(&format!("the result of job {id}")))?;
            read(whole(journal, &address(&kept.address)?, most)?)
        }
        result => Ok(result),
    }
}
