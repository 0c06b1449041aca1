//! What a file may make its readers do: broken and hostile files of every format end in an error or in the tensors that are
//! there, and what is held in memory for them is bounded by the file's own size.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use orion_models::{
    Precision,
    checkpoint::{Checkpoint, Conversion, convert},
    inspect,
};
use orion_proto::{ModelName, Result};
use proptest::{prelude::*, sample::Index};
use safetensors::SafeTensors;

thread_local! {
    /// Bytes that this thread holds, and the most it held.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Counts what a thread holds, so that a test can say how much a file made the reader allocate.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does all; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = HELD.try_with(|held| {
            let now = held.get().0 + layout.size();
            held.set((now, held.get().1.max(now)));
        });
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set((held.get().0.saturating_sub(layout.size()), held.get().1)));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The most that this thread held during `work`, beside what it held before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let done = work();
    (done, HELD.get().1 - before)
}

/// What is held whatever the file: names of files, messages, blocks that are written.
const CONSTANT: usize = 64 << 10;
/// Bytes held for a byte of the file. A pickle of empty tuples has the most, 60: each of its bytes becomes a container.
const MOST_PER_BYTE: usize = 100;

fn data(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/checkpoints")).join(name)
}

/// A file with some of its bytes changed, and perhaps cut.
#[derive(Clone, Debug)]
struct Change {
    bytes: Vec<(Index, u8)>,
    cut: Option<Index>,
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop::collection::vec((any::<Index>(), any::<u8>()), 1..6);
    // Mostly whole: what is cut is refused early.
    (bytes, prop::option::weighted(0.2, any::<Index>())).prop_map(|(bytes, cut)| Change { bytes, cut })
}

impl Change {
    /// Changes the first `most` bytes.
    fn apply(&self, mut file: Vec<u8>, most: usize) -> Vec<u8> {
        let most = most.min(file.len());
        for (at, byte) in &self.bytes {
            file[at.index(most)] = *byte;
        }
        if let Some(cut) = &self.cut {
            file.truncate(cut.index(file.len()));
        }
        file
    }
}

/// Converts these bytes and opens what came out; checks what was held meanwhile.
fn converted(bytes: &[u8], tokenizer: Option<&[u8]>) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    let conversion = Conversion {
        source: file("source", bytes),
        folder: folder.path().join("out"),
        tokenizer: tokenizer.map(|bytes| file("tokenizer.bin", bytes)),
        ..Conversion::default()
    };
    let size = bytes.len() + tokenizer.unwrap_or_default().len();
    let (done, most) = peak(|| convert(&conversion, &|_| {}));
    assert!(most < MOST_PER_BYTE * size + CONSTANT, "{most} bytes for a file of {size}");
    assert!(done.as_ref().is_ok_and(|done| done.bytes < 16 * size as u64 + CONSTANT as u64) || done.is_err());
    done.and_then(|_| Checkpoint::open(&conversion.folder))
}

/// Opens a folder with these files; checks what was held meanwhile.
fn opened(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<Checkpoint>) {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
    let size: usize = files.iter().map(|file| file.1.len()).sum();
    let (checkpoint, most) = peak(|| Checkpoint::open(folder.path()));
    assert!(most < MOST_PER_BYTE * size + CONSTANT, "{most} bytes for files of {size}");
    (folder, checkpoint)
}

/// Whether each tensor is the one of that name in a file that the format's own library reads.
fn same(checkpoint: &Checkpoint, file: &[u8]) -> bool {
    let tensors = SafeTensors::deserialize(file).unwrap();
    checkpoint.tensors().all(|(name, entry)| {
        let view = tensors.tensor(name).unwrap();
        entry.shape == view.shape() && checkpoint.bytes(entry) == view.data()
    })
}

/// A llama2.c model of two layers, and a tokenizer for it.
fn llama2c() -> (Vec<u8>, Vec<u8>) {
    let vocabulary = 262;
    let layer = 4 + 4 * 4 + 2 * (2 * 4) + 4 * 4 + 4 + 3 * (3 * 4);
    let floats = vocabulary * 4 + 2 * layer + 4 + 2 * 5;
    let header = [4, 3, 2, 2, 1, vocabulary, 5].map(i32::to_le_bytes).concat();
    let weights = header.into_iter().chain((0..floats).flat_map(|n| (n as f32).to_le_bytes())).collect();
    let names = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from).into_iter();
    let tokens =
        names.chain((0..=255u8).map(|byte| char::from(byte).to_string())).chain([" a", "an", "na"].map(String::from));
    let entry =
        |token: String| [&1f32.to_le_bytes()[..], &(token.len() as i32).to_le_bytes(), token.as_bytes()].concat();
    (weights, [9i32.to_le_bytes().to_vec(), tokens.flat_map(entry).collect()].concat())
}

proptest! {
    /// Everything in an archive that matters is under a checksum.
    #[test]
    fn a_changed_archive_is_refused_or_gives_the_same_tensors(
        name in prop::sample::select(vec!["tensors.pt", "tensors-protocol-5.pt", "training.pt"]), change in change(),
    ) {
        let file = change.apply(fs::read(data(name)).unwrap(), usize::MAX);
        let want = if name == "training.pt" { "training.safetensors" } else { "tensors.safetensors" };
        if let Ok(checkpoint) = converted(&file, None) {
            prop_assert!(same(&checkpoint, &fs::read(data(want)).unwrap()));
        }
    }

    /// Nothing checks its sums: it may give other tensors, of what is in the file.
    #[test]
    fn a_changed_row_of_pickles_is_refused_or_gives_tensors(
        name in prop::sample::select(vec!["tensors-legacy.pth", "training-legacy.pth"]), change in change(),
    ) {
        let file = change.apply(fs::read(data(name)).unwrap(), usize::MAX);
        if let Ok(checkpoint) = converted(&file, None) {
            prop_assert!(checkpoint.tensors().count() > 0);
        }
    }

    #[test]
    fn a_changed_safetensors_file_is_refused_or_read_as_the_format_s_own_library_does(change in change()) {
        let whole = fs::read(data("tensors.safetensors")).unwrap();
        let header = 8 + whole.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
        let file = change.apply(whole, header);
        let (_folder, checkpoint) = opened(&[("model.safetensors", &file)]);
        if let Ok(checkpoint) = checkpoint {
            prop_assert!(same(&checkpoint, &file));
        }
        if let Ok(checkpoint) = converted(&file, None) {
            prop_assert!(same(&checkpoint, &file));
        }
    }

    #[test]
    fn a_changed_index_is_refused_or_names_tensors_of_its_shards(change in change()) {
        let (tensors, training) =
            (fs::read(data("tensors.safetensors")).unwrap(), fs::read(data("training.safetensors")).unwrap());
        let names = |file: &[u8]| {
            let tensors = SafeTensors::deserialize(file).unwrap();
            tensors.names().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let place = |file: &'static str, names: Vec<String>| names.into_iter().map(move |name| (name, file));
        let map: std::collections::BTreeMap<String, &str> =
            place("a.safetensors", names(&tensors)).chain(place("b.safetensors", names(&training))).collect();
        let index = serde_json::to_vec(&serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map})).unwrap();
        let index = change.apply(index, usize::MAX);
        let files = [
            ("model.safetensors.index.json", &index[..]),
            ("a.safetensors", &tensors[..]),
            ("b.safetensors", &training[..]),
        ];
        let (_folder, checkpoint) = opened(&files);
        if let Ok(checkpoint) = checkpoint {
            for (name, entry) in checkpoint.tensors() {
                let shards = [&tensors, &training].map(|file| SafeTensors::deserialize(file).unwrap());
                let mut found = shards.iter().filter_map(|shard| shard.tensor(name).ok());
                prop_assert!(found.any(|view| view.data() == checkpoint.bytes(entry)), "{}", name);
            }
        }
    }

    #[test]
    fn a_changed_llama2_c_model_is_refused_or_no_larger_than_its_file(
        weights in change(), tokenizer in prop::option::weighted(0.5, change()),
    ) {
        let (file, bin) = llama2c();
        let file = weights.apply(file, 28);
        let bin = tokenizer.map_or(bin.clone(), |change| change.apply(bin, usize::MAX));
        if let Ok(checkpoint) = converted(&file, Some(&bin)) {
            prop_assert!(checkpoint.parameters() * 4 <= file.len() as u64);
        }
    }
}

/// What is held for each byte is most where each byte is a value.
#[test]
fn the_densest_files_are_bounded_too() {
    let before = [
        &b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."[..],
        b"\x80\x02\x8a\x02\xe9\x03.",
        b"\x80\x02}X\x0d\0\0\0little_endian\x88s.",
    ]
    .concat();
    for code in [&b")"[..], b")\x94", b"}", b"]", b"(", b"N"] {
        let error = converted(&[&before[..], &code.repeat(1 << 19)].concat(), None).unwrap_err();
        assert!(error.message.contains("its pickle cannot be read"), "{error}");
    }
    let tensor =
        |n: usize| (format!("{n:x}"), serde_json::json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}));
    let header = serde_json::to_vec(&(0..10_000).map(tensor).collect::<serde_json::Map<_, _>>()).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    assert_eq!(converted(&file, None).unwrap().tensors().count(), 10_000);
    assert_eq!(opened(&[("model.safetensors", &file)]).1.unwrap().tensors().count(), 10_000);
}

#[test]
fn converting_holds_a_block_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let count = 8 << 20;
    let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{count}],"data_offsets":[0,{}]}}}}"#, 4 * count);
    let source = folder.path().join("source");
    let mut bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    bytes.resize(bytes.len() + 4 * count, 0);
    fs::write(&source, bytes).unwrap();
    let half = Conversion {
        source,
        folder: folder.path().join("out"),
        precision: Some(Precision::Bf16),
        ..Conversion::default()
    };
    let (converted, most) = peak(|| convert(&half, &|_| {}));
    assert!(converted.unwrap().bytes > 2 * count as u64 && most < 4 << 20, "{most} bytes");
}

/// A Llama of 11 GB: as a sparse file it takes none.
#[test]
fn the_memory_that_a_model_needs_is_known_from_headers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 4, "num_attention_heads": 64,
        "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let mut tensors: Vec<(String, Vec<u64>)> = vec![
        ("model.embed_tokens.weight".to_owned(), vec![128_256, 8192]),
        ("model.norm.weight".into(), vec![8192]),
        ("lm_head.weight".into(), vec![128_256, 8192]),
    ];
    for layer in 0..4 {
        for (name, shape) in [
            ("input_layernorm", vec![8192]),
            ("post_attention_layernorm", vec![8192]),
            ("self_attn.q_proj", vec![8192, 8192]),
            ("self_attn.k_proj", vec![1024, 8192]),
            ("self_attn.v_proj", vec![1024, 8192]),
            ("self_attn.o_proj", vec![8192, 8192]),
            ("mlp.gate_proj", vec![28_672, 8192]),
            ("mlp.up_proj", vec![28_672, 8192]),
            ("mlp.down_proj", vec![8192, 28_672]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let mut end = 0u64;
    let mut header = serde_json::Map::new();
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(name, serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    let weights = folder.path().join("model.safetensors");
    fs::write(&weights, [&(header.len() as u64).to_le_bytes()[..], &header].concat()).unwrap();
    let length = 8 + header.len() as u64 + end;
    fs::File::options().write(true).open(&weights).unwrap().set_len(length).unwrap();

    let (manifest, most) = peak(|| inspect(&ModelName::new("large").unwrap(), folder.path()));
    let manifest = manifest.unwrap();
    assert_eq!(manifest.weight_bytes, length);
    // Weights, and the cache's keys and values: two of 1024 f16 in each layer for a token.
    let cache = manifest.spec.generator.unwrap().cache_tokens * 4 * 2 * 1024 * 2;
    let needed = manifest.spec.memory_bytes;
    assert!(length > 10 << 30 && needed >= length + cache && needed < length + cache + (1 << 30), "{needed}");
    assert!(most < 4 << 20, "{most} bytes were held");
}
