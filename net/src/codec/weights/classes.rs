//! Numbers by their exponents: the smaller a number, the more numbers it moves by when it is trained.

use super::{Corrupt, magnitude::SYMBOLS};

/// The most classes; their decoder's tables stay in the nearest cache.
pub(super) const CLASSES: usize = 8;
/// Bits that a class takes for itself, and for each of its symbols.
const CLASS_BITS: f64 = 24.0;
const SYMBOL_BITS: f64 = 4.0;

/// How often each symbol occurs.
pub(super) type Counts = [u32; SYMBOLS];

/// The exponent with which each class but the first begins, each greater than the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes(Vec<u8>);

impl Classes {
    /// Few classes, of exponents with which symbols occur so often, that cost little together; and how often they occur in
    /// each.
    pub(super) fn choose(counts: &[Counts]) -> (Self, Vec<Counts>) {
        let used = (0..=255u8).zip(counts).filter(|(_, counts)| counts.iter().any(|count| *count > 0));
        let mut classes: Vec<(u8, Counts, f64)> = used.map(|(start, counts)| (start, *counts, cost(counts))).collect();
        let joint = |classes: &[(u8, Counts, f64)], first: usize| match classes.get(first..first + 2) {
            Some([one, other]) => cost(&sum(&one.1, &other.1)) - one.2 - other.2,
            _ => f64::INFINITY,
        };
        // What it costs to join each with the next.
        let mut joints: Vec<f64> = (0..classes.len()).map(|first| joint(&classes, first)).collect();
        while let Some((first, least)) =
            joints.iter().copied().enumerate().min_by(|one, other| one.1.total_cmp(&other.1))
        {
            if least.is_infinite() || classes.len() <= CLASSES && least > 0.0 {
                break;
            }
            let (_, next, _) = classes.remove(first + 1);
            let class = &mut classes[first];
            class.1 = sum(&class.1, &next);
            class.2 = cost(&class.1);
            joints.remove(first + 1);
            joints[first] = joint(&classes, first);
            if let Some(before) = first.checked_sub(1) {
                joints[before] = joint(&classes, before);
            }
        }
        let starts = classes.iter().skip(1).map(|(start, ..)| *start).collect();
        (Self(starts), classes.into_iter().map(|(_, counts, _)| counts).collect())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// Replaces exponents by their classes.
    pub(super) fn classify(&self, exponents: &mut [u8]) {
        replace(&self.0, exponents);
    }

    /// Appends them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.0.len() as u8);
        out.extend_from_slice(&self.0);
    }

    /// Reads them; what is left of the bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Corrupt> {
        let (count, bytes) = bytes.split_first().ok_or(Corrupt::Short)?;
        if usize::from(*count) >= CLASSES {
            return Err(Corrupt::Code);
        }
        let (starts, bytes) = bytes.split_at_checked((*count).into()).ok_or(Corrupt::Short)?;
        Ok((Self(starts.to_vec()), bytes))
    }
}

wide! {
    /// Replaces exponents by how many of the starts they reach.
    fn replace(starts: &[u8], exponents: &mut [u8]) = replace_inlined
}

#[inline(always)]
fn replace_inlined(starts: &[u8], exponents: &mut [u8]) {
    // Seven at once, always: so they stay in registers. What is missing is compared with more than there is.
    let starts: [u16; CLASSES - 1] =
        std::array::from_fn(|index| starts.get(index).map_or(256, |start| (*start).into()));
    for exponent in exponents {
        let own = u16::from(*exponent);
        *exponent = starts.iter().map(|start| u8::from(own >= *start)).sum();
    }
}

fn sum(one: &Counts, other: &Counts) -> Counts {
    std::array::from_fn(|symbol| one[symbol] + other[symbol])
}

/// Bits that symbols take which occur so often, with their table.
fn cost(counts: &Counts) -> f64 {
    let total: u32 = counts.iter().sum();
    let used = counts.iter().map(|count| f64::from(*count)).filter(|count| *count > 0.0);
    used.map(|count| SYMBOL_BITS - count * count.log2()).sum::<f64>()
        + CLASS_BITS
        + f64::from(total) * f64::from(total).log2()
}
