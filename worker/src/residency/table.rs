//! Which models are on which device, and which wish of a scheduler is the newest. Decisions only: no thread, no I/O.

use std::collections::HashMap;

use orion_proto::session::{ModelReport, model_report::State};

/// A model on one of the worker's devices, by its index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) model: String,
    pub(super) device: usize,
}

#[derive(Default)]
pub(super) struct Table {
    residents: HashMap<Place, Resident>,
    /// The newest wish for each place. Its names are the scheduler's, so they are few.
    orders: HashMap<Place, u64>,
    /// By load: what was given up and whose memory is not yet free, with the report that is due when it is.
    leaving: HashMap<u64, (Place, ModelReport)>,
    loads: u64,
}

struct Resident {
    path: String,
    /// This worker's number of the load: tells one that was given up from the one that followed it.
    load: u64,
    /// As it was last told; its order is the scheduler's number of the wish that it answers.
    report: ModelReport,
}

/// What to do about a wish to load.
pub(super) enum Load {
    /// It is older than another wish: nothing.
    Stale,
    /// It is there, or on its way: say so again.
    Known(Box<ModelReport>),
    /// Load it under this number, after what was there under another has been dropped.
    Start(u64, Option<u64>),
}

/// What to do about a wish to unload.
pub(super) enum Unload {
    /// It is older than another wish: nothing.
    Stale,
    /// Nothing is held: say so.
    Nothing(Box<ModelReport>),
    /// Drop the model of this load from its device.
    Drop(u64),
    /// Whoever loads it finds it given up and drops it.
    Underway,
}

impl Table {
    /// A model that no scheduler can unload.
    pub(super) fn keep(&mut self, place: Place, report: ModelReport) {
        self.residents.insert(place, Resident { path: String::new(), load: 0, report });
    }

    /// Every report that a scheduler needs to know what is here. What it unloaded may not have reached it.
    pub(super) fn reports(&self, unloaded: impl Fn(&Place) -> ModelReport) -> Vec<ModelReport> {
        let gone = |place: &Place| {
            !self.residents.contains_key(place) && self.leaving.values().all(|(leaving, _)| leaving != place)
        };
        let gone = self.orders.iter().filter(|(place, _)| gone(place));
        let gone = gone.map(|(place, order)| ModelReport { order: *order, ..unloaded(place) });
        self.residents.values().map(|resident| resident.report.clone()).chain(gone).collect()
    }

    /// A scheduler wishes a model to be loaded; `loading` is what is told of it meanwhile, with the wish's order.
    pub(super) fn load(&mut self, place: &Place, path: &str, loading: ModelReport) -> Load {
        if !self.newest(place, loading.order) {
            return Load::Stale;
        }
        let replaced = match self.residents.get_mut(place) {
            Some(resident) if resident.path == path && resident.report.state() != State::Failed => {
                resident.report.order = loading.order;
                return Load::Known(Box::new(resident.report.clone()));
            }
            Some(resident) if resident.report.state() == State::Ready => Some(resident.load),
            _ => None,
        };
        self.loads += 1;
        let load = self.loads;
        self.residents.insert(place.clone(), Resident { path: path.to_owned(), load, report: loading });
        Load::Start(load, replaced)
    }

    /// A scheduler wishes a model away; `unloaded` is what is told when it is, with the wish's order.
    pub(super) fn unload(&mut self, place: &Place, unloaded: ModelReport) -> Unload {
        if !self.newest(place, unloaded.order) {
            return Unload::Stale;
        }
        let Some(resident) = self.residents.remove(place) else {
            // Twice unloaded: told when the first is through.
            let leaving = self.leaving.values_mut().find(|(leaving, _)| leaving == place);
            return match leaving {
                Some((_, report)) => {
                    *report = unloaded;
                    Unload::Underway
                }
                None => Unload::Nothing(Box::new(unloaded)),
            };
        };
        match resident.report.state() {
            State::Failed => Unload::Nothing(Box::new(unloaded)),
            state => {
                self.leaving.insert(resident.load, (place.clone(), unloaded));
                if state == State::Ready { Unload::Drop(resident.load) } else { Unload::Underway }
            }
        }
    }

    /// The memory of a load that was given up is free; what is to be told of it.
    pub(super) fn gone(&mut self, load: u64) -> Option<ModelReport> {
        self.leaving.remove(&load).map(|(_, report)| report)
    }

    /// Whether this load has not been given up.
    pub(super) fn wants(&self, place: &Place, load: u64) -> bool {
        self.residents.get(place).is_some_and(|resident| resident.load == load)
    }

    /// Puts a report in place, under the order of the wish that it answers; none if this load was given up.
    pub(super) fn update(&mut self, place: &Place, load: u64, report: ModelReport) -> Option<ModelReport> {
        let resident = self.residents.get_mut(place).filter(|resident| resident.load == load)?;
        resident.report = ModelReport { order: resident.report.order, ..report };
        Some(resident.report.clone())
    }

    /// Remembers the newest wish for a place; says whether this one is it.
    fn newest(&mut self, place: &Place, order: u64) -> bool {
        let newest = self.orders.entry(place.clone()).or_default();
        let is_newest = order > *newest;
        *newest = order.max(*newest);
        is_newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { model: "m".into(), device: 1 }
    }

    fn report(state: State, order: u64) -> ModelReport {
        let mut report = ModelReport { order, ..ModelReport::default() };
        report.set_state(state);
        report
    }

    fn load(table: &mut Table, path: &str, order: u64) -> Option<(u64, Option<u64>)> {
        match table.load(&place(), path, report(State::Loading, order)) {
            Load::Start(load, replaced) => Some((load, replaced)),
            _ => None,
        }
    }

    fn told(table: &Table) -> Vec<(State, u64)> {
        let reports = table.reports(|_| report(State::Unloaded, 0));
        reports.iter().map(|report| (report.state(), report.order)).collect()
    }

    #[test]
    fn unloaded_is_told_when_the_memory_is_free_and_with_its_own_order() {
        let mut table = Table::default();
        let (number, _) = load(&mut table, "p", 3).unwrap();
        assert_eq!(table.update(&place(), number, report(State::Ready, 99)).map(|ready| ready.order), Some(3));
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 5)), Unload::Drop(of) if of == number));
        assert_eq!(told(&table), [], "neither there nor gone");
        assert_eq!(table.gone(number).map(|report| (report.state(), report.order)), Some((State::Unloaded, 5)));
        assert_eq!(table.gone(number), None);
        assert_eq!(told(&table), [(State::Unloaded, 5)], "to a scheduler that missed it");
        let again = table.unload(&place(), report(State::Unloaded, 6));
        assert!(matches!(again, Unload::Nothing(report) if report.order == 6));
    }

    #[test]
    fn a_load_that_is_given_up_is_for_its_loader_to_drop() {
        let mut table = Table::default();
        let (number, _) = load(&mut table, "p", 1).unwrap();
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 2)), Unload::Underway));
        assert!(!table.wants(&place(), number));
        assert_eq!(table.update(&place(), number, report(State::Ready, 0)), None);
        let (next, _) = load(&mut table, "p", 3).unwrap();
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 4)), Unload::Underway));
        assert_eq!(table.gone(number).map(|report| report.order), Some(2));
        assert_eq!(table.gone(next).map(|report| report.order), Some(4));
    }

    #[test]
    fn old_wishes_are_nothing_and_known_models_are_told_again() {
        let mut table = Table::default();
        let (number, replaced) = load(&mut table, "p", 5).unwrap();
        assert_eq!(replaced, None);
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 4)), Unload::Stale));
        assert!(matches!(table.load(&place(), "p", report(State::Loading, 5)), Load::Stale));
        table.update(&place(), number, report(State::Ready, 0));
        let known = table.load(&place(), "p", report(State::Loading, 6));
        assert!(matches!(known, Load::Known(report) if report.state() == State::Ready && report.order == 6));
        assert_eq!(load(&mut table, "elsewhere", 7).map(|(_, replaced)| replaced), Some(Some(number)));
        let other = Place { device: 0, ..place() };
        assert!(matches!(table.load(&other, "p", report(State::Loading, 1)), Load::Start(_, None)), "another device");
    }

    #[test]
    fn a_failed_load_is_tried_again_and_holds_nothing() {
        let mut table = Table::default();
        let (number, _) = load(&mut table, "p", 1).unwrap();
        table.update(&place(), number, report(State::Failed, 0));
        assert_eq!(told(&table), [(State::Failed, 1)]);
        assert!(load(&mut table, "p", 2).is_some_and(|(again, replaced)| again != number && replaced.is_none()));
        table.update(&place(), number + 1, report(State::Failed, 0));
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 3)), Unload::Nothing(_)));
    }
}
