//! The states of sequences between their requests: as many as are kept, the longest unused dropped first.

use std::collections::{BTreeMap, HashMap};

use orion_proto::{Code, Error, Result};

use super::{CONTEXT, HIDDEN, MOST_SEQUENCES};

/// What a sequence has heard so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// Its last samples.
    pub(super) context: Vec<f32>,
    pub(super) hidden: Vec<f32>,
    pub(super) cell: Vec<f32>,
}

impl State {
    /// Of a sequence that begins: silence.
    pub(super) fn begin() -> Self {
        Self { context: vec![0.0; CONTEXT], hidden: vec![0.0; HIDDEN], cell: vec![0.0; HIDDEN] }
    }
}

/// What is said of a sequence that was not started, or is no more.
pub(super) fn unknown() -> Error {
    let message = format!(
        "the sequence is not known here: its first request must set sequence_start, it ends with sequence_end, and it is \
         dropped once {MOST_SEQUENCES} others were used after it"
    );
    Error::new(Code::FailedPrecondition, message)
}

/// The states that are kept, by the key of their sequence.
pub(super) struct Sequences {
    states: HashMap<u64, (State, u64)>,
    /// Keys by the number of their last use.
    used: BTreeMap<u64, u64>,
    uses: u64,
    most: usize,
}

impl Sequences {
    /// Keeps at most so many states.
    pub(super) fn new(most: usize) -> Self {
        Self { states: HashMap::new(), used: BTreeMap::new(), uses: 0, most }
    }

    /// The state of a sequence.
    ///
    /// # Errors
    /// FAILED_PRECONDITION for one that was not started, or was dropped.
    pub(super) fn get(&self, key: u64) -> Result<State> {
        self.states.get(&key).map(|(state, _)| state.clone()).ok_or_else(unknown)
    }

    /// Keeps a sequence's state, and drops the one that was not used for longest where there are too many.
    pub(super) fn keep(&mut self, key: u64, state: State) {
        self.uses += 1;
        if let Some((_, before)) = self.states.insert(key, (state, self.uses)) {
            self.used.remove(&before);
        }
        self.used.insert(self.uses, key);
        while self.states.len() > self.most {
            let Some((_, oldest)) = self.used.pop_first() else { break };
            self.states.remove(&oldest);
        }
    }

    /// Forgets a sequence that ended.
    pub(super) fn end(&mut self, key: u64) {
        if let Some((_, before)) = self.states.remove(&key) {
            self.used.remove(&before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_sequence_is_dropped_and_ended_ones_are_forgotten() {
        let mut sequences = Sequences::new(2);
        let state = |mark: f32| State { hidden: vec![mark; HIDDEN], ..State::begin() };
        sequences.keep(1, state(1.0));
        sequences.keep(2, state(2.0));
        sequences.keep(1, state(3.0));
        sequences.keep(3, state(4.0));
        assert_eq!(sequences.get(1).ok(), Some(state(3.0)));
        assert!(sequences.get(2).is_err_and(|error| error.message.contains("sequence_start")));
        sequences.end(1);
        sequences.end(9);
        assert!(sequences.get(1).is_err() && sequences.get(3).is_ok());
        assert_eq!((sequences.states.len(), sequences.used.len()), (1, 1));
    }
}
