//! Whether a JPEG file is whole: the decoder paints what is missing grey and says nothing.

/// Marks that have no length behind them: restarts, the beginning, and one for temporary use (ITU-T T.81, B.1.1.3).
const ALONE: [u8; 10] = [0x01, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8];
const END: u8 = 0xD9;

/// Whether a file that begins as a JPEG does reaches its end mark; what lies behind that does not matter.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let mut rest = file;
    while let Some(mark) = next_mark(&mut rest) {
        if mark == END {
            return true;
        }
        if ALONE.contains(&mark) {
            continue;
        }
        // A segment: its length counts itself. A scan's values follow it, in which no mark appears.
        let Some((length, _)) = rest.split_first_chunk() else { return false };
        let Some(behind) = rest.get(usize::from(u16::from_be_bytes(*length))..) else { return false };
        rest = behind;
    }
    false
}

/// Takes the next mark: 0xFF, perhaps repeated, and what is not 0.
fn next_mark(rest: &mut &[u8]) -> Option<u8> {
    loop {
        let at = rest.iter().position(|byte| *byte == 0xFF)?;
        let behind = &rest[at + 1..];
        let mark = behind.iter().position(|byte| *byte != 0xFF)?;
        *rest = &behind[mark + 1..];
        if behind[mark] != 0 {
            return Some(behind[mark]);
        }
    }
}
