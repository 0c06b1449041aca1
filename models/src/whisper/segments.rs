//! From the tokens of a window to segments in time, and to where the next window begins.

use super::{hypothesis::Trust, mel::FRAMES_PER_SECOND};

/// Frames of the spectrogram that a time stamp's step stands for.
const FRAMES_PER_STAMP: usize = 2;

/// Some words and when they are spoken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    /// Seconds from the audio's beginning.
    pub(super) start: f64,
    /// The same.
    pub(super) end: f64,
    /// Its tokens, time stamps included.
    pub(super) tokens: Vec<u32>,
    /// The first frame of the window in which it was heard.
    pub(super) seek: usize,
    /// How far that window's transcript is to be trusted.
    pub(super) trust: Trust,
}

/// A window of the audio, in frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Its first frame.
    pub(super) seek: usize,
    /// Frames of audio in it; behind a short audio's end it is filled up.
    pub(super) frames: usize,
}

impl Window {
    /// The segments that a window's transcript tells of, and the frame where the next window begins.
    ///
    /// Where two time stamps stand together one segment ends and the next begins; what follows the last such pair is cut
    /// off by the window's end, so the next window begins there. A transcript that ends with one time stamp says that
    /// nobody speaks after it.
    pub(super) fn segments(self, written: &[u32], first_timestamp: u32, trust: Trust) -> (Vec<Segment>, usize) {
        let frames = |token: u32| token.saturating_sub(first_timestamp) as usize * FRAMES_PER_STAMP;
        let is_stamp = |token: u32| token >= first_timestamp;
        let borders = written.windows(2).enumerate().filter(|(_, pair)| is_stamp(pair[0]) && is_stamp(pair[1]));
        let mut borders: Vec<usize> = borders.map(|(index, _)| index + 1).collect();
        let complete = matches!(*written, [.., before, last] if !is_stamp(before) && is_stamp(last));
        let segment = |from: usize, to: usize, tokens: &[u32]| Segment {
            start: (self.seek + from) as f64 / FRAMES_PER_SECOND as f64,
            end: (self.seek + to) as f64 / FRAMES_PER_SECOND as f64,
            tokens: tokens.to_vec(),
            seek: self.seek,
            trust,
        };
        if borders.is_empty() {
            let stamp = written.iter().rev().copied().find(|token| is_stamp(*token)).filter(|t| *t != first_timestamp);
            let end = stamp.map_or(self.frames, frames);
            return (vec![segment(0, end, written)], self.seek + self.frames);
        }
        if complete {
            borders.push(written.len());
        }
        let starts = std::iter::once(0).chain(borders.iter().copied());
        let pieces = starts.zip(&borders).map(|(from, to)| &written[from..*to]);
        let segments =
            pieces.map(|tokens| segment(frames(tokens[0]), frames(tokens[tokens.len() - 1]), tokens)).collect();
        let last = borders.last().map_or(0, |border| frames(written[border - 1]));
        // A window that got nowhere is left whole, or it would be heard for ever.
        let seek = self.seek + if complete || last == 0 { self.frames } else { last };
        (segments, seek)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first time stamp; a number below it is text.
    const FIRST: u32 = 1000;

    fn stamp(seconds: f64) -> u32 {
        FIRST + (seconds / 0.02).round() as u32
    }

    const TRUST: Trust = Trust { temperature: 0.2, mean_log_probability: -0.5, compression: 1.5, no_speech: 0.1 };

    fn times(segments: &[Segment]) -> Vec<(f64, f64, usize)> {
        segments.iter().map(|segment| (segment.start, segment.end, segment.tokens.len())).collect()
    }

    #[test]
    fn the_next_window_begins_where_the_last_whole_segment_ends() {
        let window = Window { seek: 500, frames: 3000 };
        let cut = [stamp(0.0), 1, 2, stamp(2.5), stamp(2.5), 3, stamp(4.0), stamp(5.0), 4, 5];
        let (segments, seek) = window.segments(&cut, FIRST, TRUST);
        assert!(segments.iter().all(|segment| segment.trust == TRUST && segment.seek == 500));
        assert_eq!(times(&segments), [(5.0, 7.5, 4), (7.5, 9.0, 3)]);
        assert_eq!((segments[1].tokens.as_slice(), seek), (&cut[4..7], 500 + 400));

        // One that ends with a single time stamp is whole: nobody speaks after it.
        let whole = [stamp(0.0), 1, 2, stamp(2.5), stamp(3.0), 3, stamp(4.0)];
        let (segments, seek) = window.segments(&whole, FIRST, TRUST);
        assert_eq!((times(&segments), seek), (vec![(5.0, 7.5, 4), (8.0, 9.0, 3)], 3500));
    }

    #[test]
    fn without_borders_a_window_is_one_segment() {
        let window = Window { seek: 0, frames: 710 };
        for (written, end) in
            [(vec![stamp(0.0), 1, 2, stamp(7.0)], 7.0), (vec![stamp(0.0), 1, 2], 7.1), (vec![1, 2], 7.1), (vec![], 7.1)]
        {
            let (segments, seek) = window.segments(&written, FIRST, TRUST);
            assert_eq!((times(&segments), seek), (vec![(0.0, end, written.len())], 710));
        }
    }

    #[test]
    fn a_window_never_leads_to_itself() {
        let window = Window { seek: 40, frames: 100 };
        assert_eq!(window.segments(&[stamp(0.0), stamp(0.0), 1], FIRST, TRUST).1, 140);
    }
}
