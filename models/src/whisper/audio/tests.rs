use super::*;
use crate::whisper::wav::wav;
use proptest::prelude::*;

fn samples(file: &[u8]) -> Result<Vec<f32>, String> {
    let mut samples = Vec::new();
    read(&Bytes::copy_from_slice(file), &GivenUp::default(), &mut |piece| samples.extend_from_slice(piece))?;
    Ok(samples)
}

/// A WAV file of 16-bit samples.
fn pcm(rate: u32, channels: u16, samples: impl Iterator<Item = f64>) -> Vec<u8> {
    let samples: Vec<u8> = samples.flat_map(|x| ((x * 32_767.0).round() as i16).to_le_bytes()).collect();
    wav(rate, channels, 1, 16, &samples)
}

fn tone(hertz: f64, rate: u32, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |n| 0.5 * (std::f64::consts::TAU * hertz * n as f64 / f64::from(rate)).sin())
}

/// Loudness of a tone in samples at 16 kHz, and of all else, without what a filter does at the ends.
fn parts(samples: &[f32], hertz: f64) -> (f64, f64) {
    let inner = &samples[samples.len() / 8..samples.len() * 7 / 8];
    let phase = |n: usize| std::f64::consts::TAU * hertz * (n + samples.len() / 8) as f64 / 16_000.0;
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, sample) in inner.iter().enumerate() {
        sine += phase(n).sin() * f64::from(*sample) * 2.0 / inner.len() as f64;
        cosine += phase(n).cos() * f64::from(*sample) * 2.0 / inner.len() as f64;
    }
    let rest = inner.iter().enumerate().map(|(n, x)| f64::from(*x) - sine * phase(n).sin() - cosine * phase(n).cos());
    let rest = rest.map(|x| x * x).sum::<f64>() / inner.len() as f64;
    (sine.hypot(cosine), rest.sqrt())
}

#[test]
fn samples_at_16_khz_come_through_as_they_are() {
    let file = pcm(16_000, 1, [0.0, 0.5, -0.5, 1.0].into_iter().cycle().take(5000));
    let got = samples(&file).unwrap();
    assert_eq!(got.len(), 5000);
    assert!(got.iter().zip([0.0, 0.5, -0.5, 1.0].iter().cycle()).all(|(x, want)| (x - want).abs() < 1e-4));
}

#[test]
fn other_rates_keep_what_16_khz_can_hold_in_its_place_and_nothing_else() {
    for rate in [8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000] {
        let (length, hertz) = (rate as usize, 1000.0);
        let got = samples(&pcm(rate, 1, tone(hertz, rate, length))).unwrap();
        assert_eq!(got.len(), 16_000, "{rate} Hz");
        let (loudness, rest) = parts(&got, hertz);
        // Loud as it was, and in step: shifted by one sample it would be 38% off.
        assert!((loudness - 0.5).abs() < 1e-3 && rest < 1e-4, "{rate} Hz: {loudness} and {rest}");
        let place = |n: usize| 0.5 * (std::f64::consts::TAU * hertz * n as f64 / 16_000.0).sin();
        let off = (4000..12_000).map(|n| (f64::from(got[n]) - place(n)).abs()).fold(0.0, f64::max);
        assert!(off < 2e-3, "{rate} Hz: {off} off");
        if rate > 22_050 {
            let (_, rest) = parts(&samples(&pcm(rate, 1, tone(9_500.0, rate, length))).unwrap(), 6_500.0);
            assert!(rest < 1e-4, "9.5 kHz from {rate} Hz leaves {rest}");
        }
    }
}

#[test]
fn channels_become_their_mean() {
    let both = tone(700.0, 16_000, 8000).flat_map(|x| [x, x * 0.5, 0.0]);
    let (loudness, rest) = parts(&samples(&pcm(16_000, 3, both)).unwrap(), 700.0);
    assert!((loudness - 0.25).abs() < 1e-3 && rest < 1e-4, "{loudness} and {rest}");
}

#[test]
fn every_sample_format_is_read() {
    let x = [0.0f32, 0.25, -0.5, 0.75];
    let bytes = |encode: &dyn Fn(f32) -> Vec<u8>| x.iter().flat_map(|x| encode(*x)).collect::<Vec<u8>>();
    for (format, bits, data) in [
        (1, 8, bytes(&|x| vec![(x * 128.0 + 128.0) as u8])),
        (1, 16, bytes(&|x| ((x * 32_768.0) as i16).to_le_bytes().to_vec())),
        (1, 24, bytes(&|x| ((x * 8_388_608.0) as i32).to_le_bytes()[..3].to_vec())),
        (1, 32, bytes(&|x| ((x * 2_147_483_648.0) as i32).to_le_bytes().to_vec())),
        (3, 32, bytes(&|x| x.to_le_bytes().to_vec())),
        (3, 64, bytes(&|x| f64::from(x).to_le_bytes().to_vec())),
    ] {
        let got = samples(&wav(16_000, 1, format, bits, &data)).unwrap();
        assert_eq!(got, x, "format {format} of {bits} bits");
    }
}

/// Half a second of 440 Hz at 44.1 kHz, left 0.5 and right 0.3 loud, written by libsndfile.
#[test]
fn flac_mp3_and_vorbis_are_read() {
    let flac = include_bytes!("../../../../tests/data/audio/tone.flac").as_slice();
    let mp3 = include_bytes!("../../../../tests/data/audio/tone.mp3").as_slice();
    let vorbis = include_bytes!("../../../../tests/data/audio/tone.ogg").as_slice();
    for (name, file, noise) in [("flac", flac, 1e-4), ("mp3", mp3, 2e-2), ("vorbis", vorbis, 2e-2)] {
        let got = samples(file).unwrap();
        assert!((7_900..=8_400).contains(&got.len()), "{name}: {} samples", got.len());
        let (loudness, rest) = parts(&got, 440.0);
        assert!((loudness - 0.4).abs() < 0.01 && rest < noise, "{name}: {loudness} and {rest}");
    }
}

#[test]
fn what_is_no_audio_is_refused_with_its_reason() {
    for (file, words) in [
        (Vec::new(), "is empty"),
        (b"not audio at all, but long enough to be looked at twice".to_vec(), "cannot be read as WAV, FLAC"),
        (wav(999, 1, 1, 16, &[0; 64]), "has a sample rate of 999 Hz, it must be 1000 to 384000"),
        (wav(400_000, 1, 1, 16, &[0; 64]), "has a sample rate of 400000 Hz"),
        (wav(16_000, 1, 3, 32, &f32::NAN.to_le_bytes()), "samples that are no numbers"),
        (wav(16_000, 1, 3, 32, &1e30f32.to_le_bytes()), "far beyond -1 to 1"),
    ] {
        let reason = samples(&file).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }
    let long = wav(1_000, 1, 1, 8, &vec![128; (MOST_SECONDS + 1) * 1_000]);
    let reason = read(&long.into(), &GivenUp::default(), &mut |_| {}).unwrap_err();
    assert!(reason.contains("lasts longer than 7200 s"), "{reason}");
    // Cut in the middle, or of a length that was not known when it was begun: what is there is read.
    let whole = pcm(16_000, 1, tone(700.0, 16_000, 8000));
    assert_eq!(samples(&whole[..44 + 8000]).unwrap().len(), 4000);
    let mut endless = whole;
    endless[40..44].fill(0xff);
    assert_eq!(samples(&endless).unwrap().len(), 8000);
}

proptest! {
    #[test]
    fn broken_files_are_read_or_refused(kind in 0usize..4, at in any::<prop::sample::Index>(), with in any::<[u8; 4]>(), cut in any::<prop::sample::Index>()) {
        let files = [
            pcm(22_050, 2, tone(440.0, 22_050, 2000)),
            include_bytes!("../../../../tests/data/audio/tone.flac").to_vec(),
            include_bytes!("../../../../tests/data/audio/tone.mp3").to_vec(),
            include_bytes!("../../../../tests/data/audio/tone.ogg").to_vec(),
        ];
        let mut file = files[kind].clone();
        // Mostly in the headers, where lengths are.
        let at = at.index(file.len().min(600)).min(file.len() - 4);
        file[at..at + 4].copy_from_slice(&with);
        file.truncate(cut.index(2 * file.len()).max(50));
        let most = MOST_SECONDS * SAMPLE_RATE + (1 << 20);
        if let Ok(samples) = samples(&file) {
            prop_assert!(samples.len() <= most && samples.iter().all(|sample| sample.is_finite()));
        }
    }
}
