//! What a replay reads of a trace.

use serde::{Deserialize, de::IgnoredAny};

/// No arrival, objective or warm-up is longer: 11 days in milliseconds.
const LONGEST_MS: f64 = 1e9;

/// A trace of many models (`scripts/sched_sim.py a --dump`).
#[derive(Debug, Deserialize)]
pub(super) struct Trace {
    /// Within so many milliseconds a request is to be answered.
    pub(super) slo_ms: f64,
    /// Arrivals count from then on.
    pub(super) warm_ms: f64,
    /// Answers on time that no schedule can pass, where that is known.
    pub(super) lp_bound_requests: Option<f64>,
    models: Vec<IgnoredAny>,
    /// Milliseconds from the start, and the model's number.
    pub(super) arrivals: Vec<(f64, usize)>,
}

impl Trace {
    /// Reads a trace; the error names the figure that cannot be.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let trace: Self =
            serde_json::from_slice(json).map_err(|error| format!("it is not one of many models: {error}"))?;
        if !(trace.slo_ms > 0.0 && trace.slo_ms <= LONGEST_MS) {
            return Err(format!("slo_ms is {}, it must be more than 0, at most {LONGEST_MS}", trace.slo_ms));
        }
        if trace.lp_bound_requests.is_some_and(|bound| bound.is_nan() || bound <= 0.0) {
            return Err("lp_bound_requests must be more than 0".into());
        }
        let models = trace.models.len();
        let bad = |(at, model): &&(f64, usize)| !(0.0..=LONGEST_MS).contains(at) || *model >= models;
        if let Some((at, model)) = trace.arrivals.iter().find(bad) {
            return Err(format!("an arrival at {at} ms is of model {model}, of {models}"));
        }
        if !trace.arrivals.is_sorted_by(|a, b| a.0 <= b.0) {
            return Err("the arrivals are not in the order of time".into());
        }
        if !trace.arrivals.iter().any(|(at, _)| *at >= trace.warm_ms) {
            return Err(format!("no arrival counts: none is after warm_ms, {}", trace.warm_ms));
        }
        Ok(trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_cannot_be_is_told_by_its_figure() {
        let parse = |slo: &str, arrivals: &str| {
            let json = format!(r#"{{"slo_ms":{slo},"warm_ms":5,"models":[{{}},{{}}],"arrivals":{arrivals}}}"#);
            Trace::parse(json.as_bytes()).map(|trace| trace.arrivals.len())
        };
        assert_eq!(parse("100", "[[0,1],[5,0]]"), Ok(2));
        for (slo, arrivals, why) in [
            ("0", "[[5,0]]", "slo_ms is 0"),
            ("1e400", "[[5,0]]", "it is not one of many models"),
            ("1", "[[5,2]]", "an arrival at 5 ms is of model 2, of 2"),
            ("1", "[[-1,0]]", "an arrival at -1 ms"),
            ("1", "[[6,0],[5,0]]", "not in the order of time"),
            ("1", "[[4,0]]", "no arrival counts"),
            ("1", "[]", "no arrival counts"),
        ] {
            let said = parse(slo, arrivals).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
