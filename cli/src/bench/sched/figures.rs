//! What the simulations found: a line each, and their mean.

use std::{collections::BTreeSet, io::Write};

use comfy_table::Cell;
use orion_scheduler::simulate::Report;
use serde_json::{Map, Value, json};

use crate::{
    Failure,
    table::{figure, table, write_json, write_table},
    units::seconds,
};

/// One simulation.
pub(super) struct Run {
    /// The trace that it replayed.
    pub(super) trace: Option<String>,
    pub(super) report: Report,
}

type Object = Map<String, Value>;

/// The simulations, each as the object of its report, and the mean of each figure.
pub(super) struct Figures {
    runs: Vec<Object>,
    mean: Object,
}

impl Figures {
    pub(super) fn of(runs: Vec<Run>) -> Result<Self, Failure> {
        let object = |run: Run| match serde_json::to_value(&run.report) {
            Ok(Value::Object(mut object)) => {
                object.insert("trace".into(), json!(run.trace));
                Ok(object)
            }
            _ => Err(Failure::new("the report cannot be written as JSON")),
        };
        let runs: Vec<Object> = runs.into_iter().map(object).collect::<Result<_, Failure>>()?;
        Ok(Self { mean: mean(&runs), runs })
    }

    /// The mean's figures, and `runs` with those of each: of one run both are the same.
    pub(super) fn write_as_json(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut all = self.mean.clone();
        all.insert("runs".into(), json!(self.runs));
        write_json(out, &all)
    }

    /// A row for each run, and the mean where there are several; columns that no run has are left out.
    pub(super) fn write_as_table(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let known: BTreeSet<&str> = self.runs.iter().flat_map(present).collect();
        let columns: Vec<&Column> = COLUMNS.iter().filter(|column| known.contains(column.key)).collect();
        let mut table = table(&columns.iter().map(|column| column.heading).collect::<Vec<_>>());
        for run in &self.runs {
            table.add_row(columns.iter().map(|column| column.cell(run)));
        }
        if self.runs.len() > 1 {
            let cell =
                |column: &&Column| if column.key == "trace" { Cell::new("mean") } else { column.cell(&self.mean) };
            table.add_row(columns.iter().map(cell));
        }
        write_table(out, table)
    }
}

fn present(run: &Object) -> impl Iterator<Item = &str> {
    run.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
}

/// What all runs agree on, and the mean of what they measured; a seed has no mean.
fn mean(runs: &[Object]) -> Object {
    let Some((first, others)) = runs.split_first() else { return Object::new() };
    let of = |(key, value): (&String, &Value)| {
        let same = others.iter().all(|run| run.get(key) == Some(value));
        let numbers: Vec<f64> = runs.iter().filter_map(|run| run.get(key)?.as_f64()).collect();
        let mean = match (same, key.as_str()) {
            (true, _) => value.clone(),
            (false, "seed") => Value::Null,
            (false, _) if numbers.len() == runs.len() => json!(numbers.iter().sum::<f64>() / numbers.len() as f64),
            (false, _) => Value::Null,
        };
        (key.clone(), mean)
    };
    first.iter().map(of).collect()
}

struct Column {
    key: &'static str,
    heading: &'static str,
    show: fn(f64) -> String,
}

impl Column {
    const fn new(key: &'static str, heading: &'static str, show: fn(f64) -> String) -> Self {
        Self { key, heading, show }
    }

    fn cell(&self, run: &Object) -> Cell {
        match run.get(self.key) {
            Some(Value::String(text)) => Cell::new(text),
            value => figure(value.and_then(Value::as_f64).map_or_else(|| "-".into(), self.show)),
        }
    }
}

const COLUMNS: [Column; 14] = [
    Column::new("trace", "trace", whole),
    Column::new("load", "load", |load| format!("{load:.2}")),
    Column::new("seed", "seed", whole),
    Column::new("attainment", "on time", share),
    Column::new("of_bound", "of the bound", share),
    Column::new("p99_of_oracle", "p99 / oracle's", |ratio| format!("{ratio:.3}")),
    Column::new("p50_ms", "p50", milliseconds),
    Column::new("p99_ms", "p99", milliseconds),
    Column::new("counted", "counted", whole),
    Column::new("answered", "answered", whole),
    Column::new("loads", "loads", whole),
    Column::new("decision_ns_p50", "decision p50", nanoseconds),
    Column::new("decision_ns_p99", "decision p99", nanoseconds),
    Column::new("tick_ns_p99", "tick p99", nanoseconds),
];

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn share(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

fn milliseconds(value: f64) -> String {
    seconds(value / 1e3)
}

fn nanoseconds(value: f64) -> String {
    seconds(value / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_figures_and_keeps_what_all_agree_on() {
        let run = |seed, load, attainment, p50_ms| Run {
            trace: Some(format!("t{seed}")),
            report: Report { workload: "a", seed, load, attainment, p50_ms, ..Report::default() },
        };
        let figures = Figures::of(vec![run(1, 0.8, Some(0.9), 1.0), run(2, 0.8, Some(0.7), 2.0)]).unwrap();
        let mean = |key: &str| figures.mean[key].clone();
        assert_eq!((mean("workload"), mean("load"), mean("p50_ms")), (json!("a"), json!(0.8), json!(1.5)));
        assert_eq!((mean("seed"), mean("trace"), mean("of_bound")), (Value::Null, Value::Null, Value::Null));
        assert!((mean("attainment").as_f64().unwrap() - 0.8).abs() < 1e-9);
        let mut out = Vec::new();
        figures.write_as_table(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("90.00 %") && text.contains("mean") && !text.contains("oracle"), "{text}");
        assert!(Figures::of(vec![run(3, 1.0, None, 1.0)]).unwrap().mean["seed"] == json!(3));
    }
}
