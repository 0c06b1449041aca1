//! Which windows of a batch follow each other: a request's rows, and the requests of one sequence.

use std::collections::HashMap;

use orion_proto::{Error, Result, Sequence};

use super::sequences::{Sequences, State, unknown};

/// Windows that follow each other, from a state on.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) begin: State,
    /// Requests of the batch, in order, each with its rows.
    pub(super) requests: Vec<(usize, usize)>,
    /// The sequence whose state the chain's last one is; none for a request of no sequence.
    pub(super) key: Option<u64>,
    /// Nothing follows.
    pub(super) ended: bool,
}

impl Chain {
    /// Windows of all its requests.
    pub(super) fn windows(&self) -> usize {
        self.requests.iter().map(|(_, rows)| rows).sum()
    }
}

/// The chains of a batch, from each request's sequence and rows. Beside them the requests that have no state to begin with.
pub(super) fn chains(
    requests: &[(usize, usize, Option<Sequence>)],
    known: &Sequences,
) -> (Vec<Chain>, Vec<(usize, Error)>) {
    let (mut chains, mut refused): (Vec<Chain>, Vec<(usize, Error)>) = (Vec::new(), Vec::new());
    // The chain that a sequence's next request goes on with.
    let mut open: HashMap<u64, usize> = HashMap::new();
    for &(index, rows, sequence) in requests {
        let Some(Sequence { key, start, end }) = sequence else {
            chains.push(Chain { begin: State::begin(), requests: vec![(index, rows)], key: None, ended: true });
            continue;
        };
        let going = open.get(&key).copied().filter(|_| !start);
        let chain = match going {
            Some(at) if !chains[at].ended => {
                chains[at].requests.push((index, rows));
                at
            }
            ended => match begin(key, start, ended.is_some(), known) {
                Ok(begin) => {
                    chains.push(Chain { begin, requests: vec![(index, rows)], key: Some(key), ended: false });
                    chains.len() - 1
                }
                Err(error) => {
                    refused.push((index, error));
                    continue;
                }
            },
        };
        chains[chain].ended = end;
        open.insert(key, chain);
    }
    (chains, refused)
}

/// The state that a sequence's request begins with. `ended`: the sequence ended earlier in this batch.
fn begin(key: u64, start: bool, ended: bool, known: &Sequences) -> Result<State> {
    match (key, start) {
        (0, _) => Err(Error::invalid("sequence_start and sequence_end need a sequence_id that is not 0")),
        (_, true) => Ok(State::begin()),
        (_, false) if ended => Err(unknown()),
        (_, false) => known.get(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(key: u64, start: bool, end: bool) -> Option<Sequence> {
        Some(Sequence { key, start, end })
    }

    #[test]
    fn requests_of_one_sequence_follow_each_other_and_others_stand_alone() {
        let mut known = Sequences::new(9);
        let heard = State { hidden: vec![1.0; super::super::HIDDEN], ..State::begin() };
        known.keep(5, heard.clone());
        let requests = [
            (0, 2, sequence(7, true, false)),
            (1, 1, None),
            (2, 3, sequence(5, false, false)),
            (3, 1, sequence(7, false, true)),
            (4, 1, sequence(7, false, false)),
            (5, 1, sequence(7, true, false)),
            (6, 1, sequence(8, false, false)),
            (7, 1, sequence(0, true, false)),
            (8, 0, sequence(5, true, true)),
        ];
        let (chains, refused) = chains(&requests, &known);
        let found: Vec<_> = chains.iter().map(|chain| (chain.requests.clone(), chain.key, chain.ended)).collect();
        let expected = [
            (vec![(0, 2), (3, 1)], Some(7), true),
            (vec![(1, 1)], None, true),
            (vec![(2, 3)], Some(5), false),
            (vec![(5, 1)], Some(7), false),
            (vec![(8, 0)], Some(5), true),
        ];
        assert_eq!(found, expected);
        assert_eq!(chains.iter().map(Chain::windows).collect::<Vec<_>>(), [3, 1, 3, 1, 0]);
        assert!(chains[2].begin == heard && chains[4].begin == State::begin());
        // Ended in this batch, never started, and a flag without a sequence.
        assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [4, 6, 7]);
        assert!(refused[2].1.message.contains("need a sequence_id"), "{}", refused[2].1);
    }
}
