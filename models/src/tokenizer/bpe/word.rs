//! A word whose neighbouring tokens are joined, the pair of the least rank first, of equals the leftmost.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Merges, Piece};

/// No neighbour.
const NONE: usize = usize::MAX;

/// A token of the word, linked to its neighbours; without bytes once its left neighbour has taken it in.
#[derive(Clone, Copy)]
struct Symbol {
    piece: Piece,
    left: usize,
    right: usize,
}

/// The tokens that a word begins as.
pub(super) struct Word(Vec<Symbol>);

impl Word {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub(super) fn push(&mut self, piece: Piece) {
        let index = self.0.len();
        let left = index.checked_sub(1).unwrap_or(NONE);
        self.0.get_mut(left).into_iter().for_each(|before| before.right = index);
        self.0.push(Symbol { piece, left, right: NONE });
    }

    /// Joins what can be joined.
    pub(super) fn merge(self, merges: &Merges) -> Vec<Piece> {
        let Self(mut symbols) = self;
        let candidate = |symbols: &[Symbol], at: usize| {
            let symbol = symbols.get(at)?;
            let right = symbols.get(symbol.right)?;
            let merge = merges.get(&(symbol.piece.id, right.piece.id))?;
            Some(Reverse((merge.rank, at, merge.id)))
        };
        let mut queue: BinaryHeap<_> = (0..symbols.len()).filter_map(|at| candidate(&symbols, at)).collect();
        while let Some(Reverse((_, at, id))) = queue.pop() {
            // What was queued before its pair changed is passed over.
            let current = candidate(&symbols, at).is_some_and(|Reverse((_, _, current))| current == id);
            if symbols[at].piece.bytes == 0 || !current {
                continue;
            }
            let taken = symbols[at].right;
            let (bytes, right) = (symbols[taken].piece.bytes, symbols[taken].right);
            symbols[taken].piece.bytes = 0;
            symbols[at].piece = Piece { id, bytes: symbols[at].piece.bytes + bytes };
            symbols[at].right = right;
            symbols.get_mut(right).into_iter().for_each(|next| next.left = at);
            queue.extend(candidate(&symbols, symbols[at].left));
            queue.extend(candidate(&symbols, at));
        }
        symbols.into_iter().map(|symbol| symbol.piece).filter(|piece| piece.bytes > 0).collect()
    }
}
