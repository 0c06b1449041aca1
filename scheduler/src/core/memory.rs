//! Curves that outlive a restart: what batches have taught is where the next process begins.

use std::collections::HashMap;

use orion_proto::ServiceCurve;
use serde::{Deserialize, Serialize};

use super::{Core, curve::Curve, device::DeviceClass};

/// Curves that are kept.
const CURVES: usize = 65_536;
/// A remembered curve is out of date that predicts more than so many times what warm-up measures.
const OUTDATED: f64 = 4.0;

/// A model's curve on devices of one class.
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
    pub base_seconds: f64,
    pub per_row_seconds: f64,
}

type Key = (String, String, DeviceClass);

/// Curves of earlier processes.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<Key, ServiceCurve>);

impl<T, L: Clone> Core<T, L> {
    /// Believes curves of an earlier process; figures that cannot be are left out.
    pub fn remember(&mut self, curves: Vec<Remembered>) {
        let sane = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
        for curve in curves.into_iter().take(CURVES) {
            if sane(curve.base_seconds) && sane(curve.per_row_seconds) {
                let class =
                    DeviceClass { fingerprint: curve.fingerprint, kind: curve.device_kind, model: curve.device_model };
                let seconds = ServiceCurve { base_seconds: curve.base_seconds, per_row_seconds: curve.per_row_seconds };
                self.remembered.0.insert((curve.model, curve.path, class), seconds);
            }
        }
    }

    pub(super) fn remembered(&self, model: usize, class: usize) -> Option<Curve> {
        let (model, class) = (&self.models[model], &self.classes[class].class);
        let key = (model.name.to_string(), model.path.clone()?, class.clone());
        self.remembered.0.get(&key).map(|curve| Curve::new(*curve))
    }

    /// The curve of a model that was warmed up just now: what an earlier process learnt, unless the device is far faster
    /// than that by now. Where it is too slow for such a curve, batches say so soon.
    pub(super) fn believed(&self, model: usize, class: usize, measured: ServiceCurve) -> Curve {
        let measured = Curve::new(measured);
        let remembered = self.remembered(model, class);
        let outdated =
            |curve: &Curve| measured.line().predict(1) > 0 && curve.line().exceeds(&measured.line(), OUTDATED);
        remembered.filter(|curve| !outdated(curve)).unwrap_or(measured)
    }

    /// The curves to keep: of this process, and of earlier ones for what was not seen in it.
    pub fn curves(&self) -> Vec<Remembered> {
        let mut all: HashMap<Key, ServiceCurve> = self.remembered.0.clone();
        for model in self.models.iter().filter(|model| !model.built_in) {
            let Some(path) = &model.path else { continue };
            for known in model.known.iter().filter(|known| known.curve.was_observed()) {
                let class = self.classes[known.class].class.clone();
                all.insert((model.name.to_string(), path.clone(), class), known.curve.corrected());
            }
        }
        let mut curves: Vec<Remembered> = all
            .into_iter()
            .take(CURVES)
            .map(|((model, path, class), curve)| Remembered {
                model,
                path,
                fingerprint: class.fingerprint,
                device_kind: class.kind,
                device_model: class.model,
                base_seconds: curve.base_seconds,
                per_row_seconds: curve.per_row_seconds,
            })
            .collect();
        curves.sort_by(|a, b| (&a.model, &a.path, &a.fingerprint).cmp(&(&b.model, &b.path, &b.fingerprint)));
        curves
    }
}
