//! nano-ocr against what its own package reads. `scripts/fetch-models nano-ocr --to models-data` fetches it;
//! `ORION_MODELS` names another folder than `models-data`.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use orion_models::{Model, ModelRequest, inspect, load};
use orion_proto::{Datatype, ModelName, Payload, Tensor, bytes_elements, encode_bytes_elements};

/// The fetched model; `None`, said aloud, where it was not fetched.
fn fetched(name: &str) -> Option<Box<dyn Model>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../models-data").into();
    let path = PathBuf::from(std::env::var("ORION_MODELS").unwrap_or(default)).join(name);
    if !path.exists() {
        let path = path.display();
        println!("skipped: {path} is not there, fetch it with: scripts/fetch-models {name} --to models-data");
        return None;
    }
    Some(load(&inspect(&ModelName::new(name).unwrap(), &path).unwrap(), &|_| {}).unwrap().model().unwrap())
}

fn read(model: &mut dyn Model, files: &[Vec<u8>]) -> Vec<String> {
    let data = Payload::from(encode_bytes_elements(files));
    let image = Tensor::new("image", Datatype::Bytes, vec![files.len() as i64], data).unwrap();
    let answer = model.run(vec![ModelRequest { inputs: vec![image], ..ModelRequest::default() }]).remove(0).unwrap();
    let texts = bytes_elements("text", &answer.outputs[0].data.contiguous(), files.len()).unwrap();
    texts.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
}

#[test]
fn known_good_texts_come_out() {
    let Some(mut model) = fetched("nano-ocr") else { return };
    let expected: BTreeMap<String, String> =
        serde_json::from_str(include_str!("../../tests/data/expected/nano-ocr.json")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/images");
    let files: Vec<Vec<u8>> = expected.keys().map(|word| std::fs::read(folder.join(word)).unwrap()).collect();
    let wanted: Vec<String> = expected.into_values().collect();
    assert_eq!(read(&mut *model, &files), wanted);
    for (file, wanted) in files.iter().zip(wanted) {
        assert_eq!(read(&mut *model, std::slice::from_ref(file)), [wanted]);
    }
}
