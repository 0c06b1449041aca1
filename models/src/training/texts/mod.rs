//! Encoders that learn to tell classes of texts: all of their weights, or small additions to them.

mod encoder;
mod save;

use std::path::Path;

use candle_core::Tensor;
use orion_proto::{
    Result,
    training::{Plan, TextClassifier},
};

use super::{
    Progress,
    adapted::check_family,
    classified::{Classified, Labelled},
    data::{Columns, Part},
    failed, images,
    task::{Parameter, Seen, Task},
};
use crate::{
    bert::{Source, TextReader},
    unservable,
};
use encoder::Encoder;

/// A base with what it learns from.
pub(super) struct Texts {
    plan: Plan,
    classifier: TextClassifier,
    source: Source,
    reader: TextReader,
    encoder: Encoder,
    train: Classified,
    test: Option<Classified>,
    labels: Vec<String>,
}

impl Texts {
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit.
    pub(super) fn open(
        plan: &Plan,
        classifier: &TextClassifier,
        base: &Path,
        train: &Path,
        test: Option<&Path>,
        free_bytes: u64,
    ) -> Result<Self> {
        // Whatever it was for: only its encoder is taken, and a pooler if it has one.
        check_family(base, &["bert"], "text_classifier")?;
        let source = Source::inspect_encoder(base)?;
        let most = source.config.max_position_embeddings;
        // Two of them are a text's begin and end.
        if !(3..=most).contains(&classifier.tokens) {
            let tokens = classifier.tokens;
            return Err(unservable(format!("model.tokens is {tokens}, of this base it must be 3 to {most}")));
        }
        let columns = Columns { text: plan.data.text.clone(), label: Some(plan.data.label.clone()), image: None };
        let Labelled { train, test, labels } = Labelled::open(&plan.data, &columns, train, test)?;
        let encoder = Encoder::new(&source, classifier.lora.as_ref(), labels.len(), free_bytes)?;
        let reader = TextReader::limited(&source, classifier.tokens)?;
        Ok(Self { plan: plan.clone(), classifier: classifier.clone(), source, reader, encoder, train, test, labels })
    }

    fn of(&self, part: Part) -> Option<&Classified> {
        match part {
            Part::Train => Some(&self.train),
            Part::Test => self.test.as_ref(),
        }
    }
}

impl Task for Texts {
    fn parameters(&self) -> &[Parameter] {
        self.encoder.adapted.parameters()
    }

    fn initial(&self, seed: u64) -> Result<Vec<f32>> {
        self.encoder.initial(seed)
    }

    fn examples(&self, part: Part) -> usize {
        self.of(part).map_or(0, Classified::len)
    }

    fn hash(&self, hasher: &mut blake3::Hasher) -> Result<()> {
        self.encoder.adapted.hash(&self.source.folder, hasher)?;
        self.train.hash(hasher);
        self.test.iter().for_each(|test| test.hash(hasher));
        Ok(())
    }

    fn shape(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        self.encoder.adapted.hash(&self.source.folder, &mut hasher)?;
        Ok(format!("{} {:?}", hasher.finalize(), self.labels))
    }

    fn held_bytes(&self) -> u64 {
        self.encoder.adapted.held_bytes()
    }

    fn values(&self, learns: bool) -> usize {
        self.encoder.values(self.classifier.tokens, learns)
    }

    fn evaluated(&self) -> usize {
        self.plan.micro_batch()
    }

    fn look(&self, tensors: &[Tensor], part: Part, indices: &[usize], dropout: Option<u64>) -> Result<Seen> {
        let texts = self.of(part).ok_or_else(|| unservable("there are no such examples"))?;
        let mut classes = Vec::with_capacity(indices.len());
        let mut rows = Vec::with_capacity(indices.len());
        for index in indices {
            let (row, class) = texts.row(*index)?;
            rows.push(self.reader.row_of(&row.text)?);
            classes.push(class);
        }
        let dropout = dropout.map(|seed| (self.classifier.dropout, seed));
        let logits = self.encoder.logits(tensors, &rows, dropout).map_err(|error| failed(&error))?;
        let weights = vec![1.0; classes.len()];
        images::seen(&logits, classes, weights).map_err(|error| failed(&error))
    }

    fn save(&self, values: &[f32], progress: &Progress, folder: &Path) -> Result<()> {
        save::save(self, values, progress, folder)
    }
}
