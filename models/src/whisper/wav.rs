//! WAV files for tests.

/// A WAV file: of format 1 with whole numbers, of format 3 with floating-point ones.
pub(super) fn wav(rate: u32, channels: u16, format: u16, bits: u16, samples: &[u8]) -> Vec<u8> {
    let (frame, length) = (channels * bits / 8, samples.len() as u32);
    let mut wav = Vec::with_capacity(44 + samples.len());
    wav.extend_from_slice(b"RIFF");
    wav.extend((36 + length).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    wav.extend([format, channels].iter().flat_map(|value| value.to_le_bytes()));
    wav.extend([rate, rate * u32::from(frame)].iter().flat_map(|value| value.to_le_bytes()));
    wav.extend([frame, bits].iter().flat_map(|value| value.to_le_bytes()));
    wav.extend_from_slice(b"data");
    wav.extend(length.to_le_bytes());
    wav.extend_from_slice(samples);
    wav
}
