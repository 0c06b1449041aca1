//! A scheduler in another process: a mailbox for control, an outbox for data.

use std::sync::Arc;

use orion_net::{
    AttemptDelta, BatchResult, CONTROL_BYTES, LossMeter, Outbox, REPORT_BYTES, SchedulerLink, encode_deltas,
    encode_result,
};
use orion_proto::session::{ToScheduler, model_report::State, to_scheduler};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;

/// Control messages that may wait: a new session is told of every model on every device at once. Room that is not used
/// takes no memory.
pub(super) const MAILBOX: usize = 1 << 16;

pub(super) struct RemoteScheduler {
    pub(super) mailbox: mpsc::Sender<ToScheduler>,
    pub(super) outbox: Arc<Mutex<Outbox>>,
    /// Of the data connection.
    pub(super) loss: Option<LossMeter>,
}

impl SchedulerLink for RemoteScheduler {
    fn result(&self, result: BatchResult) {
        let (header, payload) = encode_result(result);
        self.outbox.lock().push(header, payload);
    }

    fn deltas(&self, epoch: u64, deltas: Vec<AttemptDelta>) {
        let mut outbox = self.outbox.lock();
        // Transfers that fit a frame's piece keep their order: the step of many sequences goes as several.
        for delta in deltas {
            outbox.push(encode_deltas(epoch, vec![delta]), []);
        }
    }

    fn control(&self, message: to_scheduler::Message) {
        let mut message = ToScheduler { message: Some(message) };
        let bytes = message.encoded_len();
        match &mut message.message {
            Some(to_scheduler::Message::Model(report)) if bytes > REPORT_BYTES => {
                // What was only read is on no device.
                if report.state() == State::Inspected {
                    report.device.clear();
                }
                report.error = format!("its declaration takes {bytes} bytes, at most {REPORT_BYTES} can be sent");
                report.spec = None;
                report.set_state(State::Failed);
            }
            Some(to_scheduler::Message::Model(_)) => {}
            _ if bytes > CONTROL_BYTES => {
                tracing::error!(bytes, limit = CONTROL_BYTES, "control_message_too_long");
                return;
            }
            _ => {}
        }
        // A scheduler that takes nothing: without this message its view would be wrong, so the session ends.
        if self.mailbox.try_send(message).is_err() {
            self.outbox.lock().close();
        }
    }
}
