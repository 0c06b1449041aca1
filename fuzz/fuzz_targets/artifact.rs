//! An artifact, or a manifest alone, from a peer: what was accepted agrees with itself, and is read again as it is written.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use orion_net::artifact::{Artifact, Form, MOST_CHUNK_BYTES, Manifest, Pieces};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(artifact) = Artifact::decode(bytes) {
        check(&artifact.manifest);
        let again = Artifact::decode(&artifact.encode()).expect("it was accepted");
        assert_eq!((again.root, again.manifest), (artifact.root, artifact.manifest));
        assert_eq!(again.signed.is_some(), artifact.signed.is_some());
    }
    if let Ok(manifest) = Manifest::decode(bytes) {
        check(&manifest);
        let artifact = Artifact::new(manifest, None);
        let again = Artifact::decode(&artifact.encode()).expect("it was accepted");
        assert_eq!((again.root, again.manifest), (artifact.root, artifact.manifest));
    }
});

fn check(manifest: &Manifest) {
    assert!((1..=MOST_CHUNK_BYTES).contains(&manifest.chunk_bytes));
    for file in &manifest.files {
        let path = Path::new(&file.path);
        assert!(path.components().count() > 0 && path.components().all(|part| matches!(part, Component::Normal(_))));
        assert!(file.tensors.iter().all(|tensor| tensor.start + tensor.bytes <= file.bytes()));
        for chunk in &file.chunks {
            assert!((1..=manifest.chunk_bytes).contains(&chunk.bytes));
            assert!(chunk.encoded.is_none_or(|encoded| (1..chunk.bytes).contains(&encoded.bytes)));
            assert!(chunk.difference.is_none_or(|difference| (1..chunk.bytes).contains(&difference.bytes)));
            assert!(manifest.base.is_some() || chunk.difference.is_none());
        }
    }
    check_pieces(manifest);
}

fn check_pieces(manifest: &Manifest) {
    let pieces = Pieces::of(manifest);
    let (mut encoded, mut differences, mut total, mut places) = (0, 0, 0, Vec::new());
    for (index, piece) in pieces.iter().enumerate() {
        assert_eq!(pieces.find(&piece.chunk.address), Some(index));
        assert_eq!((piece.encoded_at, piece.difference_at), (encoded, differences));
        let of = |form| piece.wire(form).map_or(0, |(bytes, _)| u64::from(bytes));
        encoded += of(Form::Encoded);
        differences += of(Form::Difference);
        total += of(Form::Raw) * piece.places.len() as u64;
        places.extend(piece.places.iter().map(|place| (place.file, place.start, piece.chunk.address)));
    }
    assert_eq!(total, manifest.bytes());
    places.sort_unstable_by_key(|(file, start, _)| (*file, *start));
    let mut place = places.into_iter();
    for (index, file) in manifest.files.iter().enumerate() {
        let mut start = 0;
        for chunk in &file.chunks {
            assert_eq!(place.next(), Some((index, start, chunk.address)));
            start += u64::from(chunk.bytes);
        }
    }
    assert_eq!((place.next(), pieces.is_empty()), (None, manifest.bytes() == 0));
}
