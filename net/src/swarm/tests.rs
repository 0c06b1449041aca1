use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_bitmap_is_read_as_it_was_written(len in 0usize..300, chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..50)) {
        let mut bitmap = Bitmap::new(len);
        if len > 0 {
            chosen.iter().for_each(|index| _ = bitmap.insert(index.index(len)));
        }
        let bytes = bitmap.to_bytes();
        prop_assert_eq!(Bitmap::from_bytes(len, &bytes), Ok(bitmap.clone()));
        prop_assert!((0..bytes.len()).all(|at| bitmap.byte(at) == bytes[at]));
        prop_assert_eq!(bitmap.iter().count() + bitmap.missing().count(), len);
        prop_assert!(Bitmap::from_bytes(len + 8, &bytes).is_err());
    }
}
