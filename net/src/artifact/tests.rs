use proptest::prelude::*;

use super::*;
use crate::codec::{Codec, Element};

const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIL8/oIPnSwNx6x3IF023v3EmXtrHumkAlg3pkAGp0yJI
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA2dBLIBjipg5WGrqtrhJKLfn+ECpvJpnA1YTj+VxySx4=
-----END PUBLIC KEY-----
";

fn chunk(bytes: u32, content: u8) -> Chunk {
    Chunk {
        bytes,
        address: blake3::hash(&[content]),
        element: Element::Bf16,
        encoded: Some(Encoded { codec: Codec::Weights, bytes: bytes - 1, hash: blake3::hash(&[content, 1]) }),
        difference: Some(Difference { base: blake3::hash(b"b"), bytes: 1, hash: blake3::hash(&[content, 2]) }),
    }
}

fn manifest() -> Manifest {
    let tensor = Tensor { name: "t".into(), datatype: "BF16".into(), shape: vec![2, 5], start: 0, bytes: 20 };
    let file = |path: &str, chunks| File { path: path.into(), tensors: vec![], chunks };
    Manifest {
        name: orion_proto::ModelName::new("m").unwrap(),
        version: orion_proto::ModelName::new("1").unwrap(),
        files: vec![
            File {
                tensors: vec![tensor],
                ..file("a/model.safetensors", vec![chunk(10, 1), chunk(10, 2), chunk(10, 1)])
            },
            file("a/b", vec![chunk(10, 2)]),
            file("empty", vec![]),
        ],
        chunk_bytes: 10,
        base: Some(blake3::hash(b"base")),
    }
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let manifest = manifest();
    let artifact = Artifact::new(manifest.clone(), None);
    let read = Artifact::decode(&artifact.encode()).unwrap();
    assert_eq!((read.manifest, read.root), (manifest.clone(), artifact.root));
    assert_eq!(manifest.bytes(), 40);
    let pieces = Pieces::of(&manifest);
    let places: Vec<Vec<(usize, u64)>> =
        pieces.iter().map(|piece| piece.places.iter().map(|place| (place.file, place.start)).collect()).collect();
    assert_eq!(places, [vec![(0, 0), (0, 20)], vec![(0, 10), (1, 0)]]);
    assert_eq!(
        pieces.iter().map(|piece| (piece.encoded_at, piece.difference_at)).collect::<Vec<_>>(),
        [(0, 0), (9, 1)]
    );
}

#[test]
fn what_a_manifest_may_not_say_is_named() {
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut changed = manifest();
        change(&mut changed);
        Manifest::decode(&changed.encode()).map(|_| ()).map_err(|error| error.message)
    };
    assert_eq!(with(&|_| {}), Ok(()));
    for path in [
        "",
        "/etc/passwd",
        "..",
        "a/../../b",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\0b",
        "a\nb",
        &"x/".repeat(600),
        &"x".repeat(256),
    ] {
        let refused = with(&|manifest| manifest.files[1].path = path.into());
        assert!(refused.clone().is_err_and(|reason| reason.contains("path must be relative")), "{path:?} {refused:?}");
    }
    type Change<'c> = &'c dyn Fn(&mut Manifest);
    let cases: [(Change<'_>, &str); 10] = [
        (
            &|manifest| {
                manifest.files[1].chunks[0] = Chunk { bytes: 9, encoded: None, ..manifest.files[1].chunks[0].clone() }
            },
            "has the address of one of 10 bytes",
        ),
        (&|manifest| manifest.files[1].path = "empty".into(), "'empty' is there twice"),
        (&|manifest| manifest.files[1].path = "a".into(), "'a' is there twice, or is a folder"),
        (&|manifest| manifest.files[0].chunks[0].bytes = 11, "it has 11 bytes, it must be 1 to 10"),
        (&|manifest| manifest.files[0].chunks[0].bytes = 0, "it must be 1 to 10"),
        (&|manifest| manifest.chunk_bytes = u32::MAX, "it must be 1 to 16777216"),
        (&|manifest| manifest.files[0].tensors[0].start = u64::MAX, "tensor 't' ends after"),
        (&|manifest| manifest.base = None, "there is no base version"),
        (&|manifest| manifest.files[0].chunks[0].encoded.as_mut().unwrap().bytes = 10, "must have fewer than its 10"),
        (&|manifest| manifest.files[0].chunks[0].difference.as_mut().unwrap().bytes = 0, "must have fewer than its 10"),
    ];
    for (change, words) in cases {
        let refused = with(change);
        assert!(refused.clone().is_err_and(|reason| reason.contains(words)), "{words:?} is not in {refused:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = Artifact::new(manifest(), None).encode();
        changes.iter().for_each(|(at, value)| *at.get_mut(&mut bytes) = *value);
        let end = cut.index(bytes.len() + 1);
        for bytes in [&bytes[..], &bytes[..end], &noise] {
            if let Ok(artifact) = Artifact::decode(bytes) {
                // What is believed may be acted on: its sums and pieces are those of its files.
                let pieces = Pieces::of(&artifact.manifest);
                let placed: u64 = pieces.iter().map(|piece| piece.places.len() as u64 * u64::from(piece.chunk.bytes)).sum();
                prop_assert_eq!(placed, artifact.manifest.bytes());
            }
        }
    }
}

#[test]
fn only_who_is_trusted_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (private, public) = (file("key.pem", PRIVATE), file("key.pub", PUBLIC));
    let signer = Signer::from_file(&private).unwrap();
    let signed = Artifact::new(manifest(), Some(&signer));
    let read = Artifact::decode(&signed.encode()).unwrap();
    let trust = Trust::from_files([public.as_path()]).unwrap();
    assert!(trust.accepts(&read.root, read.signed.as_ref()).is_ok());
    let unsigned = trust.accepts(&read.root, None).unwrap_err();
    assert!(unsigned.message.ends_with("is not signed, which is asked for here"), "{}", unsigned.message);
    let other = file("other.pub", &other_key());
    let refused = Trust::from_files([other.as_path()]).unwrap().accepts(&read.root, read.signed.as_ref()).unwrap_err();
    assert!(refused.message.ends_with("a key that is not trusted here"), "{}", refused.message);
    // A signature of another manifest is none of this one.
    let changed = Artifact {
        signed: signed.signed.clone(),
        ..Artifact::new(Manifest { base: None, files: vec![], ..manifest() }, None)
    };
    assert!(Artifact::decode(&changed.encode()).unwrap_err().message.contains("is not valid"));
    assert!(Signer::from_file(&public).unwrap_err().message.contains("openssl genpkey"));
    assert!(Trust::from_files([private.as_path()]).unwrap_err().message.contains("openssl pkey -pubout"));
}

fn other_key() -> String {
    use ed25519_dalek::{
        SigningKey,
        pkcs8::{EncodePublicKey, spki::der::pem::LineEnding},
    };
    SigningKey::from_bytes(&[7; 32]).verifying_key().to_public_key_pem(LineEnding::LF).unwrap()
}
