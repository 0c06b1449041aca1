//! What the writer is asked, and what it tells the runner.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use orion_proto::{Error, Result, files::File, jobs::JobSpec};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::decide::{Attempt, ReadLines};
use crate::journal::Staged;

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked.
pub(super) enum Ask {
    /// With the room in memory that it takes until it is on disk.
    Submit(Box<JobSpec>, Option<OwnedSemaphorePermit>, Reply<u64>),
    Stop(u64, Error, Reply<()>),
    /// With room for its specification.
    Retry(u64, Option<OwnedSemaphorePermit>, Reply<()>),
    /// How an attempt ended; its result, encoded.
    Settle(Attempt, Result<Bytes>, Reply<()>),
    /// Lines of a job's file are taken up; with room for their specifications.
    Expand(Attempt, Box<JobSpec>, ReadLines, Option<OwnedSemaphorePermit>, Reply<()>),
    /// A file is kept from now on.
    File(Box<File>, Staged, Reply<File>),
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
            Self::Submit(_, Some(room), _) | Self::Retry(_, Some(room), _) | Self::Expand(_, _, _, Some(room), _) => {
                room.num_permits() << 10
            }
            Self::Settle(_, Ok(result), _) => result.len(),
            _ => 0,
        }
    }
}

/// What the runner is told.
#[derive(Debug)]
pub(super) enum Told {
    /// An attempt has begun; its job must have ended within so long.
    Begin(Attempt, Box<JobSpec>, Option<Duration>),
    /// The same of one that was under way when this scheduler came to lead: a worker may have it.
    Resume(Attempt, Box<JobSpec>, Option<Duration>),
    /// A job that ran was ended.
    Stop(u64),
}
