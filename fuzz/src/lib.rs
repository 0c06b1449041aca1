//! What the targets share: reading an input, decoding with every check, and how much is allocated.

pub mod allocations;

use std::cell::RefCell;

use orion_net::codec::{Coder, Corrupt, Element};

/// In the order of the byte that chooses one.
pub const ELEMENTS: [Element; 4] = [Element::Bytes, Element::Bf16, Element::F16, Element::F32];
/// Bytes beside a chunk that must stay as they were.
const MARGIN: usize = 64;

/// What is left of an input.
pub struct Input<'b>(pub &'b [u8]);

impl<'b> Input<'b> {
    /// Its next byte, zero after its end.
    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// A number of two bytes, the lowest first.
    pub fn length(&mut self) -> usize {
        u16::from_le_bytes([self.byte(), self.byte()]).into()
    }

    /// The element that the next byte chooses.
    pub fn element(&mut self) -> Element {
        ELEMENTS[usize::from(self.byte()) % ELEMENTS.len()]
    }
}

/// Bytes repeated to this length; zeros if there are none.
pub fn repeated(bytes: &[u8], length: usize) -> Vec<u8> {
    if bytes.is_empty() { vec![0; length] } else { bytes.iter().copied().cycle().take(length).collect() }
}

/// Decodes a chunk of so many bytes by a new coder and by one that decoded every input before: neither that nor what was in
/// memory may change what comes out, nothing is written beside the chunk, and no more allocated than is said.
pub fn decoded(
    length: usize,
    most_allocated: usize,
    decode: impl Fn(&mut Coder, &mut [u8]) -> Result<(), Corrupt>,
) -> Result<Vec<u8>, Corrupt> {
    thread_local! {
        static USED: RefCell<Coder> = RefCell::default();
    }
    // The sanitizer sees a step beside memory of just this length.
    let mut raw = vec![0; length];
    let (result, allocated) = allocations::most(|| decode(&mut Coder::default(), &mut raw));
    assert!(allocated <= most_allocated, "{allocated} bytes were allocated for a chunk of {length}");
    let result = result.map(|()| raw);

    let mut room = vec![0xa5; length + 2 * MARGIN];
    let again = USED.with_borrow_mut(|coder| decode(coder, &mut room[MARGIN..MARGIN + length]));
    let beside = room[..MARGIN].iter().chain(&room[MARGIN + length..]);
    assert!(beside.copied().all(|byte| byte == 0xa5), "written beside the chunk");
    let again = again.map(|()| room[MARGIN..MARGIN + length].to_vec());
    assert!(result == again, "decoded again it is something else: {result:?}, {again:?}");
    result
}
