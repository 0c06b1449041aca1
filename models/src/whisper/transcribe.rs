//! Several audios at once, each window by window.

use bytes::Bytes;
use orion_proto::{Error, Result};
use rayon::prelude::*;

use super::{
    audio,
    decoder::{Decoder, Input, State},
    encoder::Encoder,
    hypothesis::{Hypothesis, Verdict},
    mel::{FRAMES_PER_SECOND, MelTransform, Spectrogram},
    options::Options,
    segments::{Segment, Window},
    source::Source,
    vocabulary::Vocabulary,
    weights::Weights,
};
use crate::GivenUp;

/// Audios that are transcribed at once; more of them do not make a step of the decoder cheaper for each.
pub(super) const MOST_AT_ONCE: usize = 8;
/// No further audio is begun while more frames than these are held.
pub(super) const MOST_FRAMES: usize = 1200 * FRAMES_PER_SECOND;
/// Above this temperature the text is no longer one that the next window should go on from.
const MOST_TEMPERATURE_TO_FOLLOW: f32 = 0.5;

/// Encoder, decoder and what lies around them.
pub(super) struct Transcriber {
    mel: MelTransform,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    pub(super) vocabulary: Vocabulary,
    window_frames: usize,
    /// Half of what the decoder can hold: so much is written, and less is told of what was before.
    most_tokens: usize,
    /// States of audios that are done.
    states: Vec<State>,
}

/// A file to transcribe.
#[derive(Clone, Debug)]
pub(super) struct Audio {
    /// The encoded file.
    pub(super) file: Bytes,
    /// How.
    pub(super) options: Options,
    /// Whether anybody still waits for it.
    pub(super) given_up: GivenUp,
}

/// What was said, in segments.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    pub(super) segments: Vec<Segment>,
    /// Seconds of the audio.
    pub(super) seconds: f64,
}

impl Transcript {
    /// The tokens of all segments, one after the other.
    pub(super) fn tokens(&self) -> Vec<u32> {
        self.segments.iter().flat_map(|segment| segment.tokens.iter().copied()).collect()
    }
}

/// An audio under way.
struct Task {
    index: usize,
    given_up: GivenUp,
    /// The temperature that was asked for.
    temperature: Option<f32>,
    spectrogram: Spectrogram,
    seek: usize,
    transcript: Transcript,
    /// What the next window is told that was said before.
    said: Vec<u32>,
    state: State,
    hypothesis: Option<Hypothesis>,
    /// What the decoder has not read yet.
    unread: Vec<u32>,
}

impl Transcriber {
    /// Brings tokenizer and weights into memory.
    pub(super) fn load(source: &Source, progress: &dyn Fn(f32)) -> Result<Self> {
        let vocabulary = Vocabulary::load(source)?;
        let weights = Weights::open(source)?;
        weights.read_ahead(&|share| progress(share / 2.0));
        let encoder = Encoder::load(&weights, source)?;
        let decoder = Decoder::load(&weights, source)?;
        progress(1.0);
        Ok(Self {
            mel: MelTransform::new(source.config.num_mel_bins),
            encoder,
            decoder,
            vocabulary,
            window_frames: source.config.window_frames(),
            most_tokens: source.config.max_target_positions / 2,
            states: Vec::new(),
        })
    }

    /// What is said in each audio, `most` of them at once.
    pub(super) fn transcribe(&mut self, audios: &[Audio], most: usize) -> Vec<Result<Transcript>> {
        let mut transcripts: Vec<Result<Transcript>> = audios.iter().map(|_| Ok(Transcript::default())).collect();
        let mut waiting = audios.iter().enumerate();
        let mut tasks: Vec<Task> = Vec::new();
        loop {
            while tasks.len() < most.clamp(1, MOST_AT_ONCE)
                && tasks.iter().map(|task| task.spectrogram.frames()).sum::<usize>() <= MOST_FRAMES
                && let Some((index, audio)) = waiting.next()
            {
                match self.begin(index, audio) {
                    Ok(task) => tasks.push(task),
                    Err(error) => transcripts[index] = Err(error),
                }
            }
            for left in tasks.extract_if(.., |task| task.given_up.is_set()) {
                transcripts[left.index] = Err(GivenUp::error());
                self.states.push(left.state);
            }
            for done in tasks.extract_if(.., |task| task.hypothesis.is_none() && task.is_at_end()) {
                transcripts[done.index] = Ok(done.transcript);
                self.states.push(done.state);
            }
            if tasks.is_empty() {
                if waiting.len() == 0 {
                    return transcripts;
                }
                continue;
            }
            self.listen(&mut tasks);
            self.write(&mut tasks, &mut transcripts);
        }
    }

    fn begin(&mut self, index: usize, Audio { file, options, given_up }: &Audio) -> Result<Task> {
        let mut builder = self.mel.begin();
        let read = audio::read(file, given_up, &mut |samples| builder.extend(samples));
        if given_up.is_set() {
            return Err(GivenUp::error());
        }
        read.map_err(Error::invalid)?;
        let spectrogram = builder.finish();
        let seconds = spectrogram.frames() as f64 / FRAMES_PER_SECOND as f64;
        Ok(Task {
            index,
            given_up: given_up.clone(),
            temperature: options.temperature,
            spectrogram,
            seek: 0,
            transcript: Transcript { segments: Vec::new(), seconds },
            said: self.vocabulary.prompt(&options.prompt)?,
            state: self.states.pop().unwrap_or_else(|| self.decoder.state()),
            hypothesis: None,
            unread: Vec::new(),
        })
    }

    /// Has each task that begins a window hear it.
    fn listen(&self, tasks: &mut [Task]) {
        let mut beginning: Vec<&mut Task> = tasks.iter_mut().filter(|task| task.hypothesis.is_none()).collect();
        // As many at once as there are threads: each takes room for a whole window.
        for tasks in beginning.chunks_mut(rayon::current_num_threads()) {
            tasks.par_iter_mut().for_each(|task| {
                let window = task.spectrogram.window(task.seek, self.window_frames);
                let audio = self.encoder.encode(&window);
                self.decoder.listen(&audio, &mut task.state);
                self.attempt(task, 0);
            });
        }
    }

    fn window(&self, task: &Task) -> Window {
        Window { seek: task.seek, frames: self.window_frames.min(task.spectrogram.frames() - task.seek) }
    }

    fn attempt(&self, task: &mut Task, attempt: usize) {
        task.state.forget_text();
        task.hypothesis = Some(Hypothesis::new(attempt, task.temperature, task.seek as u64));
        task.unread.clear();
        if !task.said.is_empty() {
            let told = task.said.len().saturating_sub(self.most_tokens - 1);
            task.unread.push(self.vocabulary.previous);
            task.unread.extend_from_slice(&task.said[told..]);
        }
        task.unread.push(self.vocabulary.start);
    }

    /// Writes one more token of each task.
    fn write(&self, tasks: &mut Vec<Task>, transcripts: &mut [Result<Transcript>]) {
        let inputs = tasks.iter_mut().map(|task| Input { tokens: &task.unread, state: &mut task.state });
        let mut logits = self.decoder.forward(&mut inputs.collect::<Vec<_>>());
        let vocabulary = logits.len() / tasks.len();
        let ended: Vec<Result<()>> = tasks
            .par_iter_mut()
            .zip(logits.par_chunks_exact_mut(vocabulary))
            .map(|(task, logits)| self.extend(task, logits))
            .collect();
        let mut ended = ended.into_iter();
        tasks.retain(|task| match ended.next() {
            Some(Err(error)) => {
                transcripts[task.index] = Err(error);
                false
            }
            _ => true,
        });
    }

    fn extend(&self, task: &mut Task, logits: &mut [f32]) -> Result<()> {
        let Some(mut hypothesis) = task.hypothesis.take() else { return Ok(()) };
        if !hypothesis.extend(&self.vocabulary, logits, self.most_tokens)? {
            task.unread.clear();
            task.unread.extend(hypothesis.written.last());
            task.hypothesis = Some(hypothesis);
            return Ok(());
        }
        let window = self.window(task);
        let (verdict, trust) = hypothesis.judge(&self.vocabulary.text(&hypothesis.written)?);
        match verdict {
            Verdict::Again => self.attempt(task, hypothesis.attempt() + 1),
            Verdict::Silence => task.seek += window.frames,
            Verdict::Keep => {
                let (segments, seek) = window.segments(&hypothesis.written, self.vocabulary.first_timestamp, trust);
                for segment in segments {
                    let text = self.vocabulary.text(&segment.tokens)?;
                    if segment.start < segment.end && !text.trim().is_empty() {
                        task.said.extend_from_slice(&segment.tokens);
                        task.transcript.segments.push(segment);
                    }
                }
                if trust.temperature > MOST_TEMPERATURE_TO_FOLLOW {
                    task.said.clear();
                }
                task.seek = seek;
            }
        }
        Ok(())
    }
}

impl Task {
    fn is_at_end(&self) -> bool {
        self.seek >= self.spectrogram.frames()
    }
}
