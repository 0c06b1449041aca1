//! Looks at what is in Thrift's compact protocol before it is decoded: that it ends, and what its integers are.
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// Types of fields.
pub(super) const TRUTHS: [u8; 2] = [1, 2];
pub(super) const I32: u8 = 5;
pub(super) const I64: u8 = 6;
pub(super) const BINARY: u8 = 8;
pub(super) const STRUCTURE: u8 = 12;

/// Structures in structures.
const DEEPEST: usize = 16;
/// Least bytes of a structure in a list: what decodes one takes some hundred bytes for each.
const LEAST: usize = 3;

/// What is met in a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A field of this type begins.
    Field(u8),
    Integer(i64),
}

/// Goes through the structure that bytes begin with; `seen` gets what is met, with the fields that it is in. The bytes that it took;
/// none where it is no structure, or does not end.
pub(super) fn structure(bytes: &[u8], seen: &mut dyn FnMut(&[i16], Seen)) -> Option<usize> {
    let mut walk = Walk { bytes, at: 0, fields: Vec::with_capacity(DEEPEST), seen };
    walk.fields_of_one()?;
    Some(walk.at)
}

struct Walk<'w> {
    bytes: &'w [u8],
    at: usize,
    fields: Vec<i16>,
    seen: &'w mut dyn FnMut(&[i16], Seen),
}

impl Walk<'_> {
    fn fields_of_one(&mut self) -> Option<()> {
        if self.fields.len() >= DEEPEST {
            return None;
        }
        let mut field = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => i16::try_from(self.integer()?).ok()?,
                more => field.checked_add(i16::from(more))?,
            };
            self.fields.push(field);
            (self.seen)(&self.fields, Seen::Field(head & 15));
            self.value(head & 15, false)?;
            self.fields.pop();
        }
    }

    fn value(&mut self, kind: u8, is_element: bool) -> Option<()> {
        match kind {
            // A field's truth is in its type.
            1 | 2 => self.skip(u64::from(is_element)),
            3 => self.skip(1),
            4..=6 => {
                let value = self.integer()?;
                // Who reads it would take what fits of it.
                if kind == I32 && i32::try_from(value).is_err() {
                    return None;
                }
                (self.seen)(&self.fields, Seen::Integer(value));
                Some(())
            }
            7 => self.skip(8),
            8 => {
                let length = self.unsigned()?;
                self.skip(length)
            }
            9 | 10 => self.list(),
            11 => self.map(),
            12 => self.fields_of_one(),
            13 => self.skip(16),
            _ => None,
        }
    }

    fn list(&mut self) -> Option<()> {
        let head = self.byte()?;
        let count = match u64::from(head >> 4) {
            15 => self.unsigned()?,
            few => few,
        };
        let begins = self.at;
        for _ in 0..count {
            self.value(head & 15, true)?;
        }
        let is_wide = head & 15 != 12 || (self.at - begins) as u64 >= count.saturating_mul(LEAST as u64);
        is_wide.then_some(())
    }

    fn map(&mut self) -> Option<()> {
        let count = self.unsigned()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        for _ in 0..count {
            self.value(kinds >> 4, true)?;
            self.value(kinds & 15, true)?;
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        let to = self.at.checked_add(usize::try_from(count).ok()?)?;
        (to <= self.bytes.len()).then(|| self.at = to)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << place;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Vec<(Vec<i16>, i64)>;

    fn integers(bytes: &[u8]) -> Option<(usize, Found)> {
        let mut all = Vec::new();
        let length = structure(bytes, &mut |fields, seen| {
            if let Seen::Integer(value) = seen {
                all.push((fields.to_vec(), value));
            }
        })?;
        Some((length, all))
    }

    #[test]
    fn integers_are_found_in_their_fields() {
        // 1: i32 -1, 2: bool, 7: {3: i64 300, 4: list of i32 [1, 2]}, 8: binary "ab"
        let bytes =
            [0x15, 0x01, 0x11, 0x5c, 0x36, 0xd8, 0x04, 0x19, 0x25, 0x02, 0x04, 0x00, 0x18, 0x02, b'a', b'b', 0x00];
        let (length, all) = integers(&bytes).unwrap();
        assert_eq!(length, bytes.len());
        assert_eq!(all, [(vec![1], -1), (vec![7, 3], 300), (vec![7, 4], 1), (vec![7, 4], 2)]);
        for end in 0..bytes.len() {
            assert!(integers(&bytes[..end]).is_none(), "cut at {end}");
        }
    }

    #[test]
    fn what_would_take_much_more_than_it_has_is_refused() {
        // A list of as many structures as it says, each empty; one of a billion; one in the other without end.
        let (empty, billion) = ([0x19, 0xfc, 0x20].to_vec(), [0x19, 0xfc, 0x80, 0x94, 0xeb, 0xdc, 0x03].to_vec());
        assert!(integers(&[empty, vec![0; 33]].concat()).is_none());
        assert!(integers(&[billion, vec![0; 100]].concat()).is_none());
        assert!(integers(&[0x1c; 1000]).is_none());
        assert!(integers(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00]).is_none());
    }
}
