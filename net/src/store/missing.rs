//! What a node lacks of an artifact that it may be asked to fetch.

use std::{fs, sync::Arc};

use super::{Store, Stored};
use crate::{
    artifact::{Artifact, Form},
    swarm::Bitmap,
};

impl Store {
    /// Bytes that would travel if this artifact were fetched now, each chunk in its shortest form: not those that an earlier
    /// fetch left, nor those that other artifacts have. What is said to be here is not read.
    pub fn missing_bytes(&self, artifact: Artifact) -> u64 {
        if self.get(&artifact.root).is_ok() {
            return 0;
        }
        let stored = Stored::new(artifact);
        let said = fs::read(self.layout.incoming(&stored.artifact.root).join("bitmap"));
        let said = said.ok().and_then(|bytes| Bitmap::from_bytes(stored.pieces.len(), &bytes).ok());
        let have = said.unwrap_or_else(|| Bitmap::new(stored.pieces.len()));
        let others: Vec<Arc<Stored>> = self.list().into_iter().map(|entry| entry.stored).collect();
        let base = stored.artifact.manifest.base;
        let base = base.and_then(|base| others.iter().find(|other| other.artifact.root == base));
        let bytes = |index: usize| {
            let piece = stored.pieces.get(index)?;
            if others.iter().any(|other| other.pieces.find(&piece.chunk.address).is_some()) {
                return None;
            }
            let difference = piece
                .chunk
                .difference
                .filter(|difference| base.is_some_and(|base| base.pieces.find(&difference.base).is_some()));
            let forms = [Form::Raw, Form::Encoded, Form::Difference].into_iter();
            let forms = forms.filter(|form| *form != Form::Difference || difference.is_some());
            forms.filter_map(|form| piece.wire(form)).map(|(bytes, _)| u64::from(bytes)).min()
        };
        have.missing().filter_map(bytes).sum()
    }
}
