//! Curves that outlive an eviction or a restart: what batches have taught is where the next load begins.

use std::collections::HashMap;

use orion_proto::ServiceCurve;
use serde::{Deserialize, Serialize};

use super::{
    Core, Nanos,
    curve::{Curve, Line, NEXT_BUCKET},
    device::DeviceClass,
};

/// Curves that are believed of an earlier process.
const CURVES: usize = 65_536;
/// What was learnt is out of date when it predicts more than so many times what warm-up measures.
const OUTDATED: f64 = 4.0;

/// A model's curve for one length bucket on devices of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the names say it
pub struct Remembered {
    pub model: String,
    /// Where the model lay: another path is another model.
    pub path: String,
    pub fingerprint: String,
    pub device_kind: String,
    pub device_model: String,
    #[serde(default)]
    pub bucket: u8,
    pub base_seconds: f64,
    pub per_row_seconds: f64,
    /// By how much a prediction is stretched where a deadline depends on it.
    #[serde(default = "exact")]
    pub inflation: f64,
}

fn exact() -> f64 {
    1.0
}

impl Remembered {
    /// None for figures that cannot be.
    fn line(&self) -> Option<Line> {
        let seconds = ServiceCurve { base_seconds: self.base_seconds, per_row_seconds: self.per_row_seconds };
        let sane = [self.base_seconds, self.per_row_seconds, self.inflation - 1.0];
        let sane = sane.iter().all(|figure| figure.is_finite() && *figure >= 0.0);
        sane.then(|| Line { inflation: self.inflation, ..Curve::new(seconds).line() })
    }
}

/// What earlier processes have learnt, by length bucket, and what this one has and is not written down.
#[derive(Debug, Default)]
pub(super) struct Memory {
    lines: HashMap<(String, String, DeviceClass), Vec<Line>>,
    /// Models and classes.
    taught: Vec<(usize, usize)>,
}

impl Memory {
    /// A batch of a model has taught something of devices of a class.
    pub(super) fn taught(&mut self, model: usize, class: usize) {
        self.taught.push((model, class));
    }
}

/// Curves that batches have taught, of a device whose first bucket's curve is promised to be this.
fn recalled<'a>(
    now: Nanos,
    promised: ServiceCurve,
    lines: impl IntoIterator<Item = &'a Line>,
) -> impl Iterator<Item = Curve> {
    let promises = std::iter::successors(Some(Line::new(promised)), |line| Some(line.stretched(NEXT_BUCKET)));
    let lines: Vec<Line> = lines.into_iter().copied().collect();
    promises.zip(lines).map(move |(promised, learnt)| Curve::recalled(now, promised.seconds(), learnt))
}

impl<T, L: Clone> Core<T, L> {
    /// Believes curves of an earlier process; figures that cannot be are left out.
    pub fn remember(&mut self, mut curves: Vec<Remembered>) {
        curves.sort_by_key(|curve| curve.bucket);
        for curve in curves.into_iter().take(CURVES) {
            let Some(line) = curve.line() else { continue };
            let class =
                DeviceClass { fingerprint: curve.fingerprint, kind: curve.device_kind, model: curve.device_model };
            let lines = self.remembered.lines.entry((curve.model, curve.path, class)).or_default();
            lines.truncate(curve.bucket as usize);
            // One beyond a gap would stand for another bucket.
            if lines.len() == curve.bucket as usize {
                lines.push(line);
            }
        }
    }

    fn remembered(&self, model: usize, class: usize) -> Option<&Vec<Line>> {
        let (model, class) = (&self.models[model], &self.classes[class].class);
        let key = (model.name.to_string(), model.path.clone()?, class.clone());
        self.remembered.lines.get(&key).filter(|lines| !lines.is_empty())
    }

    /// The curves of a model that was read, by length bucket: what an earlier process learnt, or else the seed.
    pub(super) fn seeded(&self, now: Nanos, model: usize, class: usize, seed: ServiceCurve) -> Vec<Curve> {
        match self.remembered(model, class) {
            Some(lines) => recalled(now, seed, lines).collect(),
            None => vec![Curve::new(seed)],
        }
    }

    /// The curves of a model that was warmed up just now, by length bucket: what batches taught before, here or in an
    /// earlier process, unless the device is far faster by now. Where it is slower, batches say so soon.
    pub(super) fn measured_curves(&self, now: Nanos, model: usize, class: usize, measured: ServiceCurve) -> Vec<Curve> {
        let promised = Curve::new(measured).line();
        let taught = |(curve, bucket): (&Curve, i32)| match curve.was_observed() {
            true => curve.learnt(),
            false => promised.stretched(NEXT_BUCKET.powi(bucket)),
        };
        let known = self.models[model].known.iter().find(|known| known.class == class);
        let taught: Vec<Line> = match known.filter(|known| known.curves().any(Curve::was_observed)) {
            Some(known) => known.curves().zip(0..).map(taught).collect(),
            None => self.remembered(model, class).cloned().unwrap_or_default(),
        };
        let told = promised.predict(1) > 0;
        match taught.first() {
            Some(first) if !told || !first.exceeds(&promised, OUTDATED) => recalled(now, measured, &taught).collect(),
            _ => vec![Curve::new(measured)],
        }
    }

    /// What batches have taught since this was last asked, so many curves or few more; empty when there is nothing left.
    pub fn take_taught(&mut self, most: usize) -> Vec<Remembered> {
        let mut taught = Vec::new();
        while taught.len() < most
            && let Some((index, class)) = self.remembered.taught.pop()
        {
            let model = &mut self.models[index];
            let known = model.known.iter_mut().find(|known| known.class == class);
            let (Some(known), Some(path)) = (known, &model.path) else { continue };
            known.unsaved = false;
            let class = &self.classes[class].class;
            taught.extend(known.curves().zip(0..).map(|(curve, bucket)| {
                let (line, seconds) = (curve.learnt(), curve.learnt().seconds());
                Remembered {
                    model: model.name.to_string(),
                    path: path.clone(),
                    fingerprint: class.fingerprint.clone(),
                    device_kind: class.kind.clone(),
                    device_model: class.model.clone(),
                    bucket,
                    base_seconds: seconds.base_seconds,
                    per_row_seconds: seconds.per_row_seconds,
                    inflation: line.inflation,
                }
            }));
        }
        taught
    }
}
