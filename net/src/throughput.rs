//! What a link carries, seen at the end that sends: how fast the other end grants more while more waits than may go.

use std::time::{Duration, Instant};

/// Bytes after which what was seen before counts half.
const HALF_LIFE: f64 = 1024.0 * 1024.0;
/// An interval that is so many times longer than it should be is a pause, unless it is one of several in turn.
const PAUSE: f64 = 10.0;
const PAUSES: u8 = 3;
/// What was seen is believed for so long.
const BELIEVED: Duration = Duration::from_secs(60);
/// Nothing is said before so many were seen, since the first come in lumps.
const LEAST: f64 = 256.0 * 1024.0;

/// A sender's meter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    /// When the other end last granted more while more waited.
    since: Option<Instant>,
    bytes: f64,
    seconds: f64,
    pauses: u8,
    seen: Option<Instant>,
}

impl Throughput {
    /// The other end has taken so many bytes; whether more waits than it lets come.
    pub(crate) fn granted(&mut self, now: Instant, bytes: u64, waits: bool) {
        if let Some(since) = self.since {
            self.add(now, bytes as f64, now.saturating_duration_since(since));
        }
        self.since = waits.then_some(now);
    }

    /// Nothing waits any more: from now on the link is not the limit.
    pub(crate) fn ran_dry(&mut self) {
        self.since = None;
    }

    fn add(&mut self, now: Instant, bytes: f64, took: Duration) {
        let expected = self.bytes_per_second(now).map_or(f64::INFINITY, |rate| bytes / rate);
        if took.as_secs_f64() > PAUSE * expected && self.pauses < PAUSES {
            self.pauses += 1;
            return;
        }
        (self.pauses, self.seen) = (0, Some(now));
        let kept = (-bytes / HALF_LIFE).exp2();
        self.bytes = self.bytes * kept + bytes;
        self.seconds = self.seconds * kept + took.as_secs_f64();
    }

    /// Bytes a second, once enough was seen, until it was too long ago.
    pub(crate) fn bytes_per_second(&self, now: Instant) -> Option<f64> {
        let is_new = self.seen.is_some_and(|seen| now.saturating_duration_since(seen) < BELIEVED);
        (is_new && self.bytes >= LEAST && self.seconds > 0.0).then(|| self.bytes / self.seconds)
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
        assert_eq!(outbox.bytes_per_second(now), None);
        for rate in [1e6, 100e6, 20e6] {
            send(&mut outbox, &mut now, &[16 << 20, 700_000, 2 << 20], rate);
            let seen = outbox.bytes_per_second(now).unwrap();
            assert!((seen / rate - 1.0).abs() < 0.15, "{seen} instead of {rate}");
        }
        let long_ago = now + 2 * BELIEVED;
        assert_eq!(outbox.bytes_per_second(long_ago), None, "it may be another by now");
    }

    #[test]
    fn a_pause_is_not_a_slow_link_and_several_are() {
        let (mut meter, mut now) = (Throughput::default(), Instant::now());
        let mut grant = |meter: &mut Throughput, millis: u64| {
            now += Duration::from_millis(millis);
            meter.granted(now, 100_000, true);
            meter.bytes_per_second(now)
        };
        (0..20).for_each(|_| _ = grant(&mut meter, 1));
        let rate = grant(&mut meter, 5000).unwrap();
        assert!((rate / 1e8 - 1.0).abs() < 0.01, "{rate}");
        (0..60).for_each(|_| _ = grant(&mut meter, 5000));
        assert!(grant(&mut meter, 5000).unwrap() < 30_000.0);
    }
}
