//! The texts of a vocabulary's tokens, all in one piece of memory.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

/// Where a text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    fn of(self, bytes: &str) -> &str {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// Texts by their ids, and ids by their texts.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: String,
    /// The text of each id; ids may be missing.
    places: Vec<Option<Place>>,
    /// Each text once, with its id.
    ids: HashTable<(Place, u32)>,
    hashes: DefaultHashBuilder,
}

impl Texts {
    /// Those of a vocabulary; none where its bytes are four gibibytes. Of two equal texts the later has the id, of two equal
    /// ids the later has the text.
    pub(super) fn new<'t>(tokens: impl Iterator<Item = (&'t str, u32)>) -> Option<Self> {
        let count = tokens.size_hint().0;
        let mut bytes = String::with_capacity(count.saturating_mul(8));
        let (mut places, mut ids) = (vec![None; count], HashTable::with_capacity(count));
        let hashes = DefaultHashBuilder::default();
        for (text, id) in tokens {
            let start = u32::try_from(bytes.len()).ok()?;
            bytes.push_str(text);
            let place = Place { start, end: u32::try_from(bytes.len()).ok()? };
            let index = id as usize;
            if index >= places.len() {
                places.resize(index + 1, None);
            }
            let of = |entry: &(Place, u32)| entry.0.of(&bytes);
            let entry = ids.entry(hashes.hash_one(text), |entry| of(entry) == text, |entry| hashes.hash_one(of(entry)));
            if let Entry::Occupied(before) = &entry {
                // What had this text before has none now, as in a map.
                let (place, id) = *before.get();
                places.get_mut(id as usize).into_iter().filter(|at| **at == Some(place)).for_each(|at| *at = None);
            }
            entry.insert((place, id));
            places[index] = Some(place);
        }
        Some(Self { bytes, places, ids, hashes })
    }

    /// The text of a token.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.places.get(id as usize)?.map(|place| place.of(&self.bytes))
    }

    /// The token of a text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let found = self.ids.find(self.hashes.hash_one(text), |(place, _)| place.of(&self.bytes) == text);
        found.map(|(_, id)| *id)
    }

    /// The token whose text is that of two, one after the other. In the order of merges it is often the token before, or the
    /// next one.
    pub(super) fn joined(&self, left: &str, right: &str, before: u32) -> Option<u32> {
        let is = |id: &u32| self.text(*id).and_then(|text| text.strip_prefix(left)) == Some(right);
        let near = [before, before.saturating_add(1)].into_iter().find(is);
        near.or_else(|| self.id(&[left, right].concat()))
    }

    /// Tokens that have a text of their own.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// All texts and their tokens, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().map(|(place, id)| (place.of(&self.bytes), *id))
    }
}
