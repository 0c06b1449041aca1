//! Which maps share memory: the place of a map is free again once the last operation that reads it is done.

use super::{Network, Operation, Value};
use crate::kernels::Map;

/// The places in which the maps of a network lie.
#[derive(Debug)]
pub(super) struct Storage {
    /// Of each value its place.
    pub(super) places: Vec<usize>,
    /// Numbers that each place holds at most.
    sizes: Vec<usize>,
}

impl Storage {
    /// Gives each value the first place that is free when it is made.
    pub(super) fn of(network: &Network) -> Self {
        let values = network.operations.len() + 1;
        // What comes out is read at the end.
        let mut last_read = vec![values; values];
        for (step, Operation { from, added, .. }) in network.operations.iter().enumerate() {
            [Some(*from), *added].into_iter().flatten().for_each(|Value(value)| last_read[value] = step + 1);
        }
        let (mut places, mut sizes, mut free_after): (Vec<usize>, Vec<usize>, Vec<usize>) = Default::default();
        for (value, last_read) in last_read.into_iter().enumerate() {
            let place = free_after.iter().position(|read| *read < value).unwrap_or(free_after.len());
            if place == free_after.len() {
                free_after.push(0);
                sizes.push(0);
            }
            free_after[place] = last_read;
            sizes[place] = sizes[place].max(network.layouts[value].len());
            places.push(place);
        }
        Self { places, sizes }
    }

    /// Bytes of all maps of one image.
    pub(super) fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| Map::bytes(*size)).sum()
    }

    /// The places, still empty.
    pub(super) fn maps(&self) -> Vec<Map> {
        self.sizes.iter().map(|_| Map::default()).collect()
    }
}
