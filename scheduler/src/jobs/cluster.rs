//! One of several schedulers of a journal: it follows while another leads, and leads when that one is gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use orion_proto::{Code, Error, Result};
use tokio::sync::watch;

use super::{
    Jobs,
    seat::Seat,
    snapshot::{follow, written_down},
    table::Table,
    view::View,
};
use crate::{
    front::Front,
    journal::{Journal, Postgres, postgres::LEASE_MS},
};

/// How often one that stands by looks whether nobody leads, and at what is new where it hears of nothing.
const FOLLOW: Duration = Duration::from_millis(100);
/// How often at most it looks at what it hears of.
const HEARD: Duration = Duration::from_millis(5);
/// How often a lease is held on.
const HOLD: Duration = Duration::from_millis(LEASE_MS / 4);
/// Of its lease, by its own clock, a scheduler leads so much without having been heard: another may lead after all of it.
const SURE: Duration = Duration::from_millis(LEASE_MS * 4 / 5);
/// The pause after the journal's server could not be used.
const PAUSE: Duration = Duration::from_millis(500);

/// A scheduler among those of one journal.
pub(crate) struct Cluster {
    journal: Postgres,
    /// Where the others reach its gRPC.
    address: String,
    front: Front,
    seat: watch::Sender<Seat>,
    stop: watch::Receiver<bool>,
}

/// The fold of one that stands by, and what its clients see of it.
struct Follower {
    journal: Postgres,
    table: Table,
    view: Arc<View>,
    watched: Watched,
}

/// What clients watch: they are told where nobody follows any more.
struct Watched(Arc<View>);

impl Drop for Watched {
    fn drop(&mut self) {
        // Where a writer ended it, its reason stays.
        self.0.ends(nobody());
    }
}

impl Follower {
    fn new(journal: Postgres) -> Result<Self> {
        let table = written_down(&journal)?;
        let view = Arc::new(View::new(Arc::new(journal.clone())));
        table.unfinished().for_each(|job| view.opened(job.clone()));
        Self { journal, table, watched: Watched(view.clone()), view }.caught_up()
    }

    /// With all records that are new.
    fn caught_up(mut self) -> Result<Self> {
        let view = self.view.clone();
        let followed = follow(&self.journal, &mut self.table, |change| view.changed(change));
        match followed {
            Ok(()) => Ok(self),
            // It was so far behind that the records which it needs are in a snapshot by now.
            Err(_) if self.journal.snapshot()?.is_some_and(|last| last.next > self.table.next()) => {
                Self::new(self.journal)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads the journal where that may block.
async fn off_thread<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let gone = |_| Error::new(Code::Internal, "following the journal failed unexpectedly");
    tokio::task::spawn_blocking(read).await.map_err(gone)?
}

impl Cluster {
    /// One that neither follows nor leads yet, and its seat. It gives up its lead when `stop` turns true.
    pub(crate) fn new(
        journal: Postgres,
        address: String,
        front: Front,
        stop: watch::Receiver<bool>,
    ) -> (Self, watch::Receiver<Seat>) {
        let starts = Error::new(Code::Unavailable, "this scheduler has not reached the journal yet");
        let (seat, seen) = watch::channel(Seat::Vacant(starts.retry_after(PAUSE)));
        (Self { journal, address, front, seat, stop }, seen)
    }

    /// Follows and leads until it is to stop.
    pub(crate) async fn run(mut self) {
        let mut said = None;
        // Where nobody can stop it any more, nobody waits for it.
        while !*self.stop.borrow() && self.stop.has_changed().is_ok() {
            if let Err(error) = self.term(&mut said).await {
                // Once for each reason: a server that is away for an hour is one line.
                if said.as_ref() != Some(&error.message) {
                    tracing::warn!(%error, "journal_not_followed");
                    said = Some(error.message.clone());
                }
                self.take(Seat::Vacant(error.retry_after(PAUSE)));
                self.pause(PAUSE).await;
            }
        }
    }

    /// Stands by until it leads, and leads until it does not.
    async fn term(&mut self, said: &mut Option<String>) -> Result<()> {
        // A name of its own for each term: what an earlier one still writes is refused.
        let journal = self.journal.anew();
        journal.make_tables().await?;
        let mine = journal.clone();
        let mut follower = off_thread(move || Follower::new(mine)).await?;
        let mut news = journal.news().await;
        while !journal.lead(&self.address).await? {
            *said = None;
            match journal.leader().await? {
                Some(leader) => self.follow(&follower, leader),
                None => self.take(Seat::Vacant(nobody())),
            }
            let looks = Instant::now() + FOLLOW;
            while Instant::now() < looks {
                follower = off_thread(move || follower.caught_up()).await?;
                let heard = async {
                    tokio::time::sleep(HEARD).await;
                    news.next().await;
                };
                // What is heard in the last moment is looked at after.
                let _ = tokio::time::timeout_at(looks.into(), heard).await;
                if *self.stop.borrow() {
                    return Ok(());
                }
            }
        }
        // Nobody reads it while this scheduler leads: the server would keep what it could not say.
        drop(news);
        let (front, mine) = (self.front.clone(), Arc::new(journal.clone()));
        let _watched = follower.watched;
        let jobs = self.start(&journal, move || Jobs::start(mine, front, follower.view, follower.table)).await?;
        tracing::info!(epoch = jobs.epoch(), "leads");
        self.take(Seat::Leads(jobs.clone()));
        let why = self.hold(&journal, &jobs).await;
        tracing::info!(reason = %why, "leads_no_more");
        self.take(Seat::Vacant(nobody()));
        jobs.leave(why).await;
        // Where the server cannot be asked the lease ends by itself.
        let _ = journal.resign().await;
        Ok(())
    }

    /// Begins to lead, and holds the lease on while that takes.
    async fn start(&self, journal: &Postgres, start: impl FnOnce() -> Result<Jobs> + Send + 'static) -> Result<Jobs> {
        let started = off_thread(start);
        tokio::pin!(started);
        loop {
            tokio::select! {
                started = &mut started => return started,
                // Where another leads by now the start fails.
                () = tokio::time::sleep(HOLD) => { let _ = journal.lead(&self.address).await; }
            }
        }
    }

    /// Holds the lease on; why it does not lead any more.
    async fn hold(&mut self, journal: &Postgres, jobs: &Jobs) -> Error {
        let lost = || Error::new(Code::FailedPrecondition, "another scheduler leads");
        let mut heard = Instant::now();
        loop {
            if self.pause(HOLD).await {
                return Error::new(Code::Unavailable, "this scheduler stops");
            }
            if let Some(why) = jobs.view().ended() {
                return why;
            }
            let asked = Instant::now();
            match journal.lead(&self.address).await {
                Ok(true) => heard = asked,
                Ok(false) => return lost(),
                Err(error) if heard.elapsed() > SURE => return error,
                Err(_) => {}
            }
        }
    }

    fn follow(&self, follower: &Follower, leader: String) {
        let same = matches!(&*self.seat.borrow(), Seat::Follows(view, known)
            if *known == leader && Arc::ptr_eq(view, &follower.view));
        if !same {
            tracing::info!(leader, "follows");
            self.take(Seat::Follows(follower.view.clone(), leader));
        }
    }

    fn take(&self, seat: Seat) {
        self.seat.send_replace(seat);
    }

    /// Waits; whether it is to stop.
    async fn pause(&mut self, length: Duration) -> bool {
        // One that can no longer be stopped need not go on.
        tokio::time::timeout(length, self.stop.wait_for(|stop| *stop)).await.is_ok()
    }
}

fn nobody() -> Error {
    Error::new(Code::Unavailable, "no scheduler leads at this moment").retry_after(PAUSE)
}
