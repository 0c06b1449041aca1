//! The way of numbers to one other member.

use std::{ops::Range, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use half::bf16;
use orion_proto::{Error, Result, peer::Numbers};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{Cohort, Inbox, Stopped};
use crate::transfer::node::Node;

/// Numbers of one message.
const AT_ONCE: usize = 48 << 10;

/// What is given here is sent in its order. How much waits is bounded by what one round needs.
pub(super) struct Sender {
    out: mpsc::UnboundedSender<Numbers>,
    first: Numbers,
}

impl Sender {
    pub(super) fn start(node: &Node, runtime: &Handle, cohort: &Cohort, other: usize, inbox: &Arc<Inbox>) -> Self {
        let (out, numbers) = mpsc::unbounded_channel();
        let (node, inbox) = (node.clone(), inbox.clone());
        let address = cohort.addresses.get(other).cloned().unwrap_or_default();
        runtime.spawn(async move {
            if let Err(error) = deliver(&node, &address, numbers).await {
                inbox.stop(Stopped::Broken(other, error.message));
            }
        });
        let first =
            Numbers { job: cohort.job, generation: cohort.generation, from: cohort.rank as u32, ..Numbers::default() };
        Self { out, first }
    }

    /// Sends the sum of these parts, or of all; so many numbers of it, from the first, as bf16. How many bytes they are.
    pub(super) fn send(
        &self,
        round: u64,
        parts: Option<&Range<usize>>,
        values: &[f32],
        rounded: usize,
        seconds_per_part: f64,
    ) -> u64 {
        let (first, end) = parts.map_or((0, 0), |parts| (parts.start as u32, parts.end as u32));
        let (mut start, mut sent) = (0, 0);
        loop {
            let bf16 = start < rounded;
            let stop = values.len().min(start + AT_ONCE).min(if bf16 { rounded } else { values.len() });
            let bytes = encode(&values[start..stop], bf16);
            sent += bytes.len() as u64;
            let numbers = Numbers {
                round,
                first,
                end,
                start: start as u64,
                values: bytes,
                seconds_per_part,
                bf16,
                ..self.first.clone()
            };
            // A member that is gone was told of.
            let _ = self.out.send(numbers);
            start = stop;
            if start >= values.len() {
                return sent;
            }
        }
    }
}

fn encode(values: &[f32], as_bf16: bool) -> Bytes {
    let mut bytes = BytesMut::with_capacity(values.len() * 4);
    match as_bf16 {
        true => values.iter().for_each(|value| bytes.put_u16_le(bf16::from_f32(*value).to_bits())),
        false => values.iter().for_each(|value| bytes.put_f32_le(*value)),
    }
    bytes.freeze()
}

async fn deliver(node: &Node, address: &str, numbers: mpsc::UnboundedReceiver<Numbers>) -> Result<()> {
    let mut client = node.connect(address).await?;
    tracing::debug!(address, "exchange_connected");
    let ended = client.exchange(UnboundedReceiverStream::new(numbers)).await;
    ended.map(|_| ()).map_err(|status| Error::of_status(&status))
}
