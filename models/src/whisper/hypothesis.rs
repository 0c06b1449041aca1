//! What is written for one window, and whether it is to be believed.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use orion_proto::{Code, Error, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{rules, vocabulary::Vocabulary};
use crate::kernels::log_sum_exp;

/// The temperatures of the tries at a window, one after the other.
pub(super) const TEMPERATURES: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
/// A text that compresses better than this repeats itself.
const MOST_COMPRESSION: f64 = 2.4;
/// A text whose tokens have a smaller mean logarithmic probability is a guess.
const LEAST_LOG_PROBABILITY: f64 = -1.0;
/// A guess where silence is likelier than this is silence.
const MOST_NO_SPEECH: f32 = 0.6;

/// A transcript of one window while it is written.
pub(super) struct Hypothesis {
    /// Its tokens.
    pub(super) written: Vec<u32>,
    /// Which of `TEMPERATURES`, where the request asks for none.
    attempt: usize,
    asked: Option<f32>,
    random: StdRng,
    sum_log_probability: f64,
    no_speech: f32,
}

/// How far a hypothesis that has ended is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trust {
    /// The temperature at which it was written.
    pub(super) temperature: f32,
    /// Of its tokens, its end among them.
    pub(super) mean_log_probability: f64,
    /// How many times shorter its text gets; 0 without a text.
    pub(super) compression: f64,
    /// The probability that nobody speaks.
    pub(super) no_speech: f32,
}

/// What to do with a hypothesis that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the window's transcript.
    Keep,
    /// Nobody speaks in the window.
    Silence,
    /// It is tried again, at the next temperature.
    Again,
}

impl Hypothesis {
    /// Begins a try, which is the only one where a temperature is asked for; the same seed and logits give the same tokens.
    pub(super) fn new(attempt: usize, asked: Option<f32>, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed ^ ((attempt as u64) << 48));
        Self { written: Vec::new(), attempt, asked, random, sum_log_probability: 0.0, no_speech: 0.0 }
    }

    /// Which try it is.
    pub(super) fn attempt(&self) -> usize {
        self.attempt
    }

    fn temperature(&self) -> f32 {
        self.asked.unwrap_or(TEMPERATURES[self.attempt])
    }

    /// Writes one more token; whether the transcript has ended, by itself or since it has `most` tokens.
    pub(super) fn extend(&mut self, vocabulary: &Vocabulary, logits: &mut [f32], most: usize) -> Result<bool> {
        if self.written.is_empty() {
            self.no_speech = (logits[vocabulary.no_speech as usize] - log_sum_exp(logits)).exp();
        }
        rules::apply(vocabulary, &self.written, logits);
        let token = match self.temperature() {
            0.0 => greatest(logits),
            temperature => sample(logits, temperature, &mut self.random),
        };
        let token =
            token.ok_or_else(|| Error::new(Code::Internal, "cannot be transcribed: the model gives no numbers"))?;
        self.sum_log_probability += f64::from(logits[token] - log_sum_exp(logits));
        if token as u32 == vocabulary.end {
            return Ok(true);
        }
        self.written.push(token as u32);
        Ok(self.written.len() >= most)
    }

    /// Whether what was written, whose text this is, is to be believed, and how far.
    pub(super) fn judge(&self, text: &str) -> (Verdict, Trust) {
        let trust = Trust {
            temperature: self.temperature(),
            mean_log_probability: self.sum_log_probability / (self.written.len() + 1) as f64,
            compression: compression(text.trim()),
            no_speech: self.no_speech,
        };
        let unlikely = trust.mean_log_probability < LEAST_LOG_PROBABILITY;
        if trust.no_speech > MOST_NO_SPEECH && unlikely {
            return (Verdict::Silence, trust);
        }
        let doubtful = unlikely || trust.compression > MOST_COMPRESSION;
        let is_last = self.asked.is_some() || self.attempt + 1 == TEMPERATURES.len();
        (if doubtful && !is_last { Verdict::Again } else { Verdict::Keep }, trust)
    }
}

/// The first token of the greatest logit; none where all are −∞ or no numbers.
fn greatest(logits: &[f32]) -> Option<usize> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|logit| *logit == greatest).filter(|_| greatest > f32::NEG_INFINITY)
}

/// A token by its probability at a temperature.
fn sample(logits: &[f32], temperature: f32, random: &mut StdRng) -> Option<usize> {
    let greatest = logits[greatest(logits)?];
    let weight = |logit: &f32| f64::from((logit - greatest) / temperature).exp();
    let mut left = random.random::<f64>() * logits.iter().map(weight).sum::<f64>();
    let drawn = logits.iter().position(|logit| {
        left -= weight(logit);
        left < 0.0
    });
    // The last possible one, where rounding left a rest.
    drawn.or_else(|| logits.iter().rposition(|logit| weight(logit) > 0.0))
}

/// How many times shorter a text gets.
fn compression(text: &str) -> f64 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to a vector does not fail.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    text.len() as f64 / compressed.map_or(1, |bytes| bytes.len().max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whisper::tiny_whisper::{FIRST_TIMESTAMP, VOCABULARY, vocabulary};

    const WORD: u32 = 70;

    /// Logits that make one token so likely against all others of text; time stamps are out of the question.
    fn likely(token: u32, probability: f64) -> Vec<f32> {
        let Vocabulary { suppressed, end, .. } = vocabulary();
        let others = (0..end).filter(|token| !suppressed.contains(token)).count() as f64;
        let mut logits = vec![0.0; VOCABULARY];
        logits[FIRST_TIMESTAMP as usize..].fill(-30.0);
        logits[token as usize] = (probability / (1.0 - probability) * others).ln() as f32;
        logits
    }

    /// A time stamp, then a word and the end, each with this probability.
    fn written(probability: f64, no_speech: f64) -> Hypothesis {
        let vocabulary = vocabulary();
        let mut begin = vec![0.0; VOCABULARY];
        begin[FIRST_TIMESTAMP as usize] = 100.0;
        begin[vocabulary.no_speech as usize] = 100.0 + (no_speech / (1.0 - no_speech)).ln() as f32;
        let mut hypothesis = Hypothesis::new(0, None, 1);
        for mut logits in [begin, likely(WORD, probability), likely(vocabulary.end, probability)] {
            hypothesis.extend(&vocabulary, &mut logits, 20).unwrap();
        }
        hypothesis
    }

    #[test]
    fn the_likeliest_is_written_until_the_end_or_the_most() {
        let vocabulary = vocabulary();
        assert_eq!(written(0.9, 0.1).written, [FIRST_TIMESTAMP, WORD]);
        let mut hypothesis = Hypothesis::new(0, None, 1);
        assert!(!hypothesis.extend(&vocabulary, &mut likely(FIRST_TIMESTAMP, 0.9), 2).unwrap());
        assert!(hypothesis.extend(&vocabulary, &mut likely(WORD, 0.9), 2).unwrap());
        let broken = Hypothesis::new(0, None, 1).extend(&vocabulary, &mut vec![f32::NAN; VOCABULARY], 9);
        assert!(broken.is_err_and(|error| error.message.contains("no numbers")));
    }

    #[test]
    fn guesses_are_tried_again_and_silence_is_known() {
        for (attempt, probability, no_speech, verdict) in [
            (0, 0.9, 0.1, Verdict::Keep),
            (0, 0.9, 0.9, Verdict::Keep),
            (0, 0.05, 0.1, Verdict::Again),
            (4, 0.05, 0.1, Verdict::Again),
            (5, 0.05, 0.1, Verdict::Keep),
            (0, 0.05, 0.9, Verdict::Silence),
        ] {
            let mut hypothesis = written(probability, no_speech);
            hypothesis.attempt = attempt;
            let (got, trust) = hypothesis.judge(" word");
            assert_eq!(got, verdict, "{attempt} {probability} {no_speech}");
            // The time stamp is certain, the word and the end each have this probability.
            assert!((trust.mean_log_probability - probability.ln() * 2.0 / 3.0).abs() < 1e-3, "{trust:?}");
            assert!((f64::from(trust.no_speech) - no_speech).abs() < 1e-3, "{trust:?}");
            assert_eq!(trust.temperature, TEMPERATURES[attempt]);
        }
        let echo = " and so on".repeat(30);
        assert_eq!(written(0.9, 0.1).judge(&echo).0, Verdict::Again);
        // A temperature that the request asks for is the only try.
        let asked = Hypothesis { asked: Some(0.3), ..written(0.05, 0.1) };
        let (verdict, trust) = asked.judge(" word");
        assert_eq!((verdict, trust.temperature), (Verdict::Keep, 0.3));
        assert!(compression(&echo) > 2.0 * MOST_COMPRESSION && compression("") == 0.0);
    }

    #[test]
    fn temperature_draws_by_probability_the_same_for_the_same_seed() {
        let logits = [0.0, f32::NEG_INFINITY, 3f32.ln(), f32::NEG_INFINITY];
        let draw = |seed: u64, temperature: f32| {
            let mut random = StdRng::seed_from_u64(seed);
            let drawn = (0..4000).map(|_| sample(&logits, temperature, &mut random).unwrap());
            drawn.collect::<Vec<usize>>()
        };
        let drawn = draw(7, 1.0);
        assert_eq!(drawn, draw(7, 1.0));
        assert_ne!(drawn, draw(8, 1.0));
        let share = |drawn: &[usize]| drawn.iter().filter(|token| **token == 2).count() as f64 / 4000.0;
        assert!(drawn.iter().all(|token| [0, 2].contains(token)));
        // 3 to 1, and at half the temperature 9 to 1.
        assert!((share(&drawn) - 0.75).abs() < 0.03 && (share(&draw(7, 0.5)) - 0.9).abs() < 0.03);
    }
}
