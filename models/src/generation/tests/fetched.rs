//! The logits of a fetched model. `ORION_MODELS` names another folder than `models-data`.

use std::path::PathBuf;

use crate::{
    Family,
    generation::decoder::{Row, Step},
    inspect,
};
use orion_proto::ModelName;

/// The greatest logit after token 1, and its token, as an independent forward pass gave them.
const GREATEST: (usize, f32) = (9038, 12.29003);

#[test]
fn stories15m_has_the_known_first_logit() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join("stories15m");
    if !path.exists() {
        println!(
            "skipped: {} is not there, fetch it with: scripts/fetch-models stories15m --to models-data",
            path.display()
        );
        return;
    }
    let manifest = inspect(&ModelName::new("stories15m").unwrap(), &path).unwrap();
    let Family::Generation(source) = &manifest.family else { panic!("a language model") };
    let mut model = source.load(manifest.spec.clone(), &|_| {}).unwrap();
    let step = Step { rows: vec![Row { token: 1, position: 0, sequence: 0 }], blocks: vec![vec![0]], wanted: vec![0] };
    model.decoder.forward(&step, &mut model.cache);
    let logits = model.decoder.logits().iter().copied().enumerate();
    let greatest = logits.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    println!("token {} has {}", greatest.0, greatest.1);
    assert!(greatest.0 == GREATEST.0 && (greatest.1 - GREATEST.1).abs() < 1e-4, "{greatest:?}");
}
