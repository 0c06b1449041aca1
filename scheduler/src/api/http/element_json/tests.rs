use super::*;
use orion_proto::{Payload, encode_bytes_elements};
use proptest::prelude::*;

const IN_JSON: [Datatype; 12] = [
    Datatype::Bool,
    Datatype::Uint8,
    Datatype::Uint16,
    Datatype::Uint32,
    Datatype::Uint64,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::Fp32,
    Datatype::Fp64,
    Datatype::Bytes,
];

/// Bytes that are a tensor of this datatype which JSON can carry: finite floats, real booleans.
fn tensor(datatype: Datatype, seed: &[u64], text: &[String]) -> Tensor {
    let data: Vec<u8> = match datatype {
        Datatype::Bytes => encode_bytes_elements(text).to_vec(),
        Datatype::Bool => seed.iter().map(|v| (v % 2) as u8).collect(),
        Datatype::Fp32 => {
            seed.iter().map(|v| f32::from_bits(*v as u32)).flat_map(|v| finite32(v).to_le_bytes()).collect()
        }
        Datatype::Fp64 => seed.iter().map(|v| f64::from_bits(*v)).flat_map(|v| finite64(v).to_le_bytes()).collect(),
        _ => seed.iter().flat_map(|v| v.to_le_bytes()[..datatype.size().unwrap()].to_vec()).collect(),
    };
    let count = if datatype == Datatype::Bytes { text.len() } else { seed.len() };
    Tensor::new("x", datatype, vec![count as i64], Payload::from(data)).unwrap()
}

fn finite32(value: f32) -> f32 {
    if value.is_finite() { value } else { f32::MAX }
}

fn finite64(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::MIN_POSITIVE }
}

proptest! {
    #[test]
    fn tensors_survive_json_bit_for_bit(
        which in 0..IN_JSON.len(),
        seed in prop::collection::vec(any::<u64>(), 0..40),
        text in prop::collection::vec(any::<String>(), 0..10),
        rows in 1usize..4,
    ) {
        let sent = tensor(IN_JSON[which], &seed, &text);
        let mut json = Vec::new();
        write(&mut json, &sent).unwrap();
        let json = String::from_utf8(json).unwrap();
        let values: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(&json).unwrap();
        let nested = serde_json::to_string_pretty(&values.chunks(rows).collect::<Vec<_>>()).unwrap();
        let count = sent.shape[0] as usize;
        for form in [json, nested] {
            let back = parse("x", sent.datatype, count, &form).unwrap();
            prop_assert_eq!(back, sent.data.contiguous());
        }
    }

    #[test]
    fn no_well_formed_json_panics(json in "[\\[\\]{},:\"\\\\a1.e-]{0,40}", which in 0..IN_JSON.len(), count in 0usize..5) {
        if let Ok(raw) = serde_json::from_str::<&serde_json::value::RawValue>(&json) {
            let _ = parse("x", IN_JSON[which], count, raw.get());
        }
        // Even text that nobody has checked must not panic.
        let _ = parse("x", IN_JSON[which], count, &json);
    }
}

#[test]
fn what_does_not_fit_the_datatype_is_named() {
    let message = |datatype, json| parse("x", datatype, 1, json).unwrap_err().message;
    assert_eq!(message(Datatype::Uint8, "[256]"), "input 'x' holds 256 as element 0, which is no UINT8");
    for (datatype, json) in [
        (Datatype::Int8, "[-129]"),
        (Datatype::Uint64, "[-1]"),
        (Datatype::Int64, "[9223372036854775808]"),
        (Datatype::Int32, "[1.0]"),
        (Datatype::Int32, "[1e3]"),
        (Datatype::Int32, "[\"1\"]"),
        (Datatype::Fp32, "[1e39]"),
        (Datatype::Fp64, "[1e309]"),
        (Datatype::Fp32, "[null]"),
        (Datatype::Fp32, "[\"inf\"]"),
        (Datatype::Bool, "[1]"),
        (Datatype::Bytes, "[1]"),
        (Datatype::Bytes, r#"["\ud800"]"#),
    ] {
        assert!(message(datatype, json).contains("element 0, which is no"), "{datatype} {json}");
    }
    assert!(message(Datatype::Fp32, "[{\"a\":1}]").contains("an object"));
    assert!(message(Datatype::Fp32, "{}").contains("no JSON array"));
    assert!(message(Datatype::Fp32, "[1,2]").contains("more than the 1 elements"));
    assert!(message(Datatype::Fp32, "[[],[]]").contains("holds 0 elements, its shape says 1"));
    assert!(message(Datatype::Fp16, "[1]").contains("binary data only"));
    assert!(parse("x", Datatype::Fp32, usize::MAX, "[1]").is_err());
    let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
    assert!(message(Datatype::Fp32, &deep).contains("over 64 deep"));
}

#[test]
fn floats_that_json_lacks_are_written_as_python_reads_them() {
    let mut out = Vec::new();
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1, -0.0];
    floats(&mut out, &values.map(f32::to_le_bytes).concat());
    assert_eq!(String::from_utf8(out).unwrap(), "[NaN,Infinity,-Infinity,0.1,-0.0]");
}
