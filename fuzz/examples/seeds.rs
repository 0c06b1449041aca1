//! Writes what fuzzing begins with, made by the encoders: `cargo run --example seeds [FOLDER]`.

use std::{error::Error, fs, path::Path};

use orion_fuzz::{ELEMENTS, repeated};
use orion_net::{
    Attempt, AttemptDelta, AttemptResult, Batch, BatchResult, Outbox, encode_batch, encode_deltas, encode_probe,
    encode_result,
};
use orion_net::{
    artifact::{Artifact, Chunk, Difference, Encoded, File, Hash, Manifest, Signer, Tensor},
    codec::{Codec, Coder, Element},
};
use orion_proto::{Code, Datatype, Delta, InferAnswer, InferRequest, ModelName, Payload, Sequence, Tensor as Numbers};
use prost::Message;

/// Made for this alone.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIL8/oIPnSwNx6x3IF023v3EmXtrHumkAlg3pkAGp0yJI
-----END PRIVATE KEY-----
";

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "corpus".into());
    let write = |target: &str, name: &str, parts: &[&[u8]]| -> Outcome {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), parts.concat())?)
    };
    chunks(&write)?;
    differences(&write)?;
    artifacts(&write)?;
    files(&write)?;
    transfers(&write)?;
    for length in [0usize, 1, 8, 9, 64, 70, 4097] {
        let mut bytes = repeated(&[0x5a, 0xff, 0], length.div_ceil(8));
        if let Some(last) = bytes.last_mut().filter(|_| length % 8 > 0) {
            *last &= (1 << (length % 8)) - 1;
        }
        write("bitmap", &format!("{length}"), &[&short(length), &bytes])?;
    }
    Ok(())
}

/// A length as the targets read it.
fn short(length: usize) -> [u8; 2] {
    (length as u16).to_le_bytes()
}

/// The upper bytes of numbers around zero, as trained weights are.
fn weights(element: Element, count: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let numbers = std::iter::repeat_with(|| ((next() + next() + next()) * 0.1).to_le_bytes()).take(count);
    numbers.flat_map(|bytes| bytes[4 - element.width()..].to_vec()).collect()
}

/// Chunks of some kinds: numbers, a text, zeros but for some, and all alike.
fn kinds(element: Element) -> [(&'static str, Vec<u8>); 4] {
    let mut sparse = vec![0; 4000];
    (0..sparse.len()).step_by(331).for_each(|at| sparse[at] = at as u8);
    [
        ("numbers", weights(element, 600)),
        ("text", repeated(b"a text. ", 90)),
        ("sparse", sparse),
        ("alike", vec![9; 61]),
    ]
}

fn chunks(write: &impl Fn(&str, &str, &[&[u8]]) -> Outcome) -> Outcome {
    for ((place, codec), (number, element)) in
        Codec::ALL.iter().enumerate().flat_map(|codec| ELEMENTS.iter().enumerate().map(move |element| (codec, element)))
    {
        let kinds = kinds(*element);
        // What elements are matters to one codec alone.
        let kinds = if *codec == Codec::Weights { &kinds[..] } else { &kinds[number..][..1] };
        for (kind, raw) in kinds {
            let mut encoded = Vec::new();
            Coder::default().encode(*codec, *element, raw, &mut encoded)?;
            let (name, head) = (format!("{codec}-{element:?}-{kind}").to_lowercase(), [place as u8, number as u8]);
            write("decode", &name, &[&head, &short(raw.len()), &encoded])?;
            write("round_trip", &name, &[&head, &[(raw.len() < 100).into()], raw])?;
        }
    }
    Ok(())
}

fn differences(write: &impl Fn(&str, &str, &[&[u8]]) -> Outcome) -> Outcome {
    for (number, element) in ELEMENTS.into_iter().enumerate() {
        for (kind, base) in kinds(element) {
            let base = &base[..base.len().min(801)];
            let mut few = base.to_vec();
            few.iter_mut().step_by(190).for_each(|byte| *byte = byte.wrapping_add(1));
            let mut all = base.to_vec();
            all.iter_mut().step_by(element.width()).for_each(|byte| *byte ^= 3);
            let other = base.iter().rev().copied().collect();
            for (change, raw) in [("same", base.to_vec()), ("few", few), ("all", all), ("other", other)] {
                let (mut encoded, name) = (Vec::new(), format!("{element:?}-{kind}-{change}").to_lowercase());
                Coder::default().encode_difference(element, base, &raw, &mut encoded)?;
                let lengths = [short(raw.len()), short(base.len())].concat();
                write("difference", &name, &[&[number as u8], &lengths, base, &encoded])?;
                write("round_trip", &format!("difference-{name}"), &[&[7, number as u8, 0], base, &raw])?;
            }
        }
    }
    Ok(())
}

fn artifacts(write: &impl Fn(&str, &str, &[&[u8]]) -> Outcome) -> Outcome {
    let key = std::env::temp_dir().join(format!("orion-seeds-{}.pem", std::process::id()));
    fs::write(&key, PRIVATE_KEY)?;
    let signer = Signer::from_file(&key);
    fs::remove_file(&key)?;
    let signer = signer?;
    let address = |number: u8| Hash::from_bytes([number; 32]);
    for count in [0u8, 1, 3] {
        for (has_encoded, has_base) in [(false, false), (true, false), (true, true)] {
            let chunk = |number: u8| Chunk {
                bytes: 10 + u32::from(number),
                address: address(number),
                element: ELEMENTS[usize::from(number) % ELEMENTS.len()],
                encoded: has_encoded.then(|| Encoded {
                    codec: Codec::ALL[usize::from(number) % Codec::ALL.len()],
                    bytes: 9,
                    hash: address(100 + number),
                }),
                difference: has_base.then(|| Difference { base: address(50), bytes: 1, hash: address(200 + number) }),
            };
            let tensor =
                |start| Tensor { name: "t".into(), datatype: "BF16".into(), shape: vec![2, 2], start, bytes: 8 };
            let file = |number: u8| File {
                path: format!("a{number}/model.safetensors"),
                tensors: vec![tensor(0), tensor(8)],
                chunks: vec![chunk(number), chunk(5), chunk(number)],
            };
            let manifest = Manifest {
                name: ModelName::new("m")?,
                version: ModelName::new("1")?,
                files: (0..count).map(file).collect(),
                chunk_bytes: 100,
                base: has_base.then(|| address(1)),
            };
            // What must be refused is near at hand too.
            let hostile = [("..", "../x"), ("root", "/x"), ("twice", "a0/model.safetensors"), ("backslash", "a\\x")];
            for (name, path) in hostile.into_iter().filter(|_| count == 3 && !has_encoded) {
                let mut manifest = manifest.clone();
                manifest.files[1].path = path.into();
                write("artifact", &format!("hostile-{name}"), &[&manifest.encode()])?;
            }
            let name = format!("{count}-{has_encoded}-{has_base}");
            write("artifact", &format!("manifest-{name}"), &[&manifest.encode()])?;
            write("artifact", &format!("plain-{name}"), &[&Artifact::new(manifest.clone(), None).encode()])?;
            write("artifact", &format!("signed-{name}"), &[&Artifact::new(manifest, Some(&signer)).encode()])?;
        }
    }
    Ok(())
}

fn files(write: &impl Fn(&str, &str, &[&[u8]]) -> Outcome) -> Outcome {
    // The name of each number, its bytes, and how many sevens of them: one tensor is empty.
    let tensors = [("F32", 4, 36), ("BF16", 2, 1), ("F16", 2, 4), ("U8", 1, 0), ("F64", 8, 9), ("BOOL", 1, 25)];
    for count in 0..=tensors.len() {
        let (mut header, mut bytes) = (vec!["\"__metadata__\":{\"format\":\"pt\"}".to_owned()], 0);
        for (index, (datatype, width, sevens)) in tensors[..count].iter().enumerate() {
            let begin = bytes;
            bytes += 7 * sevens * width;
            header.push(format!(
                "\"t{index}\":{{\"dtype\":\"{datatype}\",\"shape\":[7,{sevens}],\"data_offsets\":[{begin},{bytes}]}}"
            ));
        }
        let header = format!("{{{}}}", header.join(","));
        let data = repeated(b"numbers of it", bytes);
        for most in [4, 101, 2000] {
            let length = (header.len() as u64).to_le_bytes();
            write("tensors", &format!("{count}-{most}"), &[&short(most), &length, header.as_bytes(), &data])?;
        }
    }
    for (name, most, length) in [("other", 1024, 5000), ("short", 200, 700)] {
        write("tensors", name, &[&short(most), &weights(Element::Bytes, length)])?;
    }
    Ok(())
}

fn transfers(write: &impl Fn(&str, &str, &[&[u8]]) -> Outcome) -> Outcome {
    let numbers = |count: usize| Numbers::new("x", Datatype::Fp32, vec![count as i64], vec![3; count * 4].into());
    let mut request = InferRequest { inputs: vec![numbers(3)?, numbers(5)?], ..Default::default() };
    request.parameters.truncate = true;
    request.parameters.sequence = Some(Sequence { key: 8, start: true, end: false });
    let attempts = vec![Attempt { attempt: 1, request: request.clone().into() }];
    let batch = Batch { batch: 9, epoch: 4, model: "m".into(), device: "cpu0".into(), attempts };
    let delta = Delta { text: "one".into(), tokens: vec![3], ..Delta::default() };
    let answer = InferAnswer { outputs: request.inputs, usage_tokens: 11, delta: Some(delta.clone()) };
    let outcomes = [Ok(answer), Err(orion_proto::Error::new(Code::ResourceExhausted, "full"))].into_iter();
    let results = outcomes.map(|outcome| AttemptResult { attempt: 1, not_started: false, outcome }).collect();
    let result =
        BatchResult { batch: 9, epoch: 4, service_seconds: 0.5, rows: 1, waited_seconds: 0.25, peak_bytes: 7, results };
    let deltas = encode_deltas(4, vec![AttemptDelta { batch: 9, attempt: 1, delta }]);
    let all = [
        ("batch", encode_batch(&batch)),
        ("result", encode_result(result)),
        ("deltas", (deltas, Vec::new())),
        ("probe", (encode_probe(5), Vec::new())),
    ];
    let mut together = Outbox::default();
    for (name, (header, payload)) in all {
        let joined: Vec<u8> = payload.iter().flat_map(|part| part.contiguous().to_vec()).collect();
        write("transfers", name, &[&[0], &short(header.len()), &header, &joined])?;
        let mut outbox = Outbox::default();
        for outbox in [&mut outbox, &mut together] {
            outbox.push(header.clone(), payload.iter().cloned().collect::<Vec<Payload>>());
        }
        let frame = outbox.next_frame().unwrap_or_default();
        write("transfers", &format!("frame-{name}"), &[&[1], &frame.encode_to_vec()])?;
    }
    write("transfers", "frame", &[&[1], &together.next_frame().unwrap_or_default().encode_to_vec()])
}
