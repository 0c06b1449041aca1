//! What a replay came to. Milliseconds are the trace's: those of the clock divided by how much slower it was replayed.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    Trace,
    send::{Outcome, Sent},
};
use crate::{Failure, units::seconds};

/// Characters kept of a reason.
const REASON: usize = 160;

/// A replay's figures, of the arrivals that count.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    counted: usize,
    answered: usize,
    /// Answered on time over all.
    attainment: f64,
    /// Answered on time over what no schedule can pass.
    of_bound: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// Of all arrivals, those that do not count included: the most frequent first.
    refused: Vec<Refused>,
    /// Of all arrivals: neither answered nor refused.
    lost: usize,
    /// Milliseconds of the clock that this sender was late by.
    sender_late_ms: Late,
}

#[derive(Debug, Serialize)]
struct Refused {
    code: String,
    /// Without its numbers, so that alike ones are counted together.
    reason: String,
    count: usize,
}

#[derive(Debug, Serialize)]
struct Late {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Figures {
    pub(super) fn of(trace: &Trace, slow: f64, sent: &[Sent]) -> Self {
        let counted: Vec<&Sent> = sent.iter().filter(|one| trace.arrivals[one.arrival].0 >= trace.warm_ms).collect();
        let answers = counted.iter().filter(|one| matches!(one.outcome, Outcome::Answered));
        let answered = sorted(answers.map(|one| one.latency));
        let window = trace.slo_ms * slow / 1e3;
        let on_time = answered.partition_point(|latency| *latency <= window) as f64;
        let late = sorted(counted.iter().map(|one| one.late * 1e3));
        let of_late = |share| quantile(&late, share).unwrap_or(0.0);
        let ms = |share| quantile(&answered, share).map(|latency| latency * 1e3 / slow);
        Self {
            counted: counted.len(),
            answered: answered.len(),
            attainment: on_time / counted.len().max(1) as f64,
            of_bound: trace.lp_bound_requests.map(|bound| on_time / bound),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            refused: refused(sent),
            lost: sent.iter().filter(|one| matches!(one.outcome, Outcome::Lost)).count(),
            sender_late_ms: Late { p50: of_late(0.5), p99: of_late(0.99), max: of_late(1.0) },
        }
    }

    /// A replay without any answer is a failure, whose reason is the most frequent refusal.
    pub(super) fn must_have_answers(&self) -> Result<(), Failure> {
        match (self.answered, self.refused.first()) {
            (0, Some(first)) => {
                Err(Failure::new(format!("no request was answered, most often {}: {}", first.code, first.reason)))
            }
            (0, None) => Err(Failure::new("no request was answered")),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| seconds(ms / 1e3));
        writeln!(f, "on time   {:.2} % of {} requests", self.attainment * 100.0, self.counted)?;
        if let Some(share) = self.of_bound {
            writeln!(f, "          {:.2} % of what no schedule can pass", share * 100.0)?;
        }
        writeln!(f, "latency   p50 {}, p99 {}", ms(self.p50_ms), ms(self.p99_ms))?;
        for one in &self.refused {
            writeln!(f, "refused   {} {}: {}", one.count, one.code, one.reason)?;
        }
        writeln!(f, "lost      {}", self.lost)?;
        let late = &self.sender_late_ms;
        let [p50, p99, max] = [late.p50, late.p99, late.max].map(|late| ms(Some(late)));
        writeln!(f, "sent late p50 {p50}, p99 {p99}, at most {max}")
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The smallest value that so large a share is not above.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn refused(sent: &[Sent]) -> Vec<Refused> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for one in sent {
        if let Outcome::Refused(status) = &one.outcome {
            *counts.entry((format!("{:?}", status.code()), without_numbers(status.message()))).or_default() += 1;
        }
    }
    let mut refused: Vec<Refused> =
        counts.into_iter().map(|((code, reason), count)| Refused { code, reason, count }).collect();
    refused.sort_by_key(|one| std::cmp::Reverse(one.count));
    refused
}

/// A reason in which each number is an N.
fn without_numbers(reason: &str) -> String {
    let mut plain = String::new();
    for character in reason.chars().take(REASON) {
        let number = character.is_ascii_digit() || (character == '.' && plain.ends_with('N'));
        if !number {
            plain.push(character);
        } else if !plain.ends_with('N') {
            plain.push('N');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn figures_are_of_what_counts_and_in_the_traces_time() {
        let json = br#"{"slo_ms":100,"warm_ms":500,"lp_bound_requests":4,"models":[0],
            "arrivals":[[0,0],[250,0],[500,0],[750,0],[1000,0],[1250,0]]}"#;
        let trace = Trace::parse(json).unwrap();
        let refusal = || Outcome::Refused(Box::new(Status::unavailable("in 1.5 s of 20")));
        let sent = |(arrival, latency): (usize, f64)| Sent {
            arrival,
            late: if arrival == 4 { 0.03 } else { 0.0 },
            latency,
            outcome: if latency > 0.0 { Outcome::Answered } else { refusal() },
        };
        // Replayed twice as slowly: the objective is 0.2 s.
        let all: Vec<Sent> = [(5, 0.0), (0, 9.0), (1, 9.0), (2, 0.1), (3, 0.2), (4, 0.21)].map(sent).into();
        let told = Figures::of(&trace, 2.0, &all);
        assert_eq!((told.counted, told.answered, told.attainment, told.of_bound), (4, 3, 0.5, Some(0.5)));
        assert_eq!((told.p50_ms, told.p99_ms, told.lost), (Some(100.0), Some(105.0), 0));
        assert_eq!((told.sender_late_ms.p50, told.sender_late_ms.max), (0.0, 30.0));
        let why = &told.refused[0];
        assert_eq!((why.code.as_str(), why.reason.as_str(), why.count), ("Unavailable", "in N s of N", 1));
        assert!(told.must_have_answers().is_ok() && Figures::of(&trace, 2.0, &all[..1]).must_have_answers().is_err());
    }
}
