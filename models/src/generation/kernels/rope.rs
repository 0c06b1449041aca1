//! Rotary positions (Su et al. 2021).

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeStyle {
    /// 2i and 2i + 1, as in the paper and in GGUF files of the family llama.
    Adjacent,
    /// i and i + half, as checkpoints on hubs have it.
    Halves,
}

/// The turns of one position: a cosine and a sine for each pair.
pub(crate) struct Rope<'a> {
    pub(crate) style: RopeStyle,
    pub(crate) cosines: &'a [f32],
    pub(crate) sines: &'a [f32],
}

impl Rope<'_> {
    /// Turns one head; what lies beyond the pairs stays.
    pub(crate) fn turn(&self, head: &mut [f32]) {
        let pairs = self.cosines.len();
        match self.style {
            RopeStyle::Adjacent => {
                let (heads, _) = head.as_chunks_mut::<2>();
                for ([a, b], (cos, sin)) in heads.iter_mut().zip(self.cosines.iter().zip(self.sines)) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
            RopeStyle::Halves => {
                let (low, high) = head.split_at_mut(pairs);
                for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(self.cosines.iter().zip(self.sines)) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}
