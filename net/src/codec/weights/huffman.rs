//! Canonical Huffman codes of bytes, at most eleven bits long.

/// The longest code: the decoder's table has an entry for each of its values.
pub(super) const MOST_BITS: u32 = 11;
/// All codes together fill this exactly (Kraft's equality): there is a symbol for every sequence of bits.
const WHOLE: u32 = 1 << MOST_BITS;

/// The length of each byte's code, zero of those that do not occur.
pub(super) type Lengths = [u8; 256];

/// How often each byte occurs.
pub(super) fn counts(symbols: &[u8]) -> [u32; 256] {
    // Four, so that neighbours that are equal do not wait for each other.
    let mut counts = [[0u32; 256]; 4];
    let (fours, rest) = symbols.as_chunks::<4>();
    for four in fours {
        for (counts, symbol) in counts.iter_mut().zip(four) {
            counts[usize::from(*symbol)] += 1;
        }
    }
    rest.iter().for_each(|symbol| counts[0][usize::from(*symbol)] += 1);
    std::array::from_fn(|symbol| counts.iter().map(|counts| counts[symbol]).sum())
}

/// Lengths for bytes that occur so often; of at least two.
pub(super) fn lengths(counts: &[u32; 256]) -> Lengths {
    let mut used: Vec<u8> = (0..=255).filter(|symbol| counts[usize::from(*symbol)] > 0).collect();
    used.sort_by_key(|symbol| counts[usize::from(*symbol)]);
    let mut lengths = [0; 256];
    for (symbol, depth) in used.iter().zip(depths(&used, counts)) {
        lengths[usize::from(*symbol)] = depth.clamp(1, MOST_BITS as u8);
    }
    fit(&used, &mut lengths);
    lengths
}

/// How deep each symbol lies in Huffman's tree; the symbols come from the rarest to the most frequent.
fn depths(used: &[u8], counts: &[u32; 256]) -> Vec<u8> {
    // Leaves, then the nodes in the order in which they are made, so both by weight.
    let mut weights: Vec<u64> = used.iter().map(|symbol| counts[usize::from(*symbol)].into()).collect();
    let (leaves, mut leaf, mut node) = (used.len(), 0, used.len());
    let mut parents = vec![0; (2 * leaves).saturating_sub(1)];
    for made in leaves..parents.len() {
        let mut weight = 0;
        for _ in 0..2 {
            let from_leaves = leaf < leaves && (node == made || weights[leaf] <= weights[node]);
            let taken = if from_leaves { &mut leaf } else { &mut node };
            weight += weights[*taken];
            parents[*taken] = made;
            *taken += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0u8; parents.len()];
    for index in (0..parents.len().saturating_sub(1)).rev() {
        depths[index] = depths[parents[index]].saturating_add(1);
    }
    depths.truncate(leaves);
    depths
}

/// Lengthens codes of rare symbols until all have room, then shortens others until none is left.
fn fit(used: &[u8], lengths: &mut Lengths) {
    let share = |length: u8| WHOLE >> length;
    let mut filled: u32 = used.iter().map(|symbol| share(lengths[usize::from(*symbol)])).sum();
    while filled > WHOLE {
        let longer = used.iter().find(|symbol| u32::from(lengths[usize::from(**symbol)]) < MOST_BITS);
        // There are 256 symbols at most, which fit if each has the longest code.
        let Some(symbol) = longer else { return };
        let length = &mut lengths[usize::from(*symbol)];
        filled -= share(*length) - share(*length + 1);
        *length += 1;
    }
    while filled < WHOLE {
        let fits = |symbol: &&u8| {
            let length = lengths[usize::from(**symbol)];
            length > 1 && filled + share(length) <= WHOLE
        };
        // The longest code always fits: all shares are multiples of its.
        let Some(symbol) = used.iter().rev().find(fits) else { return };
        let length = &mut lengths[usize::from(*symbol)];
        filled += share(*length);
        *length -= 1;
    }
}

/// Whether they are the lengths of a whole code.
pub(super) fn are_whole(lengths: &Lengths) -> bool {
    let used = lengths.iter().filter(|length| **length > 0);
    lengths.iter().all(|length| u32::from(*length) <= MOST_BITS)
        && used.map(|length| WHOLE >> length).sum::<u32>() == WHOLE
}

/// The codes, the first bit the lowest: of one length they follow each other in the symbols' order.
pub(super) fn codes(lengths: &Lengths) -> [u16; 256] {
    let (mut codes, mut next) = ([0; 256], 0u16);
    for length in 1..=MOST_BITS {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, own)| u32::from(**own) == length) {
            *code = next.reverse_bits() >> (16 - length);
            next += 1;
        }
        next <<= 1;
    }
    codes
}
