//! Which models are on which device, and which wish of a scheduler is the newest. Decisions only: no thread, no I/O.

use std::collections::{HashMap, VecDeque};

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
    /// The newest wish of the scheduler for each place. Its names are the scheduler's, so they are few.
    orders: HashMap<Place, u64>,
    /// What was given up and whose memory is not yet free.
    leaving: HashMap<Place, Leaving>,
    loads: u64,
    /// What is to be told, in the order in which it was decided.
    reports: VecDeque<ModelReport>,
    telling: bool,
}

struct Resident {
    path: String,
    /// This worker's number of the load: tells one that was given up from the one that followed it.
    load: u64,
    /// As it was last told; its order is the scheduler's number of the wish that it answers.
    report: ModelReport,
}

struct Leaving {
    loads: Vec<u64>,
    /// Due when all of them are gone.
    report: ModelReport,
}

/// What to do about a wish to load.
pub(super) enum Load {
    /// It is older than another wish: nothing.
    Stale,
    /// It is there, or on its way: that is told again.
    Known,
    /// Load it under this number, after what was there under another has been dropped.
    Start(u64, Option<u64>),
}

/// What to do about a wish to unload.
pub(super) enum Unload {
    /// It is older than another wish: nothing.
    Stale,
    /// Nothing is held: that is told.
    Nothing,
    /// Drop the model of this load from its device.
    Drop(u64),
    /// Whoever loads it finds it given up and drops it.
    Underway,
}

impl Resident {
    fn unload(self) -> Unload {
        if self.report.state() == State::Ready { Unload::Drop(self.load) } else { Unload::Underway }
    }
}

impl Table {
    /// A model that no scheduler can unload.
    pub(super) fn keep(&mut self, place: Place, report: ModelReport) {
        self.residents.insert(place, Resident { path: String::new(), load: 0, report });
    }

    /// Something to be told.
    pub(super) fn say(&mut self, report: ModelReport) {
        self.reports.push_back(report);
    }

    /// Whether the caller is to tell what there is to be told; if not, somebody already does. One at a time, so that it
    /// arrives in the order in which it was decided.
    pub(super) fn begin_telling(&mut self) -> bool {
        !std::mem::replace(&mut self.telling, true)
    }

    /// What is to be told next; none ends the caller's turn.
    pub(super) fn next_report(&mut self) -> Option<ModelReport> {
        let report = self.reports.pop_front();
        self.telling = report.is_some();
        report
    }

    /// Says all that a new scheduler needs to know of what is here. What it unloaded may not have reached it.
    pub(super) fn say_all(&mut self, unloaded: impl Fn(&Place) -> ModelReport) {
        let gone = |place: &Place| !self.residents.contains_key(place) && !self.leaving.contains_key(place);
        let gone = self.orders.iter().filter(|(place, _)| gone(place));
        let gone = gone.map(|(place, order)| ModelReport { order: *order, ..unloaded(place) });
        self.reports.extend(self.residents.values().map(|resident| resident.report.clone()).chain(gone));
    }

    /// A scheduler wishes a model to be loaded; `loading` is what is told of it meanwhile, with the wish's order.
    pub(super) fn load(&mut self, place: &Place, path: &str, loading: ModelReport) -> Load {
        if !self.newest(place, loading.order) {
            return Load::Stale;
        }
        let replaced = match self.residents.get_mut(place) {
            Some(resident) if resident.path == path && resident.report.state() != State::Failed => {
                resident.report.order = loading.order;
                self.reports.push_back(resident.report.clone());
                return Load::Known;
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
        let resident = self.residents.remove(place).filter(|resident| resident.report.state() != State::Failed);
        let Some(leaving) = self.leaving.get_mut(place) else {
            let Some(resident) = resident else {
                self.say(unloaded);
                return Unload::Nothing;
            };
            self.leaving.insert(place.clone(), Leaving { loads: vec![resident.load], report: unloaded });
            return resident.unload();
        };
        // Told of all at once, when the last is gone.
        leaving.report = unloaded;
        let Some(resident) = resident else { return Unload::Underway };
        leaving.loads.push(resident.load);
        resident.unload()
    }

    /// The memory of a load that was given up is free, which is told if somebody waits for it.
    pub(super) fn gone(&mut self, place: &Place, load: u64) {
        let Some(leaving) = self.leaving.get_mut(place) else { return };
        leaving.loads.retain(|other| *other != load);
        if leaving.loads.is_empty() {
            let due = self.leaving.remove(place);
            self.reports.extend(due.map(|leaving| leaving.report));
        }
    }

    /// Whether this load has not been given up.
    pub(super) fn wants(&self, place: &Place, load: u64) -> bool {
        self.residents.get(place).is_some_and(|resident| resident.load == load)
    }

    /// Puts a report in place and says it, under the order of the wish that it answers; not if this load was given up.
    pub(super) fn update(&mut self, place: &Place, load: u64, report: ModelReport) -> bool {
        let resident = self.residents.get_mut(place).filter(|resident| resident.load == load);
        let Some(resident) = resident else { return false };
        resident.report = ModelReport { order: resident.report.order, ..report };
        self.reports.push_back(resident.report.clone());
        true
    }

    /// Another scheduler's wishes come: their numbers are not to be compared with those of the one before.
    pub(super) fn forget_orders(&mut self) {
        self.orders.clear();
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

    /// What was to be told since this was last asked.
    fn told(table: &mut Table) -> Vec<(State, u64)> {
        std::iter::from_fn(|| table.next_report()).map(|report| (report.state(), report.order)).collect()
    }

    fn all(table: &mut Table) -> Vec<(State, u64)> {
        table.say_all(|_| report(State::Unloaded, 0));
        told(table)
    }

    #[test]
    fn unloaded_is_told_when_the_memory_is_free_and_with_its_own_order() {
        let mut table = Table::default();
        let (number, _) = load(&mut table, "p", 3).unwrap();
        assert!(table.update(&place(), number, report(State::Ready, 99)));
        assert_eq!(told(&mut table), [(State::Ready, 3)]);
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 5)), Unload::Drop(of) if of == number));
        assert_eq!(all(&mut table), [], "neither there nor gone");
        table.gone(&place(), number);
        assert_eq!(told(&mut table), [(State::Unloaded, 5)]);
        table.gone(&place(), number);
        assert_eq!(told(&mut table), [], "once");
        assert_eq!(all(&mut table), [(State::Unloaded, 5)], "to a scheduler that missed it");
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 6)), Unload::Nothing));
        assert_eq!(told(&mut table), [(State::Unloaded, 6)]);
    }

    #[test]
    fn a_load_that_is_given_up_is_for_its_loader_to_drop() {
        let mut table = Table::default();
        let (number, _) = load(&mut table, "p", 1).unwrap();
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 2)), Unload::Underway));
        assert!(!table.wants(&place(), number));
        assert!(!table.update(&place(), number, report(State::Ready, 0)));
        let (next, _) = load(&mut table, "p", 3).unwrap();
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 4)), Unload::Underway));
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 5)), Unload::Underway));
        table.gone(&place(), next);
        assert_eq!(told(&mut table), [], "the first still holds memory");
        table.gone(&place(), number);
        assert_eq!(told(&mut table), [(State::Unloaded, 5)]);
    }

    #[test]
    fn old_wishes_are_nothing_and_known_models_are_told_again() {
        let mut table = Table::default();
        let (number, replaced) = load(&mut table, "p", 5).unwrap();
        assert_eq!(replaced, None);
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 4)), Unload::Stale));
        assert!(matches!(table.load(&place(), "p", report(State::Loading, 5)), Load::Stale));
        table.update(&place(), number, report(State::Ready, 0));
        assert!(matches!(table.load(&place(), "p", report(State::Loading, 6)), Load::Known));
        assert_eq!(told(&mut table), [(State::Ready, 5), (State::Ready, 6)]);
        assert_eq!(load(&mut table, "elsewhere", 7).map(|(_, replaced)| replaced), Some(Some(number)));
        let other = Place { device: 0, ..place() };
        assert!(matches!(table.load(&other, "p", report(State::Loading, 1)), Load::Start(_, None)), "another device");
        table.forget_orders();
        assert!(matches!(table.load(&other, "p", report(State::Loading, 1)), Load::Known), "another scheduler");
    }

    #[test]
    fn a_failed_load_is_tried_again_and_holds_nothing() {
        let mut table = Table::default();
        let (number, _) = load(&mut table, "p", 1).unwrap();
        table.update(&place(), number, report(State::Failed, 0));
        assert_eq!(told(&mut table), [(State::Failed, 1)]);
        assert!(load(&mut table, "p", 2).is_some_and(|(again, replaced)| again != number && replaced.is_none()));
        table.update(&place(), number + 1, report(State::Failed, 0));
        assert!(matches!(table.unload(&place(), report(State::Unloaded, 3)), Unload::Nothing));
        assert_eq!(told(&mut table), [(State::Failed, 2), (State::Unloaded, 3)]);
    }

    #[test]
    fn one_tells_at_a_time_until_there_is_nothing_left() {
        let mut table = Table::default();
        table.say(report(State::Ready, 1));
        assert!(table.begin_telling() && !table.begin_telling());
        assert!(table.next_report().is_some());
        table.say(report(State::Ready, 2));
        assert!(!table.begin_telling(), "the first one tells it");
        assert!(table.next_report().is_some_and(|report| report.order == 2) && table.next_report().is_none());
        assert!(table.begin_telling());
    }
}
