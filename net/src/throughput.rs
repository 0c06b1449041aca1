//! What a link carries, seen at the end that sends: how fast the other end grants more while more waits than may go.

use std::time::{Duration, Instant};

/// Bytes after which what was seen before counts half.
const HALF_LIFE: f64 = 1024.0 * 1024.0;
/// Nothing is said before so many were seen, since the first come in lumps.
const LEAST: f64 = 256.0 * 1024.0;

/// A sender's meter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    /// When the other end last granted more while more waited.
    since: Option<Instant>,
    bytes: f64,
    seconds: f64,
}

impl Throughput {
    /// The other end has taken so many bytes; whether more waits than it lets come.
    pub(crate) fn granted(&mut self, now: Instant, bytes: u64, waits: bool) {
        if let Some(since) = self.since {
            self.add(bytes as f64, now.saturating_duration_since(since));
        }
        self.since = waits.then_some(now);
    }

    /// Nothing waits any more: from now on the link is not the limit.
    pub(crate) fn ran_dry(&mut self) {
        self.since = None;
    }

    fn add(&mut self, bytes: f64, took: Duration) {
        let kept = (-bytes / HALF_LIFE).exp2();
        self.bytes = self.bytes * kept + bytes;
        self.seconds = self.seconds * kept + took.as_secs_f64();
    }

    /// Bytes a second, once enough was seen.
    pub(crate) fn bytes_per_second(&self) -> Option<f64> {
        (self.bytes >= LEAST && self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use orion_proto::Payload;

    use super::*;
    use crate::{Outbox, outbox::piece_cost};

    /// Sends transfers of so many bytes, each after a pause, over a link of so many bytes a second whose other end grants what it
    /// took in lumps of 128 KiB.
    fn send(outbox: &mut Outbox, now: &mut Instant, sizes: &[usize], rate: f64) {
        const LUMP: u64 = 128 * 1024;
        for size in sizes {
            *now += Duration::from_secs(5);
            outbox.push(Bytes::from_static(b"h"), [Payload::from(vec![0; *size])]);
            let (mut sent, mut owed) = (0, 0);
            loop {
                while let Some(frame) = outbox.next_frame() {
                    sent += frame.pieces.iter().map(|piece| piece_cost(piece) as u64).sum::<u64>();
                }
                if sent == 0 {
                    break;
                }
                let arrives = sent.min(LUMP);
                sent -= arrives;
                *now += Duration::from_secs_f64(arrives as f64 / rate);
                owed += arrives;
                if owed >= LUMP || sent == 0 {
                    outbox.add_credit(*now, std::mem::take(&mut owed));
                }
            }
        }
    }

    #[test]
    fn what_fills_the_link_tells_its_rate_and_what_does_not_tells_nothing() {
        let (mut outbox, mut now) = (Outbox::default(), Instant::now());
        send(&mut outbox, &mut now, &[1000; 200], 1e6);
        send(&mut outbox, &mut now, &[400_000; 20], 1e6);
        assert_eq!(outbox.bytes_per_second(), None);
        for rate in [1e6, 100e6, 20e6] {
            send(&mut outbox, &mut now, &[16 << 20, 700_000, 2 << 20], rate);
            let seen = outbox.bytes_per_second().unwrap();
            assert!((seen / rate - 1.0).abs() < 0.15, "{seen} instead of {rate}");
        }
    }
}
