//! Networks that answer questions about images.

mod network;
mod picture;
mod served;
mod words;

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use candle_core::Tensor;
use orion_proto::{
    Result,
    training::{ImageQuestion, Plan},
};

use super::{
    Progress,
    classified::{Classified, Labelled},
    data::{Columns, Part},
    images,
    task::{Parameter, Seen, Task},
};
use crate::{file::check_regular, unservable};
use network::Network;
use picture::Picture;
pub(crate) use served::{Answerer, MODEL_TYPE, Source};
use words::{MOST_WORDS, Words};

/// Bytes of an image's file.
const MOST_BYTES: u64 = 32 << 20;
/// Examples whose images tell what is usual.
const USUAL: usize = 256;

/// A network, and the questions that it learns from.
pub(super) struct Questions {
    plan: Plan,
    network: Network,
    picture: Picture,
    words: Words,
    train: Classified,
    test: Option<Classified>,
    labels: Vec<String>,
}

impl Questions {
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit.
    pub(super) fn open(plan: &Plan, network: &ImageQuestion, train: &Path, test: Option<&Path>) -> Result<Self> {
        let data = &plan.data;
        let (text, label, image) = (data.text.clone(), Some(data.label.clone()), Some(data.image.clone()));
        let Labelled { train, test, labels } = Labelled::open(data, &Columns { text, label, image }, train, test)?;
        let mut words = BTreeSet::new();
        for index in 0..train.len() {
            words.extend(words::of(&train.row(index)?.0.text));
            if words.len() > MOST_WORDS {
                Words::check(&words)?;
            }
        }
        let words = Words::new(words)?;
        // All images become as large as the first; what is usual of them is seen in some.
        let some: Vec<usize> = (0..train.len()).step_by(train.len().div_ceil(USUAL)).collect();
        let files = some.iter().map(|index| read_image(&train, *index));
        let picture = Picture::of(files, |at, why| train.wrong(some[at], why))?;
        let network = Network::new(network, picture.shape(), words.count(), labels.len())?;
        Ok(Self { plan: plan.clone(), network, picture, words, train, test, labels })
    }

    fn of(&self, part: Part) -> Option<&Classified> {
        match part {
            Part::Train => Some(&self.train),
            Part::Test => self.test.as_ref(),
        }
    }
}

/// Where the image of a row lies: beside its table, or in a folder there.
fn image_of(rows: &Classified, index: usize) -> Result<PathBuf> {
    let named = rows.row(index)?.0.image.unwrap_or_default();
    let path = Path::new(&named);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if named.is_empty() || !path.components().all(plain) {
        let text = format!("image '{}' must be a path from the table's folder on", named.escape_debug());
        return Err(rows.wrong(index, &text));
    }
    Ok(rows.path().parent().unwrap_or(Path::new("")).join(path))
}

fn read_image(rows: &Classified, index: usize) -> Result<Vec<u8>> {
    let path = image_of(rows, index)?;
    // What is no regular file may never end.
    let bytes = check_regular(&path).map_err(|error| rows.wrong(index, &error.message))?;
    if bytes > MOST_BYTES {
        let text = format!("image {} has {bytes} bytes, {MOST_BYTES} are at most", path.display());
        return Err(rows.wrong(index, &text));
    }
    std::fs::read(&path).map_err(|error| rows.wrong(index, &format!("image {}: {error}", path.display())))
}

impl Task for Questions {
    fn parameters(&self) -> &[Parameter] {
        self.network.parameters()
    }

    fn initial(&self, seed: u64) -> Result<Vec<f32>> {
        Ok(self.network.initial(seed))
    }

    fn examples(&self, part: Part) -> usize {
        self.of(part).map_or(0, Classified::len)
    }

    fn hash(&self, hasher: &mut blake3::Hasher) -> Result<()> {
        for rows in [Some(&self.train), self.test.as_ref()].into_iter().flatten() {
            rows.hash(hasher);
            // Each image once, however many questions there are about it.
            let mut seen = BTreeSet::new();
            for index in 0..rows.len() {
                if seen.insert(image_of(rows, index)?) {
                    hasher.update(&read_image(rows, index)?);
                }
            }
        }
        Ok(())
    }

    fn shape(&self) -> Result<String> {
        Ok(format!("{:?} {:?} {:?}", self.picture, self.labels, self.words))
    }

    fn values(&self, _learns: bool) -> usize {
        self.network.values().saturating_mul(4)
    }

    fn evaluated(&self) -> usize {
        self.plan.micro_batch()
    }

    fn look(&self, tensors: &[Tensor], part: Part, indices: &[usize], dropout: Option<u64>) -> Result<Seen> {
        let rows = self.of(part).ok_or_else(|| unservable("there are no such examples"))?;
        let (mut pixels, mut words, mut classes) = (Vec::new(), Vec::new(), Vec::with_capacity(indices.len()));
        for &index in indices {
            let (row, class) = rows.row(index)?;
            let file = read_image(rows, index)?;
            pixels.extend(self.picture.values(&file).map_err(|why| rows.wrong(index, &format!("its image: {why}")))?);
            words.extend(self.words.values(&row.text));
            classes.push(class);
        }
        let weights = vec![1.0; classes.len()];
        let logits = self.network.logits(tensors, pixels, words, dropout);
        let seen = logits.and_then(|logits| images::seen(&logits, classes, weights));
        seen.map_err(|error| super::failed(&error))
    }

    fn save(&self, values: &[f32], progress: &Progress, folder: &Path) -> Result<()> {
        served::save(self, values, progress, folder)
    }
}
