//! PyTorch files, written here opcode by opcode: right ones, and hostile ones.

use proptest::prelude::*;

use super::{read_archive, read_legacy, *};

/// A pickle's opcodes one after the other.
#[derive(Clone, Default)]
struct Pickled(Vec<u8>);

impl Pickled {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    fn int(self, value: usize) -> Self {
        self.raw(b"\x8a\x08").raw(&(value as u64).to_le_bytes())
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    fn sizes(self, sizes: &[usize]) -> Self {
        sizes.iter().fold(self.raw(b"("), |pickled, &size| pickled.int(size)).raw(b"t")
    }

    fn tensor(
        self,
        kind: &str,
        key: &str,
        count: usize,
        offset: usize,
        (shape, strides): (&[usize], &[usize]),
    ) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"(")
            .raw(b"(")
            .text("storage")
            .global("torch", kind)
            .text(key)
            .text("cuda:0")
            .int(count)
            .raw(b"tQ")
            .int(offset)
            .sizes(shape)
            .sizes(strides)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }

    fn stop(self) -> Vec<u8> {
        [b"\x80\x02", &self.0[..], b"."].concat()
    }
}

fn pickled() -> Pickled {
    Pickled::default()
}

/// Two tensors over one storage of twelve f32, one of them transposed, and a half.
fn weights() -> Pickled {
    let first = pickled().global("collections", "OrderedDict").raw(b")R(");
    first
        .text("whole")
        .tensor("FloatStorage", "0", 12, 0, (&[3, 4], &[4, 1]))
        .text("turned")
        .tensor("FloatStorage", "0", 12, 4, (&[4, 2], &[1, 4]))
        .text("half")
        .global("torch._utils", "_rebuild_parameter")
        .raw(b"(")
        .tensor("HalfStorage", "7", 1, 0, (&[], &[]))
        .raw(b"\x88")
        .global("collections", "OrderedDict")
        .raw(b")RtR")
        .raw(b"u")
        // The attributes that a module's state dict carries.
        .raw(b"}(")
        .text("_metadata")
        .raw(b"}ub")
}

fn storages() -> [(&'static str, Vec<u8>); 2] {
    let floats = (0..12).flat_map(|n| (n as f32).to_le_bytes()).collect();
    [("0", floats), ("7", half::f16::from_f32(0.5).to_le_bytes().to_vec())]
}

/// A zip archive of stored entries.
fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let numbers = [crc32fast::hash(bytes), bytes.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
        let name_length = (name.len() as u16).to_le_bytes();
        let at = (file.len() as u32).to_le_bytes();
        file.extend(
            [&b"PK\x03\x04\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"[..], &numbers, &name_length, &[3, 0]].concat(),
        );
        file.extend([name.as_bytes(), b"FB\0", bytes].concat());
        let fixed =
            [&b"PK\x01\x02\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"[..], &numbers, &name_length].concat();
        directory.extend([&fixed[..], &[0; 12], &at, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (size, at) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &size, &at, &[0, 0]].concat()
}

fn archive(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let names: Vec<String> = storages.iter().map(|storage| format!("archive/data/{}", storage.0)).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("archive/data.pkl", pickle), ("archive/byteorder", b"little")];
    entries.extend(names.iter().zip(storages).map(|(name, storage)| (name.as_str(), &storage.1[..])));
    zipped(&entries)
}

fn legacy(pickle: &[u8], storages: &[(&str, Vec<u8>)], sizes: &[usize]) -> Vec<u8> {
    let system = pickled().raw(b"}(").text("little_endian").raw(b"\x88u").stop();
    let keys = storages.iter().fold(pickled().raw(b"]("), |keys, storage| keys.text(storage.0)).raw(b"e").stop();
    let mut file = [LEGACY_MAGIC, &pickled().int(1001).stop(), &system, pickle, &keys].concat();
    for ((_, bytes), size) in storages.iter().zip(sizes) {
        file.extend((bytes.len() / size).to_le_bytes());
        file.extend(bytes);
    }
    file
}

/// Name, shape and values of each tensor.
fn values(file: &[u8], tensors: &Tensors) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let value = |(name, view): &(String, View)| {
        let mut floats = Vec::new();
        view.runs().for_each(|run| view.element.extend_f32(&file[run], &mut floats));
        (name.clone(), view.shape.clone(), floats)
    };
    tensors.views.iter().map(value).collect()
}

#[test]
fn both_forms_give_the_same_tensors_whatever_their_strides() {
    let want = vec![
        ("whole".to_owned(), vec![3, 4], (0..12).map(|n| n as f32).collect()),
        ("turned".to_owned(), vec![4, 2], vec![4.0, 8.0, 5.0, 9.0, 6.0, 10.0, 7.0, 11.0]),
        ("half".to_owned(), vec![], vec![0.5]),
    ];
    let pickle = weights().stop();
    let file = archive(&pickle, &storages());
    assert_eq!(values(&file, &read_archive(&file, None).unwrap()), want);
    let file = legacy(&pickle, &storages(), &[4, 2]);
    assert_eq!(values(&file, &read_legacy(&file, None).unwrap()), want);
}

fn chosen(root: Pickled, key: Option<&str>) -> Result<(Vec<String>, Option<String>, Vec<String>)> {
    let file = archive(&root.stop(), &storages());
    let Tensors { views, key, left_out } = read_archive(&file, key)?;
    Ok((views.into_iter().map(|view| view.0).collect(), key, left_out))
}

#[test]
fn the_dict_that_holds_the_weights_is_found_or_must_be_named() {
    let tensor = |pickled: Pickled| pickled.tensor("HalfStorage", "7", 1, 0, (&[1], &[1]));
    let one = |pickled: Pickled, name: &str| tensor(pickled.raw(b"}(").text(name)).raw(b"u");
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let beside = |first, second| {
        let root = one(pickled().raw(b"}(").text("epoch").int(3).text(first), "a");
        one(root.text(second), "b").raw(b"u")
    };
    let key = |key: &str| Some(key.to_owned());
    assert_eq!(
        chosen(beside("optimizer", "model_state_dict"), None),
        Ok((names(&["b"]), key("model_state_dict"), names(&["optimizer"])))
    );
    assert_eq!(chosen(beside("ema", "net"), Some("ema")), Ok((names(&["a"]), key("ema"), names(&["net"]))));
    let error = chosen(beside("ema", "net"), None).unwrap_err();
    assert!(error.message.contains("'ema', 'net'"), "{error}");
    let error = chosen(beside("ema", "net"), Some("model")).unwrap_err();
    assert!(error.message.contains("'model'") && error.message.contains("'ema', 'net'"), "{error}");
    // A root with tensors of its own is taken whole; lists number what they hold.
    let root = tensor(one(pickled().raw(b"}(").text("part"), "a").text("own"));
    let root = tensor(root.text("list").raw(b"](").raw(b"N")).raw(b"eu");
    assert_eq!(chosen(root, None), Ok((names(&["part.a", "own", "list.1"]), None, names(&[]))));
    for (root, words) in [
        (pickled().raw(b"}"), "holds no tensors"),
        (pickled().raw(b"]"), "holds a list"),
        (tensor(tensor(pickled().raw(b"}(").text("a")).text("a")).raw(b"u"), "'a' is there twice"),
    ] {
        let error = chosen(root, None).unwrap_err();
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn what_is_not_a_tensor_is_refused_by_its_name() {
    let stacked = |module: &str, name: &str| pickled().text(module).text(name).raw(b"\x93");
    for (pickle, words) in [
        (pickled().global("os", "system").text("id").raw(b"\x85R"), "'os.system'"),
        (stacked("builtins", "eval"), "'builtins.eval'"),
        (pickled().global("torch", "load"), "'torch.load'"),
        (pickled().global("torch.jit._pickle", "restore_type_tag"), "'torch.jit._pickle.restore_type_tag'"),
        (pickled().global("collections", "OrderedDict\u{0}"), "OrderedDict"),
        (pickled().raw(b"(").text("id").raw(b"ios\nsystem\n"), "'os.system'"),
        (pickled().raw(b"(icollections\nOrderedDict\n"), "opcode 0x69 at byte"),
        (pickled().global("collections", "OrderedDict").raw(b")\x81"), "opcode 0x81"),
        (pickled().global("torch", "FloatStorage").raw(b")R"), "makes a storage of F32"),
        (pickled().text("os").raw(b")R"), "it calls text"),
        (pickled().raw(b"]}b"), "sets attributes of a list"),
        (pickled().raw(b"}(").int(1).raw(b"u"), "a key without a value"),
        (pickled().raw(b")("), "takes a value that is not there"),
        (pickled().raw(b"h\x05"), "recalls value 5"),
        (pickled().raw(b"X\xff\xff\xff\xff"), "declares 4294967295 bytes, 1 are left"),
        (pickled().raw(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "declares"),
        (pickled().raw(b"\x80\x09"), "protocol 9"),
        (pickled().raw(&b"N0".repeat(1 << 21)), "more than 2097152 steps"),
        (pickled().raw(&b"]".repeat(1 << 16)).raw(&b"a".repeat(1 << 16)), "bytes in memory, at most"),
        (pickled().raw(&b")0".repeat(1 << 20)), "bytes in memory, at most"),
        (pickled().tensor("FloatStorage", "0", 12, 0, (&[1 << 40], &[0])), "a dict of tensors"),
    ] {
        let error = chosen(pickle, None).unwrap_err();
        assert!(error.message.contains(words), "{words}: {error}");
    }
}

#[test]
fn tensors_that_lie_about_their_storage_are_refused() {
    let big = usize::MAX / 2;
    for (count, offset, shape, strides, words) in [
        (12, 0, vec![13], vec![1], "more elements than the 12"),
        (12, 1, vec![12], vec![1], "beyond the 12"),
        (12, 0, vec![1 << 40], vec![0], "more elements"),
        (12, 0, vec![2], vec![big], "beyond the 12"),
        (13, 0, vec![2], vec![1], "has 48 bytes for 13 elements"),
        (big, 0, vec![2], vec![1], "elements of F32"),
        (12, 0, vec![2, 2], vec![1], "2 sizes and 1 strides"),
        (12, 0, vec![usize::MAX], vec![1], "whole numbers from 0 up"),
    ] {
        let root =
            pickled().raw(b"}(").text("x").tensor("FloatStorage", "0", count, offset, (&shape, &strides)).raw(b"u");
        for legacy_form in [false, true] {
            // The old form says the count twice.
            if legacy_form && count != 12 {
                continue;
            }
            let pickle = root.clone().stop();
            let error = match legacy_form {
                true => read_legacy(&legacy(&pickle, &storages()[..1], &[4]), None).err().unwrap(),
                false => read_archive(&archive(&pickle, &storages()), None).err().unwrap(),
            };
            assert!(error.message.contains(words), "{words}: {error}");
        }
    }
}

#[test]
fn what_holds_itself_or_doubles_ends() {
    // d["d"] = d, beside a tensor.
    let itself = pickled().raw(b"}q\x00(").text("d").raw(b"h\x00").text("t");
    let itself = itself.tensor("HalfStorage", "7", 1, 0, (&[], &[])).raw(b"u");
    assert_eq!(chosen(itself, None).unwrap().0, ["t"]);
    // Forty lists, each twice in the next.
    let mut doubling = pickled().raw(b"}(").text("t").tensor("HalfStorage", "7", 1, 0, (&[], &[])).raw(b"]q\x000");
    for depth in 0..40 {
        doubling = doubling.raw(&[b']', b'q', depth + 1, b'(', b'h', depth, b'h', depth, b'e', b'0']);
    }
    let error = chosen(doubling.text("l").raw(b"h\x28u"), None).unwrap_err();
    assert!(error.message.contains("containers deep"), "{error}");
}

#[test]
fn names_that_many_paths_share_do_not_grow_without_end() {
    let long = "k".repeat(1 << 20);
    let mut root = pickled().raw(b"}(").text("m").raw(b"}(").text(&long).raw(b"}(");
    for n in 0..64 {
        root = root.int(n).tensor("HalfStorage", "7", 1, 0, (&[], &[]));
    }
    let error = chosen(root.raw(b"uuu"), None).unwrap_err();
    assert!(error.message.contains("names take more than"), "{error}");
}

#[test]
fn tensors_that_share_a_storage_cannot_grow_without_end() {
    let mut root = pickled().raw(b"}(");
    for n in 0..1000 {
        root = root.int(n).tensor("FloatStorage", "0", 1 << 16, 0, (&[1 << 16], &[1]));
    }
    let file = archive(&root.raw(b"u").stop(), &[("0", vec![0; 4 << 16])]);
    let error = read_archive(&file, None).err().unwrap();
    assert!(error.message.contains("bytes of tensors in 262144 of storages"), "{error}");
}

#[test]
fn damaged_archives_are_named() {
    let pickle = weights().stop();
    let whole = archive(&pickle, &storages());
    let with = |find: &[u8], replace: &[u8]| {
        let at = whole.windows(find.len()).rposition(|window| window == find).unwrap();
        [&whole[..at], replace, &whole[at + find.len()..]].concat()
    };
    for (file, words) in [
        (whole[..whole.len() - 40].to_vec(), "cut off"),
        (with(&1f32.to_le_bytes(), &2f32.to_le_bytes()), "'archive/data/0' is damaged"),
        (with(b"archive/data.pkl", b"archive/data.pkx"), "without data.pkl"),
        (zipped(&[("a/b", b"c")]), "without data.pkl"),
        (zipped(&[("a/data.pkl", &pickle), ("a/byteorder", b"big")]), "not little-endian"),
        (zipped(&[("a/data.pkl", &pickle)]), "entry 'a/data/0' is missing"),
        (zipped(&[("a", b""), ("a", b"")]), "there twice"),
        (with(b"PK\x01\x02\0\0\0\0\0\x08\0\0", b"PK\x01\x02\0\0\0\0\0\x08\x08\0"), "is compressed (method 8)"),
        (with(b"PK\x01\x02\0\0\0\0\0\x08", b"PK\x01\x02\0\0\0\0\x01\x08"), "is encrypted"),
    ] {
        let error = read_archive(&file, None).err().unwrap();
        assert!(error.message.contains(words), "{words}: {error}");
    }
}

/// Whatever passes must lie inside the file.
fn inside(file: &[u8], tensors: Result<Tensors>) -> bool {
    tensors.is_ok_and(|tensors| {
        let runs = tensors.views.iter().flat_map(|view| view.1.runs());
        runs.fold(true, |all, run| all && run.start <= run.end && run.end <= file.len())
    })
}

proptest! {
    #[test]
    fn changed_and_cut_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(), cuts in any::<bool>(), old in any::<bool>(),
    ) {
        let pickle = weights().stop();
        let mut file = if old { legacy(&pickle, &storages(), &[4, 2]) } else { archive(&pickle, &storages()) };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if cuts {
            file.truncate(cut.index(file.len()));
        }
        let read = if old { read_legacy(&file, None) } else { read_archive(&file, None) };
        prop_assert!(read.is_err() || inside(&file, read));
    }

    #[test]
    fn changed_pickles_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        // The checksum is made to fit, so that the pickle is reached.
        let mut pickle = weights().stop();
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let file = archive(&pickle, &storages());
        let read = read_archive(&file, None);
        prop_assert!(read.is_err() || inside(&file, read));
    }

    #[test]
    fn opcodes_in_any_order_never_panic(codes in prop::collection::vec(any::<u8>(), 0..300)) {
        let common = b"(}])tueasqhrjNKMJXcQRb.\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95";
        let bytes: Vec<u8> = codes.iter().map(|&code| common.get(usize::from(code) / 2).copied().unwrap_or(code)).collect();
        if let Ok(pickle) = pickle::unpickle(&bytes, bytes.len()) {
            prop_assert!(pickle.length <= bytes.len());
            let _ = state_dict::choose(&pickle, None);
        }
    }
}
