//! Which chunk is the rarest.

use super::bitmap::Bitmap;

/// Chunks that so many peers or more have are equally common.
const COMMON: usize = 32;

/// For each chunk, in how many places it is or will be soon; and the wanted ones by that number.
///
/// A chunk is counted in `level`s of one bitmap each, about 4 bytes a chunk in all, so that the rarest that a peer has
/// is found by words of 64, and words that are empty by 64 of these.
#[derive(Debug)]
pub(super) struct Availability {
    places: Vec<u16>,
    /// By places: the chunks that are wanted, which are neither here nor on their way.
    levels: Vec<Bitmap>,
    wanted: Bitmap,
}

impl Availability {
    /// All chunks that are not in `have` are wanted, and nobody has one.
    pub(super) fn new(have: &Bitmap) -> Self {
        let mut wanted = Bitmap::new(have.len());
        have.missing().for_each(|chunk| {
            wanted.insert(chunk);
        });
        Self { places: vec![0; have.len()], levels: vec![wanted.clone()], wanted }
    }

    /// The level of a chunk.
    pub(super) fn level(&self, chunk: usize) -> usize {
        self.places.get(chunk).map_or(0, |places| usize::from(*places).min(COMMON))
    }

    /// Chunks that are neither here nor on their way.
    pub(super) fn wanted(&self) -> &Bitmap {
        &self.wanted
    }

    /// The chunk is in one more place.
    pub(super) fn raise(&mut self, chunk: usize) {
        self.change(chunk, |places| places.saturating_add(1));
    }

    /// The chunk is in one place less.
    pub(super) fn lower(&mut self, chunk: usize) {
        self.change(chunk, |places| places.saturating_sub(1));
    }

    /// The chunk is here or on its way.
    pub(super) fn take(&mut self, chunk: usize) {
        let level = self.level(chunk);
        self.wanted.remove(chunk);
        if let Some(level) = self.levels.get_mut(level) {
            level.remove(chunk);
        }
    }

    /// The chunk is not on its way any more.
    pub(super) fn put(&mut self, chunk: usize) {
        self.wanted.insert(chunk);
        let level = self.level(chunk);
        self.level_mut(level).insert(chunk);
    }

    /// A wanted chunk of this level that a peer with `has` has.
    pub(super) fn at(&self, level: usize, has: &Bitmap, random: u64) -> Option<usize> {
        self.levels.get(level)?.common(has, random)
    }

    /// Whether a chunk is wanted and of this level.
    pub(super) fn has_at(&self, level: usize, chunk: usize) -> bool {
        self.levels.get(level).is_some_and(|level| level.contains(chunk))
    }

    /// Levels in use: all chunks are below.
    pub(super) fn levels(&self) -> usize {
        self.levels.len()
    }

    fn change(&mut self, chunk: usize, to: impl Fn(u16) -> u16) {
        let before = self.level(chunk);
        let Some(places) = self.places.get_mut(chunk) else { return };
        *places = to(*places);
        let after = self.level(chunk);
        if before != after && self.levels.get_mut(before).is_some_and(|level| level.remove(chunk)) {
            self.level_mut(after).insert(chunk);
        }
    }

    fn level_mut(&mut self, level: usize) -> &mut Bitmap {
        while self.levels.len() <= level {
            self.levels.push(Bitmap::new(self.places.len()));
        }
        &mut self.levels[level]
    }
}
