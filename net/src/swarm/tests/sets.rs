//! Bitmaps, and the cost of choosing.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use crate::swarm::{Answer, Bitmap, BitmapError, Download, Limits, PeerId, Verdict};

proptest! {
    #[test]
    fn a_bitmap_is_a_set(
        len in 0usize..9000,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..200),
        other in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        random: u64,
    ) {
        let (mut bitmap, mut set) = (Bitmap::new(len), BTreeSet::new());
        for (chunk, add) in changes.iter().filter(|_| len > 0).map(|(index, add)| (index.index(len), add)) {
            if *add {
                prop_assert_eq!(bitmap.insert(chunk), set.insert(chunk));
            } else {
                prop_assert_eq!(bitmap.remove(chunk), set.remove(&chunk));
            }
        }
        prop_assert_eq!(bitmap.iter().collect::<BTreeSet<_>>(), set.clone());
        prop_assert!(bitmap.missing().all(|chunk| !set.contains(&chunk)));
        prop_assert_eq!(bitmap.count() + bitmap.missing().count(), len);
        prop_assert_eq!(Bitmap::from_bytes(len, &bitmap.to_bytes()), Ok(bitmap.clone()));

        let mut wanted = Bitmap::new(len);
        let others: BTreeSet<_> = other.iter().filter(|_| len > 0).map(|index| index.index(len)).collect();
        others.iter().for_each(|chunk| { wanted.insert(*chunk); });
        prop_assert_eq!(bitmap.beyond(&wanted), set.difference(&others).count());
        match bitmap.common(&wanted, random) {
            Some(chunk) => prop_assert!(set.contains(&chunk) && others.contains(&chunk)),
            None => prop_assert_eq!(set.intersection(&others).count(), 0),
        }
    }
}

#[test]
fn bytes_of_no_bitmap_are_refused() {
    assert_eq!(Bitmap::from_bytes(9, &[1]), Err(BitmapError::Length { chunks: 9, expected: 2, found: 1 }));
    assert_eq!(Bitmap::from_bytes(9, &[0, 2]), Err(BitmapError::Stray(9)));
    assert!(Bitmap::from_bytes(9, &[255, 1]).is_ok_and(|bitmap| bitmap.is_full()));
    assert!(!Bitmap::new(9).insert(9));
}

fn download(chunks: usize) -> Download {
    let limits = Limits { window: 1 << 30, memory: 1 << 30, patience: Duration::from_secs(1) };
    Download::new(vec![10; chunks], Bitmap::new(chunks), limits, 1)
}

fn set(len: usize, chunks: impl IntoIterator<Item = usize>) -> Bitmap {
    let mut bitmap = Bitmap::new(len);
    chunks.into_iter().for_each(|chunk| assert!(bitmap.insert(chunk)));
    bitmap
}

fn wanted(answer: Answer) -> Option<usize> {
    match answer {
        Answer::Want { chunk, .. } => Some(chunk),
        Answer::Busy | Answer::Nothing => None,
    }
}

#[test]
fn the_rarest_is_wanted_first_and_from_an_origin_only_what_nobody_has_or_gets() {
    let now = Duration::ZERO;
    let [origin, one, two, three] = [0, 1, 2, 3].map(PeerId);
    let mut download = download(4);
    download.joined(now, origin, true, Bitmap::full(4));
    download.joined(now, one, false, set(4, [0, 1]));
    download.joined(now, two, false, set(4, [0]));
    download.joined(now, three, false, set(4, []));
    download.coming(now, three, 2);
    assert_eq!(wanted(download.granted(now, one, None)), Some(1));
    download.arrived(now, one, 1);
    assert_eq!(wanted(download.granted(now, origin, None)), Some(3));
    download.arrived(now, origin, 3);
    assert_eq!(download.granted(now, origin, None), Answer::Nothing);
    download.left(three);
    assert_eq!(wanted(download.granted(now, origin, None)), Some(2));
}

#[test]
fn a_wrong_chunk_is_wanted_elsewhere_and_two_of_them_ban() {
    let now = Duration::ZERO;
    let [liar, other] = [1, 2].map(PeerId);
    let mut download = download(2);
    download.joined(now, liar, false, Bitmap::full(2));
    download.joined(now, other, false, set(2, [0]));
    let Answer::Want { chunk, .. } = download.granted(now, liar, None) else { panic!("it has both") };
    assert_eq!(chunk, 1, "the rarer");
    assert_eq!(download.refused(liar, 1), Verdict::Again);
    assert_eq!(wanted(download.granted(now, liar, None)), Some(1));
    assert_eq!(download.refused(liar, 1), Verdict::Banned);
    download.joined(now, liar, false, Bitmap::full(2));
    assert_eq!((download.granted(now, liar, None), download.nobody_has()), (Answer::Nothing, Some(1)));
}
