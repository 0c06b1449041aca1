//! What the writer is asked, and what it tells the runner.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use orion_proto::{Error, Result, files::File, jobs::JobSpec, journal::Published};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    decide::{Attempt, ReadLines},
    files::Announced,
    large::Needed,
};
use crate::journal::Staged;

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked.
pub(super) enum Ask {
    /// With its inputs where they are a content, and the room in memory that the rest takes until it is on disk.
    Submit(Box<JobSpec>, Option<Staged>, Option<OwnedSemaphorePermit>, Reply<u64>),
    Stop(u64, Error, Reply<()>),
    /// With room for its specification.
    Retry(u64, Option<OwnedSemaphorePermit>, Reply<()>),
    /// How an attempt ended.
    Settle(Attempt, Result<Outcome>, Reply<()>),
    /// Lines of a job's file are taken up; with room for their specifications.
    Expand(Attempt, Box<JobSpec>, ReadLines, Option<OwnedSemaphorePermit>, Reply<()>),
    /// A file is kept from now on.
    File(Announced, Staged, Reply<File>),
    /// A file is kept no more.
    NoFile(u64, Reply<File>),
    /// A worker has an attempt that was under way when this scheduler came to lead.
    Found(Attempt),
    /// An attempt is nowhere any more.
    Release(Attempt, Reply<()>),
    /// These workers may have what runs, and no others.
    Workers(BTreeSet<String>),
    /// To look at what time brought.
    Tick,
    /// To begin no attempt any more.
    Drain,
    /// To end, for this reason.
    Leave(Error),
}

impl Ask {
    /// About how much it brings to the disk.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Submit(_, _, Some(room), _)
            | Self::Retry(_, Some(room), _)
            | Self::Expand(_, _, _, Some(room), _) => room.num_permits() << 10,
            Self::Settle(_, Ok(outcome), _) => outcome.row.len(),
            _ => 0,
        }
    }
}

/// What an attempt has to show.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Its result as a row has it.
    pub(super) row: Bytes,
    /// The content that the result is in, where it is too large for a row.
    pub(super) staged: Option<Staged>,
    /// A model that it has made.
    pub(super) model: Option<Published>,
}

/// What the runner is told.
#[derive(Debug)]
pub(super) enum Told {
    /// An attempt has begun.
    Begin(Attempt, Box<Task>),
    /// The same of one that was under way when this scheduler came to lead: a worker may have it.
    Resume(Attempt, Box<Task>),
    /// A job that ran was ended.
    Stop(u64),
}

/// What an attempt has to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) spec: JobSpec,
    /// A content that it needs beside.
    pub(super) needs: Option<Needed>,
    /// How long its job may still take.
    pub(super) left: Option<Duration>,
}
