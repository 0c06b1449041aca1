//! A worker in another process: what is sent to it waits in a mailbox for control and an outbox for data.

use std::sync::Arc;

use orion_net::{Batch, CONTROL_BYTES, Outbox, REPORT_BYTES, WorkerLink, encode_batch};
use orion_proto::session::{ToWorker, to_worker};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, watch};

/// Control messages that may wait: a worker that does not take them is as good as silent.
pub(super) const MAILBOX: usize = 1024;

pub(crate) struct RemoteWorker {
    mailbox: mpsc::Sender<ToWorker>,
    pub(crate) outbox: Arc<Mutex<Outbox>>,
    closed: watch::Sender<Option<String>>,
}

impl RemoteWorker {
    pub(super) fn new(mailbox: mpsc::Sender<ToWorker>) -> Self {
        Self { mailbox, outbox: Arc::default(), closed: watch::Sender::new(None) }
    }

    /// Completes when [`WorkerLink::close`] was called, with its reason.
    pub(super) async fn closed(&self) -> String {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }
}

impl WorkerLink for RemoteWorker {
    fn run(&self, batch: Batch) {
        let (header, payload) = encode_batch(&batch);
        self.outbox.lock().push(header, payload);
    }

    fn control(&self, message: to_worker::Message) {
        let message = ToWorker { message: Some(message) };
        // An order to train names all who take part; there are few.
        let trains = matches!(message.message, Some(to_worker::Message::Training(_)));
        let limit = if trains { REPORT_BYTES } else { CONTROL_BYTES };
        if message.encoded_len() > limit {
            tracing::error!(bytes = message.encoded_len(), limit, "control_message_too_long");
            return;
        }
        // Of advice that is not taken, more would keep orders out.
        let advice = matches!(message.message, Some(to_worker::Message::Cancel(_)));
        if advice && self.mailbox.capacity() <= self.mailbox.max_capacity() / 2 {
            return;
        }
        if self.mailbox.try_send(message).is_err() {
            self.close("it takes no control messages");
        }
    }

    fn close(&self, reason: &str) {
        self.outbox.lock().close();
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason.to_owned());
            }
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use orion_proto::session::{CancelBatch, Ping};

    use super::*;

    #[test]
    fn cancels_that_nobody_takes_leave_room_for_orders() {
        let (mailbox, mut messages) = mpsc::channel(8);
        let link = RemoteWorker::new(mailbox);
        let cancel = |batch: u64| to_worker::Message::Cancel(CancelBatch { batch, attempts: vec![1] });
        (0..100).for_each(|batch| link.control(cancel(batch)));
        (0..4).for_each(|sequence| link.control(to_worker::Message::Ping(Ping { sequence })));
        assert!(link.closed.borrow().is_none(), "{:?}", link.closed.borrow());
        let got: Vec<_> = std::iter::from_fn(|| messages.try_recv().ok()).filter_map(|got| got.message).collect();
        assert_eq!(got.iter().filter(|got| matches!(got, to_worker::Message::Cancel(_))).count(), 4);
        assert_eq!(got.iter().filter(|got| matches!(got, to_worker::Message::Ping(_))).count(), 4);
        (0..9).for_each(|sequence| link.control(to_worker::Message::Ping(Ping { sequence })));
        assert!(link.closed.borrow().is_some(), "it takes no orders");
    }
}
