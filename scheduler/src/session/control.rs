//! One session's control stream, from hello to its end: keep-alive, suspicion, and what the worker says.

use std::{sync::Arc, time::Duration, time::Instant};

use futures::{Stream, StreamExt};
use orion_net::{CONTROL_BYTES, KeepAlive, REPORT_BYTES, SchedulerLink, WorkerLink};
use orion_proto::session::{Ping, Pong, ToScheduler, to_scheduler, to_worker};
use parking_lot::Mutex;

use super::{Session, remote::RemoteWorker};

/// How often silence is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is told what the link carries.
const TELL: Duration = Duration::from_secs(1);

/// Runs until the worker leaves, the stream breaks, or the lease ends.
pub(super) async fn run<S, E>(
    session: Session,
    link: Arc<RemoteWorker>,
    keepalive: Arc<Mutex<KeepAlive>>,
    mut messages: S,
) where
    S: Stream<Item = Result<ToScheduler, E>> + Unpin,
    E: std::fmt::Display,
{
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut suspected, mut told) = (false, Instant::now());
    let reason = loop {
        tokio::select! {
            // What has arrived counts before silence is judged: a busy machine must not look like a dead worker.
            biased;
            message = messages.next() => match message {
                Some(Ok(ToScheduler { message: Some(message) })) => {
                    keepalive.lock().frame(Instant::now());
                    let reports = matches!(message, to_scheduler::Message::Model(_));
                    let most = if reports { REPORT_BYTES } else { CONTROL_BYTES };
                    if message.encoded_len() > most {
                        break format!("a control message of {} bytes, at most {most} are taken", message.encoded_len());
                    }
                    let leaves = matches!(message, to_scheduler::Message::Goodbye(_));
                    hear(&session, &link, &keepalive, message);
                    if leaves {
                        // The worker waits for its streams to end.
                        return link.close("it left");
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break format!("control connection broke: {error}"),
                None => break "control connection closed".into(),
            },
            reason = link.closed() => break reason,
            _ = looks.tick() => {
                let now = Instant::now();
                let (ping, suspect, dead, silence, lease) = {
                    let mut keepalive = keepalive.lock();
                    keepalive.look(now);
                    let ping = keepalive.ping(now);
                    (ping, keepalive.is_suspect(now), keepalive.is_dead(now), keepalive.silence(now), keepalive.lease())
                };
                if now.duration_since(told) >= TELL {
                    told = now;
                    let rate = link.outbox.lock().bytes_per_second(now);
                    session.carries(rate.unwrap_or_default());
                }
                if let Some(sequence) = ping {
                    link.control(to_worker::Message::Ping(Ping { sequence }));
                }
                if dead {
                    break format!("no frame for {} ms", silence.as_millis());
                }
                if suspect != suspected {
                    suspected = suspect;
                    match suspect {
                        true => session.suspect(&format!("no frame for {} ms", silence.as_millis()), lease.saturating_sub(silence), false),
                        false => session.alive(),
                    }
                }
            }
        }
    };
    let lease = {
        let keepalive = keepalive.lock();
        keepalive.lease().saturating_sub(keepalive.silence(Instant::now()))
    };
    link.close(&reason);
    session.suspect(&reason, lease, true);
}

fn hear(session: &Session, link: &RemoteWorker, keepalive: &Mutex<KeepAlive>, message: to_scheduler::Message) {
    match message {
        to_scheduler::Message::Ping(Ping { sequence }) => link.control(to_worker::Message::Pong(Pong { sequence })),
        to_scheduler::Message::Pong(Pong { sequence }) => keepalive.lock().pong(sequence, Instant::now()),
        other => session.control(other),
    }
}
