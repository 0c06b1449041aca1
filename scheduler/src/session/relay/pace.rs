//! So many bytes a second over all connections, which take turns.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// After a pause so much time's worth may go at once.
const BURST: Duration = Duration::from_millis(50);

/// Lets bytes pass at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// The lock is given in the order in which it was asked for, so connections take turns.
    account: Mutex<Account>,
}

/// When all that has passed is paid for; none: nothing has.
#[derive(Debug, Default)]
struct Account(Option<Instant>);

impl Account {
    /// When so many bytes may pass, which are paid for then.
    fn book(&mut self, now: Instant, bytes: u64, bytes_per_second: u64) -> Instant {
        let from = self.0.map_or(now, |paid| paid.max(now.checked_sub(BURST).unwrap_or(now)));
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        self.0 = Some(from + takes);
        from
    }
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, account: Mutex::default() }
    }

    /// Whether nothing may pass.
    pub(super) fn is_shut(&self) -> bool {
        self.bytes_per_second == 0
    }

    /// Waits until so many bytes may pass.
    pub(super) async fn pass(&self, bytes: u64) {
        let mut account = self.account.lock().await;
        let at = account.book(Instant::now(), bytes, self.bytes_per_second);
        tokio::time::sleep_until(at.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_a_pause_is_not_made_up_for() {
        let mut account = Account::default();
        let mut now = Instant::now();
        for pause in [0, 60_000, 20] {
            now += Duration::from_millis(pause);
            let began = now;
            for _ in 0..200 {
                now = now.max(account.book(now, 10_000, 1_000_000));
            }
            let took = now.saturating_duration_since(began) + Duration::from_millis(10);
            let expected = Duration::from_millis(2000) - Duration::from_millis(pause).min(BURST);
            assert!(took.abs_diff(expected) <= Duration::from_millis(10), "{took:?} after {pause} ms");
        }
    }
}
