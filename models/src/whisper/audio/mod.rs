//! From an encoded file to samples at 16 kHz in one channel.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use symphonia::core::{
    codecs::audio::AudioDecoderOptions,
    errors::Error as AudioError,
    formats::{FormatOptions, TrackType, probe::Hint},
    io::MediaSourceStream,
    meta::MetadataOptions,
};

use crate::resampler::Resampler;

use super::mel::SAMPLE_RATE;
use crate::GivenUp;

/// The longest audio that is read, seconds.
pub(super) const MOST_SECONDS: usize = 7200;
/// Sample rates that are read; beyond them lies no audio, but much memory for the resampler.
const RATES: std::ops::RangeInclusive<usize> = 1_000..=384_000;
/// A sample this far from the usual −1 to 1 is no sound, and its power would overflow.
const LOUDEST: f32 = 1e6;

/// Reads WAV, FLAC, MP3 or Ogg Vorbis and hands the samples to `sink`, in pieces; the channels' mean where there are several.
/// It ends early once the file is given up.
///
/// # Errors
/// What is wrong with the file, for a sentence that begins with its name.
pub(super) fn read(file: &Bytes, given_up: &GivenUp, sink: &mut dyn FnMut(&[f32])) -> Result<(), String> {
    if file.is_empty() {
        return Err("is empty, it must be an audio file".into());
    }
    // The decoders are not ours: one that panics on a broken file fails this file, not the whole batch.
    catch_unwind(AssertUnwindSafe(|| decode(file, given_up, sink)))
        .unwrap_or_else(|_| Err("cannot be read: its decoder failed on it".into()))
}

fn decode(file: &Bytes, given_up: &GivenUp, sink: &mut dyn FnMut(&[f32])) -> Result<(), String> {
    let refused = |error: AudioError| format!("cannot be read as WAV, FLAC, MP3 or Ogg Vorbis: {error}");
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file.clone())), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(refused)?;
    let track = format.default_track(TrackType::Audio).ok_or("holds no audio track")?;
    let id = track.id;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or("holds audio of an unknown kind")?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(refused)?;

    let (mut mixer, mut interleaved) = (None, Vec::new());
    while !given_up.is_set() {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            // A file that was cut, or that was written before its length was known, ends where its bytes end.
            Ok(None) | Err(AudioError::IoError(_)) => break,
            Err(error) => return Err(refused(error)),
        };
        if packet.track_id != id {
            continue;
        }
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            // As players do: one bad packet is a gap of some milliseconds.
            Err(AudioError::DecodeError(_)) => continue,
            Err(error) => return Err(refused(error)),
        };
        let (rate, channels) = (buffer.spec().rate() as usize, buffer.spec().channels().count());
        if mixer.is_none() && channels > 0 {
            mixer = Some(Mixer::new(rate, channels)?);
        }
        let Some(mixer) = &mut mixer else { continue };
        buffer.copy_to_vec_interleaved(&mut interleaved);
        mixer.mix(rate, channels, &interleaved, sink)?;
    }
    mixer.ok_or("holds no audio that can be decoded")?.resampler.finish(sink)
}

/// Mixes channels to one and brings it to 16 kHz.
struct Mixer {
    rate: usize,
    channels: usize,
    mono: Vec<f32>,
    resampler: Resampler,
}

impl Mixer {
    fn new(rate: usize, channels: usize) -> Result<Self, String> {
        if !RATES.contains(&rate) {
            let (least, most) = (RATES.start(), RATES.end());
            return Err(format!("has a sample rate of {rate} Hz, it must be {least} to {most}"));
        }
        Ok(Self { rate, channels, mono: Vec::new(), resampler: Resampler::new(rate, SAMPLE_RATE)? })
    }

    fn mix(
        &mut self,
        rate: usize,
        channels: usize,
        interleaved: &[f32],
        sink: &mut dyn FnMut(&[f32]),
    ) -> Result<(), String> {
        if (rate, channels) != (self.rate, self.channels) {
            return Err(format!(
                "changes from {} Hz in {} channels to {rate} Hz in {channels}, it must stay the same",
                self.rate, self.channels
            ));
        }
        // NaN compares as false.
        if !interleaved.iter().all(|sample| sample.abs() < LOUDEST) {
            return Err("holds samples that are no numbers, or far beyond -1 to 1".into());
        }
        self.mono.clear();
        let scale = 1.0 / channels as f32;
        self.mono.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * scale));
        self.resampler.push(&self.mono, sink)?;
        if self.resampler.taken() > MOST_SECONDS * rate {
            return Err(format!("lasts longer than {MOST_SECONDS} s, the most that is transcribed: cut it"));
        }
        Ok(())
    }
}
