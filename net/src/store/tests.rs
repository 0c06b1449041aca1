use std::os::unix::fs::FileExt;

use orion_proto::ModelName;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

use super::*;
use crate::{
    artifact::{Form, Trust},
    codec::Coder,
    swarm::Bitmap,
};

const FORMS: [Form; 3] = [Form::Raw, Form::Encoded, Form::Difference];

/// Weights that are like trained ones; those of another step are a little off in one number of four.
fn weights(seed: u64, step: u16, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let numbers = (0..count).map(|_| {
        let bits = (0x3c00 + (next() % 0x180) as u16) | ((next() & 1) as u16) << 15;
        if next() % 4 == 0 { bits + step } else { bits }
    });
    numbers.flat_map(u16::to_le_bytes).collect()
}

/// A model's folder: two tensors, of which the second is large, the same small file twice, and an empty one.
fn model(seed: u64, step: u16) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (weights(seed, step, 1000), weights(seed + 1, step, 400_000));
    let tensors = [("norm", &small, vec![1000]), ("layer.0", &large, vec![400, 1000])];
    let views = tensors.map(|(name, data, shape)| (name, TensorView::new(Dtype::BF16, shape, data).unwrap()));
    std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::create_dir(folder.path().join("text")).unwrap();
    for name in ["tokenizer.json", "text/tokenizer.json"] {
        std::fs::write(folder.path().join(name), r#"{"a": "tokenizer"}"#.repeat(300)).unwrap();
    }
    std::fs::write(folder.path().join("empty.txt"), "").unwrap();
    std::fs::write(folder.path().join(".hidden"), "not taken").unwrap();
    folder
}

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Quota::default()).unwrap();
    (folder, store)
}

fn publish(store: &Store, source: &TempDir, name: &str, base: Option<Hash>) -> Artifact {
    let name = ModelName::new(name).unwrap();
    let publication =
        Publication { source: source.path(), name, version: None, base, codec: None, signer: None, is_own: false };
    store.publish(&publication, &|_, _| {}).unwrap()
}

/// What a store has of an artifact is what was published.
fn is_same(store: &Store, root: &Hash, source: &TempDir) -> bool {
    let stored = store.get(root).unwrap();
    stored.artifact.manifest.files.iter().all(|file| {
        std::fs::read(store.folder(root).join(&file.path)).unwrap()
            == std::fs::read(source.path().join(&file.path)).unwrap()
    })
}

/// Brings chunks from one store to another, each in the first form that it has.
fn bring(from: &Store, incoming: &Incoming, forms: &[Form], chunks: impl IntoIterator<Item = usize>) {
    let sent = from.chunks(&from.get(&incoming.stored().artifact.root).unwrap()).unwrap();
    for index in chunks {
        let mut coder = Coder::default();
        let (form, bytes) =
            forms.iter().find_map(|form| Some((*form, sent.read(index, *form, &mut coder, Vec::new())?))).unwrap();
        incoming.put(index, form, &bytes, &mut coder).unwrap();
    }
}

fn everything(incoming: &Incoming) -> Vec<usize> {
    incoming.have().missing().collect()
}

#[test]
fn a_model_comes_whole_in_every_form() {
    let (_a, from) = store();
    let (old, new) = (model(1, 0), model(1, 1));
    let base = publish(&from, &old, "m", None);
    let next = publish(&from, &new, "m", Some(base.root));
    assert_ne!((base.root, base.manifest.version.clone()), (next.root, next.manifest.version.clone()));
    let count = |form| next_pieces(&from, &next).iter().filter(|piece| piece.wire(form).is_some()).count();
    assert!(count(Form::Encoded) > 3 && count(Form::Difference) > 3);
    for forms in [&[Form::Raw][..], &[Form::Encoded, Form::Raw], &[Form::Difference, Form::Encoded, Form::Raw]] {
        let (_b, to) = store();
        for artifact in [&base, &next] {
            let incoming = to.begin(artifact.clone()).unwrap().unwrap();
            assert!(to.find("m", Some(artifact.manifest.version.as_str())).is_err(), "it is not whole yet");
            bring(&from, &incoming, forms, everything(&incoming));
            incoming.finish(&to).unwrap();
        }
        assert!(is_same(&to, &base.root, &old) && is_same(&to, &next.root, &new));
        assert_eq!(to.find("m", None).unwrap(), next.root);
        // And from there on, in the forms in which it did not come too.
        let (_c, third) = store();
        let incoming = third.begin(base.clone()).unwrap().unwrap();
        bring(&to, &incoming, &[Form::Encoded, Form::Raw], everything(&incoming));
        incoming.finish(&third).unwrap();
        assert!(is_same(&third, &base.root, &old) && third.verify(&third.get(&base.root).unwrap(), &|_| {}).is_none());
    }
}

fn next_pieces(store: &Store, artifact: &Artifact) -> Pieces {
    store.get(&artifact.root).unwrap().pieces.clone()
}

#[test]
fn what_another_model_has_is_not_fetched() {
    let (_a, from) = store();
    let (old, new) = (model(1, 0), model(1, 1));
    let (base, next) = (publish(&from, &old, "m", None), publish(&from, &new, "m", None));
    let (_b, to) = store();
    let first = to.begin(base.clone()).unwrap().unwrap();
    assert_eq!(first.have().count(), 0);
    bring(&from, &first, &[Form::Raw], everything(&first));
    first.finish(&to).unwrap();
    let second = to.begin(next.clone()).unwrap().unwrap();
    let tokenizer = next.manifest.files.iter().find(|file| file.path == "tokenizer.json").unwrap();
    let index = next_pieces(&from, &next).find(&tokenizer.chunks[0].address).unwrap();
    assert!(second.have().contains(index));
    bring(&from, &second, &[Form::Raw], everything(&second));
    second.finish(&to).unwrap();
    assert!(is_same(&to, &next.root, &new));
    // One file on the disk, which goes with the last model that has it.
    let object = to.layout.object(&tokenizer.address());
    to.remove(&base.root).unwrap();
    assert!(object.exists() && is_same(&to, &next.root, &new));
    to.remove(&next.root).unwrap();
    assert!(!object.exists());
    assert_eq!((to.collect().unwrap(), to.used_bytes()), (Default::default(), 0));
}

#[test]
fn a_flipped_bit_is_never_taken() {
    let (_a, from) = store();
    let (old, new) = (model(1, 0), model(1, 1));
    let base = publish(&from, &old, "m", None);
    let next = publish(&from, &new, "m", Some(base.root));
    let incoming = from.begin(next.clone()).unwrap().unwrap();
    let mut coder = Coder::default();
    let chunks = from.chunks(&from.get(&next.root).unwrap()).unwrap();
    let before = incoming.have();
    for index in 0..before.len() {
        for form in FORMS {
            let Some(mut bytes) = chunks.read(index, form, &mut coder, Vec::new()) else { continue };
            let at = index * 7919 % bytes.len();
            bytes[at] ^= 1 << (index % 8);
            assert!(matches!(incoming.put(index, form, &bytes, &mut coder), Err(Refused::Wire(own)) if own == index));
            assert!(incoming.put(index, form, &bytes[..at], &mut coder).is_err());
        }
    }
    assert!(incoming.put(before.len(), Form::Raw, &[], &mut coder).is_err());
    assert_eq!(incoming.have(), before);
}

#[test]
fn a_process_that_was_killed_goes_on_with_all_but_what_was_damaged() {
    let (_a, from) = store();
    let source = model(1, 0);
    let artifact = publish(&from, &source, "m", None);
    let (_b, to) = store();
    let incoming = to.begin(artifact.clone()).unwrap().unwrap();
    assert!(to.begin(artifact.clone()).unwrap().is_none(), "one process fetches it");
    let all = everything(&incoming);
    let (half, rest) = all.split_at(all.len() / 2);
    bring(&from, &incoming, &[Form::Encoded, Form::Raw], half.iter().copied());
    assert_eq!(incoming.finish(&to).unwrap_err().code, Code::FailedPrecondition);
    drop(incoming);
    let incoming = to.begin(artifact.clone()).unwrap().unwrap();
    assert_eq!(everything(&incoming), rest);
    drop(incoming);
    // Damage one chunk of those that are said to be here.
    let damaged = half[half.len() - 1];
    let place = to.begin(artifact.clone()).unwrap().unwrap().stored().pieces.get(damaged).unwrap().places[0];
    let path = incoming::file_path(&to.layout.incoming(&artifact.root), place.file);
    flip(&path, place.start);
    let incoming = to.begin(artifact.clone()).unwrap().unwrap();
    let mut expected = vec![damaged];
    expected.extend(rest);
    assert_eq!(everything(&incoming), expected);
    bring(&from, &incoming, &[Form::Encoded, Form::Raw], expected);
    incoming.finish(&to).unwrap();
    assert!(is_same(&to, &artifact.root, &source));
}

fn flip(path: &Path, at: u64) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn damage_is_found_never_sent_and_costs_one_chunk() {
    let (_a, good) = store();
    let source = model(1, 0);
    let artifact = publish(&good, &source, "m", None);
    let (_b, bad) = store();
    publish(&bad, &source, "m", None);
    let stored = bad.get(&artifact.root).unwrap();
    flip(&bad.folder(&artifact.root).join("model.safetensors"), 300_000);
    flip(&bad.layout.encoded(&artifact.root), 0);
    let damage = bad.verify(&stored, &|_| {}).unwrap();
    assert_eq!(damage.files, [("model.safetensors".to_owned(), 1)]);
    let (sent, mut coder) = (bad.chunks(&stored).unwrap(), Coder::default());
    let unsent: Vec<usize> = (0..stored.pieces.len())
        .filter(|index| sent.read(*index, Form::Raw, &mut coder, Vec::new()).is_none())
        .collect();
    assert_eq!(unsent.len(), 1);
    // The pack was damaged elsewhere: it is encoded again.
    let again = (0..stored.pieces.len())
        .filter(|index| sent.read(*index, Form::Encoded, &mut coder, Vec::new()).is_some())
        .count();
    let encoded = stored.pieces.iter().filter(|piece| piece.chunk.encoded.is_some()).count();
    assert!(again >= encoded - 1);
    let incoming = bad.begin(artifact.clone()).unwrap().unwrap();
    assert_eq!(everything(&incoming), unsent);
    bring(&good, &incoming, &[Form::Raw], unsent);
    incoming.finish(&bad).unwrap();
    assert!(bad.verify(&stored, &|_| {}).is_none() && is_same(&bad, &artifact.root, &source));
}

#[test]
fn a_full_store_gives_up_what_is_not_in_use() {
    let (folder, unlimited) = store();
    let first = publish(&unlimited, &model(1, 0), "first", None);
    let one = unlimited.used_bytes();
    // Room for two and what the third takes while it comes.
    let quota = Quota { bytes: Some(one * 4 + 10_000), policy: Policy::Lru };
    let store = Store::open(folder.path(), quota).unwrap();
    let second = publish(&store, &model(3, 0), "second", None);
    let pin = store.pin(&first.root).unwrap();
    let third = publish(&store, &model(5, 0), "third", None);
    publish(&store, &model(7, 0), "fourth", None);
    assert!(store.get(&first.root).is_ok(), "it is in use");
    assert!(store.get(&second.root).is_err(), "it was used longest ago of those that are not");
    assert_eq!(store.remove(&first.root).unwrap_err().code, Code::FailedPrecondition);
    drop(pin);
    assert!(store.get(&third.root).is_ok());
    store.remove(&first.root).unwrap();
    let small = Store::open(folder.path(), Quota { bytes: Some(one), policy: Policy::Lru }).unwrap();
    let pins: Vec<Pin> = small.list().iter().map(|entry| small.pin(&entry.stored.artifact.root).unwrap()).collect();
    let name = ModelName::new("fifth").unwrap();
    let source = model(9, 0);
    let publication = Publication {
        source: source.path(),
        name,
        version: None,
        base: None,
        codec: None,
        signer: None,
        is_own: false,
    };
    let error = small.publish(&publication, &|_, _| {}).unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(error.message.contains("in use"), "{}", error.message);
    drop(pins);
    assert!(small.publish(&publication, &|_, _| {}).is_err(), "it is larger than the quota");
}

#[test]
fn what_was_left_behind_is_collected() {
    let (_a, store) = store();
    let artifact = publish(&store, &model(1, 0), "m", None);
    let used = store.used_bytes();
    std::fs::write(store.layout.objects().join("0".repeat(64)), [7; 9000]).unwrap();
    std::fs::create_dir(store.layout.model(&Hash::from_bytes([1; 32]))).unwrap();
    std::fs::write(store.layout.encoded(&Hash::from_bytes([1; 32])), [7; 9000]).unwrap();
    let removed = store.collect().unwrap();
    assert!(removed.artifacts.is_empty() && removed.bytes >= 18_000, "{removed:?}");
    assert_eq!(store.used_bytes(), used);
    assert!(store.verify(&store.get(&artifact.root).unwrap(), &|_| {}).is_none());
}

#[test]
fn names_and_versions_are_found_or_listed() {
    let (_a, store) = store();
    assert!(store.find("m", None).unwrap_err().message.contains("there are none"));
    let artifact = publish(&store, &model(1, 0), "m", None);
    assert_eq!(store.find("m", None).unwrap(), artifact.root);
    assert_eq!(store.find("m", Some(artifact.manifest.version.as_str())).unwrap(), artifact.root);
    let error = store.find("m", Some("2")).unwrap_err();
    assert!(error.code == Code::NotFound && error.message.contains(artifact.manifest.version.as_str()));
    assert!(store.find("../artifacts", None).unwrap_err().message.contains("which has: m"));
    assert!(Trust::default().accepts(&artifact.root, None).is_ok());
    assert!(Bitmap::from_bytes(7, &[0xff]).is_err());
}

#[test]
fn what_is_missing_is_what_would_travel() {
    let (_here, from) = store();
    let (source, next) = (model(1, 0), model(1, 1));
    let first = publish(&from, &source, "m", None);
    let second = publish(&from, &next, "m", Some(first.root));
    let (_there, to) = store();
    let travels = |artifact: &Artifact, forms: &[Form], have: &Bitmap| -> u64 {
        let stored = from.get(&artifact.root).unwrap();
        let bytes = have.missing().map(|index| {
            let piece = stored.pieces.get(index).unwrap();
            forms.iter().filter_map(|form| piece.wire(*form)).map(|(bytes, _)| u64::from(bytes)).min().unwrap()
        });
        bytes.sum()
    };
    let whole = Bitmap::new(from.get(&first.root).unwrap().pieces.len());
    let all = travels(&first, &FORMS, &whole);
    assert_eq!(to.missing_bytes(first.clone()), all);
    // A fetch that ended half way.
    let incoming = to.begin(first.clone()).unwrap().unwrap();
    let half: Vec<usize> = everything(&incoming).into_iter().step_by(2).collect();
    bring(&from, &incoming, &FORMS, half);
    let have = incoming.have();
    drop(incoming);
    let left = to.missing_bytes(first.clone());
    assert!(left == travels(&first, &FORMS, &have) && 0 < left && left < all, "{left} of {all}");
    let incoming = to.begin(first.clone()).unwrap().unwrap();
    let rest = everything(&incoming);
    bring(&from, &incoming, &FORMS, rest);
    incoming.finish(&to).unwrap();
    assert_eq!(to.missing_bytes(first), 0);
    // Of the next version the differences, and nothing of what is the same.
    let incoming = to.begin(second.clone()).unwrap().unwrap();
    let have = incoming.have();
    let by_difference = travels(&second, &FORMS, &have);
    assert!(have.count() > 0 && by_difference < travels(&second, &[Form::Raw, Form::Encoded], &have));
    drop(incoming);
    assert_eq!(to.missing_bytes(second.clone()), by_difference);
    let (_elsewhere, other) = store();
    assert!(other.missing_bytes(second) > by_difference, "without the base");
}
