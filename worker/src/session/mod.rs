//! The session agent: keeps a worker connected to a scheduler in another process.

mod connection;
mod control;
mod remote;
mod standing;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use orion_net::Backoff;
use tokio::sync::watch;

use crate::worker::Worker;

/// The first wait after a failed try, about.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How long a worker that leaves waits for its scheduler to take the last results.
const DRAIN: Duration = Duration::from_secs(9);

/// Where and how a worker joins.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Session addresses, `HOST:PORT`, tried in turn.
    pub addresses: Vec<String>,
    /// The bearer token, if the scheduler wants one.
    pub token: Option<String>,
    /// Bytes of a batch's tensors.
    pub max_batch_bytes: u64,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The worker left in order.
    #[error("left")]
    Left,
    /// The scheduler will not have it: trying again may help only after something is changed.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Lost(String),
}

/// Keeps the worker connected until `stop` turns true; then drains: what runs is finished and delivered, over a new
/// connection if it must be.
pub async fn run(worker: Arc<Worker>, options: JoinOptions, mut stop: watch::Receiver<bool>) {
    let seed = worker.hello().incarnation;
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed);
    let mut said: HashMap<&str, String> = HashMap::new();
    let mut draining_since = None;
    let mut place = 0;
    loop {
        let Some(address) = options.addresses.get(place) else { return };
        let next = (place + 1) % options.addresses.len();
        if *stop.borrow() {
            let since = *draining_since.get_or_insert_with(Instant::now);
            if worker.is_idle() || since.elapsed() > DRAIN {
                return;
            }
        }
        let mut lease = None;
        let welcomed = |work, heard| lease = Some((work, heard));
        let ended = tokio::select! {
            ended = connection::run(&worker, address, &options, stop.clone(), welcomed) => {
                place = next;
                ended
            }
            leader = standing::led_elsewhere(&options, place) => {
                place = leader;
                Ended::Lost(format!("the scheduler at {} leads", options.addresses[leader]))
            }
        };
        let session = worker.detach();
        if let Some((work, heard)) = lease {
            let silence = heard.lock().silence(Instant::now());
            tokio::spawn(lapse(worker.clone(), session, work, silence));
            backoff.reset();
            said.clear();
        }
        if matches!(ended, Ended::Left) {
            return;
        }
        let reason = ended.to_string();
        // Once for each scheduler and reason, not every time: one that is away for an hour is one line.
        if said.get(address.as_str()) == Some(&reason) {
            tracing::debug!(scheduler = %address, reason, "scheduler_lost_will_keep_trying");
        } else {
            tracing::warn!(scheduler = %address, reason, "scheduler_lost_will_keep_trying");
            said.insert(address, reason);
        }
        let stopping = *stop.borrow();
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            _ = stop.wait_for(|stop| *stop), if !stopping => {}
        }
    }
}

/// Gives up what the worker holds where it has heard of no scheduler for 80% of the time that others wait for it.
async fn lapse(worker: Arc<Worker>, session: u64, lease: Duration, silence: Duration) {
    if !lease.is_zero() {
        tokio::time::sleep((lease * 4 / 5).saturating_sub(silence)).await;
        worker.lapse(session);
    }
}
