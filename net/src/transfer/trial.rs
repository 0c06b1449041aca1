//! Whether chunks come sooner encoded or as they are, over a link that is nearly as fast as the machine.
//!
//! There the link, both ends' system calls, hashing and decoding share the processors, so no sum of figures that were measured
//! one by one tells it. It is tried: blocks of chunks in either form, timed by what is here after them.

use std::time::Duration;

use crate::artifact::Form;

/// Bytes a second from which on a link may be too fast for what is encoded.
const FAST: f64 = 200e6;
/// Chunks in one form: while it is tried, and once it is known to be better.
const TRIED: usize = 32;
const KEPT: usize = 128;
/// What is as it is must be better by so much: it takes more of a link that others use too.
const BETTER: f64 = 1.02;
/// What was seen counts half after so many bytes.
const HALF_LIFE: f64 = 32.0 * 1024.0 * 1024.0;
/// A form that seemed worse is tried again after so many blocks of the better one.
const AGAIN: usize = 8;

/// The trials of one fetch.
#[derive(Debug, Default)]
pub(super) struct Trial {
    encoded: Tally,
    raw: Tally,
    form: Option<Form>,
    left: usize,
    blocks: usize,
    last: Option<(Duration, Form)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    bytes: f64,
    seconds: f64,
}

impl Tally {
    fn add(&mut self, bytes: u64, took: Duration) {
        let kept = (-(bytes as f64) / HALF_LIFE).exp2();
        self.bytes = self.bytes * kept + bytes as f64;
        self.seconds = self.seconds * kept + took.as_secs_f64();
    }

    fn rate(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }
}

impl Trial {
    /// The form in which to ask for a chunk that has both, over a link of so many bytes a second.
    pub(super) fn form(&mut self, link: Option<f64>) -> Form {
        if link.is_none_or(|rate| rate < FAST) {
            return Form::Encoded;
        }
        if self.left == 0 {
            self.next_block();
        }
        self.left -= 1;
        self.form.unwrap_or(Form::Encoded)
    }

    fn next_block(&mut self) {
        let (form, chunks) = match (self.encoded.rate(), self.raw.rate()) {
            (None, _) => (Form::Encoded, TRIED),
            (_, None) => (Form::Raw, TRIED),
            (Some(encoded), Some(raw)) => {
                self.blocks += 1;
                let raw_is_better = raw > BETTER * encoded;
                match (raw_is_better, self.blocks.is_multiple_of(AGAIN)) {
                    (true, false) => (Form::Raw, KEPT),
                    (false, false) => (Form::Encoded, KEPT),
                    (true, true) => (Form::Encoded, TRIED),
                    (false, true) => (Form::Raw, TRIED),
                }
            }
        };
        (self.form, self.left) = (Some(form), chunks);
    }

    /// A chunk of so many bytes, as it is, is here, which came in this form.
    pub(super) fn came(&mut self, now: Duration, form: Form, bytes: u64) {
        let last = self.last.replace((now, form));
        // Between two of one form: what lies between is the time of the second.
        let Some((since, _)) = last.filter(|(_, before)| *before == form) else { return };
        let took = now.saturating_sub(since);
        match form {
            Form::Encoded => self.encoded.add(bytes, took),
            Form::Raw => self.raw.add(bytes, took),
            Form::Difference => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches so many chunks where one in either form takes so many seconds; how many came as they are, of the last half.
    fn fetch(chunks: usize, encoded: f64, raw: f64, link: Option<f64>) -> usize {
        let (mut trial, mut now) = (Trial::default(), 0.0);
        let mut came_raw = 0;
        for chunk in 0..chunks {
            let form = trial.form(link);
            now += if form == Form::Raw { raw } else { encoded };
            trial.came(Duration::from_secs_f64(now), form, 1 << 18);
            came_raw += usize::from(form == Form::Raw && chunk >= chunks / 2);
        }
        came_raw
    }

    #[test]
    fn the_form_that_is_here_sooner_is_asked_for() {
        assert_eq!(fetch(4000, 1.0, 0.1, None), 0);
        assert_eq!(fetch(4000, 1.0, 0.1, Some(125e6)), 0, "nothing is tried over a link that is the limit");
        let few = 2000 / AGAIN;
        assert!(fetch(4000, 4e-4, 3e-4, Some(1e9)) > 2000 - few);
        assert!(fetch(4000, 3e-4, 4e-4, Some(1e9)) < few);
        assert!(fetch(4000, 3e-4, 3e-4, Some(1e9)) < few, "of two that are alike the shorter");
    }
}
