//! Which chunks a peer says it has: what was accepted says the same by every way to ask.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orion_fuzz::Input;
use orion_net::swarm::Bitmap;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let length = input.length();
    let Ok(bitmap) = Bitmap::from_bytes(length, input.0) else { return };
    assert_eq!((bitmap.len(), bitmap.to_bytes()), (length, input.0.to_vec()));
    let is_set = |chunk: usize| input.0[chunk / 8] >> (chunk % 8) & 1 == 1;
    let (set, absent): (Vec<usize>, Vec<usize>) = (0..length).partition(|chunk| is_set(*chunk));
    assert!(bitmap.iter().eq(set.iter().copied()) && bitmap.missing().eq(absent.iter().copied()));
    assert_eq!((bitmap.count(), bitmap.is_empty(), bitmap.is_full()), (set.len(), set.is_empty(), absent.is_empty()));
    assert!((0..length).all(|chunk| bitmap.contains(chunk) == is_set(chunk)) && !bitmap.contains(length));
    assert!(input.0.iter().enumerate().all(|(index, byte)| bitmap.byte(index) == *byte));

    let (mut filled, mut emptied) = (Bitmap::new(length), Bitmap::full(length));
    assert!(set.iter().all(|chunk| filled.insert(*chunk)) && absent.iter().all(|chunk| emptied.remove(*chunk)));
    assert_eq!((&filled, &emptied), (&bitmap, &bitmap));
    assert_eq!((bitmap.beyond(&Bitmap::new(length)), bitmap.beyond(&emptied)), (set.len(), 0));
});
