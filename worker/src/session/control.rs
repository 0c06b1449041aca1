//! The worker's end of the control stream: keep-alive, telemetry, the scheduler's wishes, and leaving in order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_net::{KeepAlive, LossMeter, SchedulerLink, WorkerLink, encode_probe};
use orion_proto::{
    Payload,
    session::{Drain, Goodbye, Measurement, Ping, Pong, ToWorker, to_scheduler, to_worker},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Streaming;

use super::{DRAIN, Ended, remote::RemoteScheduler};
use crate::worker::{Worker, WorkerHandle};

/// How often silence and pings are looked at.
const LOOK: Duration = Duration::from_millis(20);
const TELEMETRY: Duration = Duration::from_secs(1);
/// Bytes that measure the bandwidth, once a session.
const PROBE: usize = 1 << 20;

/// What one session keeps track of.
struct Conversation<'a> {
    worker: &'a Arc<Worker>,
    scheduler: &'a Arc<RemoteScheduler>,
    keepalive: &'a Mutex<KeepAlive>,
    last_telemetry: Option<Instant>,
    probe_sent: Option<Instant>,
    draining_since: Option<Instant>,
}

pub(super) async fn run(
    worker: &Arc<Worker>,
    scheduler: &Arc<RemoteScheduler>,
    keepalive: &Mutex<KeepAlive>,
    mut messages: Streaming<ToWorker>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Ended> {
    let mut conversation =
        Conversation { worker, scheduler, keepalive, last_telemetry: None, probe_sent: None, draining_since: None };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            message = messages.message() => match message {
                Ok(Some(ToWorker { message: Some(message) })) => {
                    keepalive.lock().frame(Instant::now());
                    if conversation.hear(message) {
                        return conversation.leave().await;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(Ended::Lost("the scheduler closed the session".into())),
                Err(status) => return Err(Ended::Lost(format!("the control connection broke: {}", status.message()))),
            },
            _ = stop.wait_for(|stop| *stop), if conversation.draining_since.is_none() => {
                tracing::info!("draining");
                conversation.draining_since = Some(Instant::now());
                scheduler.control(to_scheduler::Message::Drain(Drain {}));
            }
            _ = looks.tick() => {
                conversation.look()?;
                if conversation.draining_since.is_some_and(|since| since.elapsed() > DRAIN) {
                    tracing::warn!("drain_timed_out");
                    return conversation.leave().await;
                }
            }
        }
    }
}

impl Conversation<'_> {
    /// One message; says whether the worker may leave.
    fn hear(&mut self, message: to_worker::Message) -> bool {
        match message {
            to_worker::Message::Ping(Ping { sequence }) => {
                self.scheduler.control(to_scheduler::Message::Pong(Pong { sequence }));
            }
            to_worker::Message::Pong(Pong { sequence }) => self.keepalive.lock().pong(sequence, Instant::now()),
            to_worker::Message::Probed(_) => self.probed(),
            // The scheduler counts on nothing of this worker any more.
            to_worker::Message::Drain(_) => return self.draining_since.is_some(),
            other => WorkerHandle(self.worker.clone()).control(other),
        }
        false
    }

    fn look(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let (ping, dead, silence) = {
            let mut keepalive = self.keepalive.lock();
            (keepalive.ping(now), keepalive.is_dead(now), keepalive.silence(now))
        };
        if dead {
            return Err(Ended::Lost(format!("nothing heard of the scheduler for {} ms", silence.as_millis())));
        }
        if let Some(sequence) = ping {
            self.scheduler.control(to_scheduler::Message::Ping(Ping { sequence }));
        }
        if self.last_telemetry.is_none_or(|last| now - last >= TELEMETRY) {
            self.last_telemetry = Some(now);
            self.telemetry();
            self.worker.look_at_store();
            self.probe(now);
        }
        Ok(())
    }

    fn telemetry(&self) {
        let mut telemetry = self.worker.telemetry();
        let keepalive = self.keepalive.lock();
        let seconds = |quantile| keepalive.round_trip(quantile).map_or(0.0, |trip| trip.as_secs_f64());
        telemetry.round_trip_p50_seconds = seconds(0.5);
        telemetry.round_trip_p99_seconds = seconds(0.99);
        drop(keepalive);
        telemetry.bytes_per_second = self.scheduler.outbox.lock().bytes_per_second(Instant::now()).unwrap_or_default();
        telemetry.loss = self.scheduler.loss.as_ref().and_then(LossMeter::share);
        self.scheduler.control(to_scheduler::Message::Telemetry(telemetry));
    }

    /// Measures the bandwidth once a session, when nothing else is on the line and the round trip is known.
    fn probe(&mut self, now: Instant) {
        let known = self.keepalive.lock().round_trip(0.5).is_some();
        if self.probe_sent.is_some() || !known || self.worker.is_busy() || self.draining_since.is_some() {
            return;
        }
        self.probe_sent = Some(now);
        let payload = Payload::from(Bytes::from(vec![0; PROBE]));
        self.scheduler.outbox.lock().push(encode_probe(1), [payload]);
    }

    fn probed(&self) {
        let (Some(sent), Some(round_trip)) = (self.probe_sent, self.keepalive.lock().round_trip(0.5)) else { return };
        // What is left without the way of the last byte and of the answer.
        let seconds = (sent.elapsed().saturating_sub(round_trip)).as_secs_f64().max(1e-6);
        self.worker.publish(Measurement {
            scheduler_round_trip_seconds: round_trip.as_secs_f64(),
            scheduler_bytes_per_second: PROBE as f64 / seconds,
            ..Default::default()
        });
    }

    async fn leave(&self) -> Result<(), Ended> {
        self.scheduler.control(to_scheduler::Message::Goodbye(Goodbye {}));
        // The stream must take the goodbye before it is dropped: the scheduler ends it when it has heard it.
        let mailbox = &self.scheduler.mailbox;
        let _ = tokio::time::timeout(Duration::from_secs(1), mailbox.closed()).await;
        Ok(())
    }
}
