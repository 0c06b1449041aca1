//! Sums among the workers of a training, over the same connections by which models move.
//!
//! Each member adds up one piece of the numbers for all: it is sent that piece of every other's partial sums, and sends back
//! the whole. Both ways together are the bytes of a ring, in two hops instead of twice the members.

mod inbox;
mod sender;

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use orion_proto::{Code, Error, Result, peer as wire};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_stream::StreamExt;

use super::node::Node;
use crate::reduce::{Partial, piece};
use inbox::{Expected, Inbox};
use sender::Sender;

pub use inbox::Stopped;

/// Bytes that may wait at a member to be added, beside what its numbers may take.
const MOST_BYTES: usize = 64 << 20;
/// Bytes of a training's state.
const MOST_STATE_BYTES: usize = 64 << 30;

/// The trainings that this node takes part in.
#[derive(Default)]
pub(super) struct Trainings(Mutex<HashMap<u64, (Arc<Inbox>, usize)>>);

impl std::fmt::Debug for Trainings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Trainings")
    }
}

impl Trainings {
    fn of(&self, job: u64, generation: u64) -> Result<(Arc<Inbox>, usize)> {
        let known = self.0.lock().get(&job).cloned();
        known.filter(|(inbox, _)| inbox.generation == generation).ok_or_else(|| {
            let text = format!("this node has no generation {generation} of training {job}");
            Error::new(Code::FailedPrecondition, text)
        })
    }
}

/// A generation of a training: who takes part, and which of them this is.
#[derive(Clone, Debug)]
pub struct Cohort {
    /// The training.
    pub job: u64,
    /// Grows whenever a worker joins or is lost.
    pub generation: u64,
    /// Where each is reached, by rank.
    pub addresses: Vec<String>,
    /// This node's.
    pub rank: usize,
}

/// This node's end of a cohort's exchanges. What it was sent is taken from when it is made on.
pub struct Exchange {
    node: Node,
    runtime: Handle,
    cohort: Cohort,
    inbox: Arc<Inbox>,
    senders: HashMap<usize, Sender>,
    sent_bytes: u64,
}

impl Exchange {
    /// Joins a cohort in place of the training's earlier one, in which all waiting ends. `width`: of the largest sum, numbers.
    pub fn join(node: &Node, runtime: &Handle, cohort: Cohort, width: usize) -> Self {
        let inbox = Arc::new(Inbox::new(cohort.job, cohort.generation, cohort.addresses.len()));
        // Of a round and the next, the partial sums of all others, a few each, and the whole.
        let room = MOST_BYTES.saturating_add(width.saturating_mul(4 * 64));
        let earlier = node.0.trainings.0.lock().insert(cohort.job, (inbox.clone(), room));
        if let Some((earlier, _)) = earlier {
            earlier.stop(Stopped::Interrupted);
        }
        Self { node: node.clone(), runtime: runtime.clone(), cohort, inbox, senders: HashMap::new(), sent_bytes: 0 }
    }

    /// What ends all waiting of this exchange, from any thread.
    pub fn interrupter(&self) -> impl Fn() + Send + Sync + 'static {
        let inbox = self.inbox.clone();
        move || inbox.stop(Stopped::Interrupted)
    }

    /// Whether it goes on: there are no other orders, and nothing is broken.
    ///
    /// # Errors
    /// Why it does not.
    pub fn goes_on(&self) -> std::result::Result<(), Stopped> {
        self.inbox.stopped().map_or(Ok(()), Err)
    }

    /// Bytes of numbers that were sent to others.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Adds up what all members have of a round. `shares`: the parts of each; `own`: the sums of this one's; `seconds`: what it
    /// took for a part, told to all. The sum, and the seconds of each.
    ///
    /// # Errors
    /// Why it cannot be made in this generation.
    pub fn sum(
        &mut self,
        round: u64,
        shares: &[Range<usize>],
        own: Partial,
        width: usize,
        seconds: f64,
    ) -> std::result::Result<(Vec<f32>, Vec<f64>), Stopped> {
        let (members, rank) = (self.cohort.addresses.len(), self.cohort.rank);
        let count = shares.last().map_or(0, |share| share.end);
        let rounded = own.rounded();
        for other in (0..members).filter(|other| *other != rank) {
            let piece = piece(width, other, members);
            let bf16 = of_piece(rounded, &piece);
            for (parts, values) in own.sums() {
                self.sent_bytes += self.sender(other).send(round, Some(parts), &values[piece.clone()], bf16, 0.0);
            }
        }
        let mine = self.add_up(round, shares, own, count, width)?;
        for other in (0..members).filter(|other| *other != rank) {
            let bf16 = of_piece(rounded, &piece(width, rank, members));
            self.sent_bytes += self.sender(other).send(round, None, &mine, bf16, seconds);
        }
        let (mut whole, mut told) = (Vec::with_capacity(width), vec![0.0; members]);
        for other in 0..members {
            if other == rank {
                whole.extend_from_slice(&mine);
                told[rank] = seconds;
                continue;
            }
            let expected = Expected { parts: Vec::new(), numbers: piece(width, other, members).len() };
            let (sums, theirs) = self.inbox.wait(round, other, true, &expected)?;
            sums.iter().for_each(|sum| whole.extend_from_slice(sum));
            told[other] = theirs;
        }
        Ok((whole, told))
    }

    /// The sum of this member's piece, over all parts.
    fn add_up(
        &self,
        round: u64,
        shares: &[Range<usize>],
        own: Partial,
        count: usize,
        width: usize,
    ) -> std::result::Result<Vec<f32>, Stopped> {
        let rank = self.cohort.rank;
        let piece = piece(width, rank, shares.len());
        let mut all = Partial::rounding(count, of_piece(own.rounded(), &piece));
        for (other, share) in shares.iter().enumerate() {
            if other == rank {
                own.sums().iter().for_each(|(parts, values)| all.add(parts.clone(), values[piece.clone()].to_vec()));
                continue;
            }
            let parts = Partial::subtrees(share.clone(), count);
            if parts.is_empty() {
                continue;
            }
            let expected = Expected { parts: parts.clone(), numbers: piece.len() };
            let (sums, _) = self.inbox.wait(round, other, false, &expected)?;
            parts.into_iter().zip(sums).for_each(|(parts, sum)| all.add(parts, sum));
        }
        all.whole().ok_or_else(|| Stopped::Broken(rank, "the shares of a step are not all of it".into()))
    }

    fn sender(&mut self, other: usize) -> &Sender {
        let (node, runtime, cohort, inbox) = (&self.node, &self.runtime, &self.cohort, &self.inbox);
        self.senders.entry(other).or_insert_with(|| Sender::start(node, runtime, cohort, other, inbox))
    }

    /// Lets members that are behind have this state.
    pub fn offer(&self, state: Bytes) {
        self.inbox.offered.send_replace(Some(state));
    }

    /// The state of another member.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn fetch(&self, source: usize) -> std::result::Result<Vec<u8>, Stopped> {
        let broken =
            |error: &dyn std::fmt::Display| Stopped::Broken(source, format!("its state cannot be had: {error}"));
        let address = self.cohort.addresses.get(source).cloned().unwrap_or_default();
        let (node, request, inbox) = (self.node.clone(), self.request(), self.inbox.clone());
        let (told, heard) = std::sync::mpsc::channel();
        let fetched = Arc::<AtomicBool>::default();
        let done = fetched.clone();
        let fetching = self.runtime.spawn(async move {
            let state = node.fetch_state(&address, request).await;
            // Nobody waits where there are other orders.
            let _ = told.send(state);
            done.store(true, Ordering::Release);
            inbox.look();
        });
        self.inbox.wait_until(|| fetched.load(Ordering::Acquire)).inspect_err(|_| fetching.abort())?;
        heard.recv().map_err(|error| broken(&error))?.map_err(|error| broken(&error))
    }

    fn request(&self) -> wire::TrainingStateRequest {
        wire::TrainingStateRequest { job: self.cohort.job, generation: self.cohort.generation }
    }
}

/// How many numbers of a piece are rounded, where so many of all are.
fn of_piece(rounded: usize, piece: &Range<usize>) -> usize {
    rounded.saturating_sub(piece.start).min(piece.len())
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut trainings = self.node.0.trainings.0.lock();
        if trainings.get(&self.cohort.job).is_some_and(|(inbox, _)| Arc::ptr_eq(inbox, &self.inbox)) {
            trainings.remove(&self.cohort.job);
        }
    }
}

impl Node {
    async fn fetch_state(&self, address: &str, request: wire::TrainingStateRequest) -> Result<Vec<u8>> {
        let mut parts = self
            .connect(address)
            .await?
            .training_state(request)
            .await
            .map_err(|status| Error::of_status(&status))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part.map_err(|status| Error::of_status(&status))?.bytes);
            if bytes.len() > MOST_STATE_BYTES {
                return Err(Error::invalid(format!("it has more than {MOST_STATE_BYTES} bytes")));
            }
        }
        Ok(bytes)
    }

    /// The state that is offered here, once it is.
    pub(super) async fn offered_state(&self, request: &wire::TrainingStateRequest) -> Result<Bytes> {
        let (inbox, _) = self.0.trainings.of(request.job, request.generation)?;
        let mut offered = inbox.offered.subscribe();
        let state = offered.wait_for(Option::is_some).await;
        let state = state.ok().and_then(|state| state.clone());
        state.ok_or_else(|| Error::new(Code::Unavailable, "the training has ended here"))
    }

    /// Takes what another member sends, until it leaves.
    pub(super) async fn take_numbers(
        &self,
        mut messages: tonic::Streaming<wire::Numbers>,
    ) -> std::result::Result<(), tonic::Status> {
        let Some(first) = messages.message().await? else { return Ok(()) };
        let (inbox, room) = self.0.trainings.of(first.job, first.generation)?;
        let from = first.from as usize;
        tracing::debug!(job = inbox.job, generation = inbox.generation, from, "exchange_begins");
        let mut next = Some(first);
        while let Some(numbers) = next {
            inbox.take(from, &numbers, room).map_err(|wrong| {
                tracing::warn!(job = inbox.job, from, wrong, "numbers_refused");
                Error::invalid(wrong)
            })?;
            // One who breaks off is found out by its own end, and by the scheduler.
            next = messages.message().await?;
        }
        Ok(())
    }
}
