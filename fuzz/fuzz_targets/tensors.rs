//! A file of weights, or any other: its tensors lie in it one after the other, and its chunks are all of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orion_fuzz::Input;
use orion_net::artifact::{cut, tensors};

/// A chunk of less than a number is as long as the number.
const LEAST_CHUNK_BYTES: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (most, file) = (input.length().max(LEAST_CHUNK_BYTES), input.0);
    let tensors = tensors(file);
    let mut end = 0;
    for tensor in &tensors {
        assert!(end <= tensor.start);
        end = tensor.start + tensor.bytes;
    }
    assert!(end <= file.len() as u64);

    let mut end = 0;
    let mut rest = tensors.iter().filter(|tensor| tensor.bytes > 0).peekable();
    for cut in cut(file, &tensors, most) {
        assert_eq!(cut.range.start, end);
        assert!(!cut.range.is_empty() && cut.range.len() <= most);
        end = cut.range.end;
        let (from, to) = (cut.range.start as u64, cut.range.end as u64);
        while rest.next_if(|tensor| tensor.start + tensor.bytes <= from).is_some() {}
        // Before the next tensor, or in it and from a whole number on.
        if let Some(tensor) = rest.peek().filter(|tensor| to > tensor.start) {
            assert!(tensor.start <= from && to <= tensor.start + tensor.bytes, "a chunk across a tensor's border");
            assert_eq!((from - tensor.start) % cut.element.width() as u64, 0);
        }
    }
    assert_eq!(end, file.len());
});
