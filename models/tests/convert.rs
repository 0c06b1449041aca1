//! Files of other programs, converted: what torch.save wrote beside the same tensors from the safetensors library (both by
//! `tests/data/checkpoints/make.py`).

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use orion_models::{
    Precision,
    checkpoint::{Checkpoint, Conversion, Element, Format, convert},
};

fn data(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/checkpoints")).join(name)
}

fn conversion(source: &Path, folder: &Path) -> Conversion {
    Conversion { source: source.into(), folder: folder.into(), ..Conversion::default() }
}

/// The one file opened as the weights of a folder.
fn opened(file: &Path) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(file, folder.path().join("model.safetensors")).unwrap();
    Checkpoint::open(folder.path()).unwrap()
}

fn assert_same(got: &Checkpoint, want: &Checkpoint) {
    let names = |checkpoint: &Checkpoint| checkpoint.tensors().map(|tensor| tensor.0.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(got), names(want));
    for (name, want_entry) in want.tensors() {
        let entry = got.get(name).unwrap();
        assert_eq!((entry.element, &entry.shape), (want_entry.element, &want_entry.shape), "{name}");
        assert_eq!(got.bytes(entry), want.bytes(want_entry), "{name}");
    }
}

/// The header of stories15M with a little of what follows it.
fn cut_llama2c() -> Vec<u8> {
    let header = [288i32, 768, 6, 6, 6, 32000, 256].map(i32::to_le_bytes).concat();
    [header, vec![0; 100_000]].concat()
}

#[test]
fn what_torch_saved_is_what_safetensors_saved() {
    for (source, want, format, key) in [
        ("tensors.pt", "tensors.safetensors", Format::Torch, None),
        ("tensors-protocol-5.pt", "tensors.safetensors", Format::Torch, None),
        ("tensors-legacy.pth", "tensors.safetensors", Format::TorchLegacy, None),
        ("tensors.safetensors", "tensors.safetensors", Format::Safetensors, None),
        ("training.pt", "training.safetensors", Format::Torch, Some("model")),
        ("training-legacy.pth", "training.safetensors", Format::TorchLegacy, Some("model")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let converted = convert(&conversion(&data(source), folder.path()), &|_| {}).unwrap();
        assert_eq!((converted.format, converted.key.as_deref()), (format, key), "{source}");
        assert_eq!(converted.left_out, if key.is_some() { vec!["optimizer"] } else { vec![] });
        let got = Checkpoint::open(folder.path()).unwrap();
        assert_eq!((converted.tensors, converted.bytes), (got.tensors().count(), got.file_bytes()));
        assert_same(&got, &opened(&data(want)));
    }
}

#[test]
fn floats_become_the_precision_that_is_asked_for_and_whole_numbers_stay() {
    let want = opened(&data("tensors.safetensors"));
    for (precision, element) in [(Precision::F16, Element::F16), (Precision::Bf16, Element::Bf16)] {
        let folder = tempfile::tempdir().unwrap();
        let half = Conversion { precision: Some(precision), ..conversion(&data("tensors.pt"), folder.path()) };
        convert(&half, &|_| {}).unwrap();
        let got = Checkpoint::open(folder.path()).unwrap();
        for (name, entry) in want.tensors() {
            let found = got.get(name).unwrap();
            assert_eq!(found.element, if entry.element.is_float() { element } else { entry.element }, "{name}");
            if entry.element.is_float() {
                let (got, want) = (got.floats(name, &entry.shape).unwrap(), want.floats(name, &entry.shape).unwrap());
                assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() <= want.abs() / 256.0), "{name}");
            }
        }
    }
}

#[test]
fn a_folder_is_not_overwritten_unless_it_is_forced_and_nothing_is_left_of_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let names = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let config = folder.path().join("other.json");
    fs::write(&config, r#"{"model_type": "x"}"#).unwrap();
    let good = Conversion { config: Some(config.clone()), ..conversion(&data("tensors.pt"), folder.path()) };
    convert(&good, &|_| {}).unwrap();
    assert_eq!(names(), ["config.json", "model.safetensors", "other.json"]);
    assert_eq!(fs::read(folder.path().join("config.json")).unwrap(), fs::read(&config).unwrap());
    let refused = convert(&good, &|_| {}).unwrap_err();
    assert!(refused.message.contains("config.json is already there"), "{refused}");
    convert(&Conversion { force: true, ..good.clone() }, &|_| {}).unwrap();

    // A value that the precision has no room for, found when half is written.
    let header = r#"{"big":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &1e6f32.to_le_bytes()].concat();
    let source = folder.path().join("big.bin");
    fs::write(&source, bytes).unwrap();
    let weights = fs::read(folder.path().join("model.safetensors")).unwrap();
    let half = Conversion { source, precision: Some(Precision::F16), force: true, ..good };
    let error = convert(&half, &|_| {}).unwrap_err();
    assert!(error.message.contains("big.bin: tensor 'big': it holds 1e6, which F16 has no room for"), "{error}");
    assert_eq!(names(), ["big.bin", "config.json", "model.safetensors", "other.json"]);
    assert_eq!(fs::read(folder.path().join("model.safetensors")).unwrap(), weights);
}

#[test]
fn files_that_are_not_converted_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |bytes: &[u8]| {
        let path = folder.path().join("source");
        fs::write(&path, bytes).unwrap();
        path
    };
    for (bytes, words) in [
        (&b"GGUF\x03\0\0\0"[..], "a GGUF file is not converted"),
        (b"", "the file is empty"),
        (b"24ka\x01\0\0\0", "versions 1 and 2"),
        (b"\x80\x04K\x01.", "not one that torch.save wrote"),
        (b"once upon a time", "its format is unknown; converted are PyTorch's"),
        (&cut_llama2c(), "its header says 60816028 bytes, it has 100028"),
    ] {
        let error = convert(&conversion(&file(bytes), &folder.path().join("out")), &|_| {}).unwrap_err();
        assert!(error.message.contains(words) && error.message.contains("source"), "{error}");
    }
    let error = convert(&conversion(&data("module.pt"), &folder.path().join("out")), &|_| {}).unwrap_err();
    assert!(error.message.contains("names 'torch.nn.modules.linear.Linear'"), "{error}");
    let keyed =
        Conversion { key: Some("x".into()), ..conversion(&data("tensors.safetensors"), &folder.path().join("out")) };
    assert!(convert(&keyed, &|_| {}).is_err_and(|error| error.message.contains("not 'x' either")));
    assert!(!folder.path().join("out").exists());
}
