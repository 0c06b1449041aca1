use super::*;
use orion_proto::{Code, Priority};
use proptest::prelude::*;

fn json(text: &str) -> Result<(InferRequest, OutputForms)> {
    parse("m".into(), String::new(), None, Bytes::copy_from_slice(text.as_bytes()))
}

fn binary(text: &str, tail: &[u8]) -> Result<(InferRequest, OutputForms)> {
    let body: Bytes = [text.as_bytes(), tail].concat().into();
    parse("m".into(), String::new(), Some(text.len()), body)
}

#[test]
fn a_request_as_tritonclient_writes_it() {
    let text = r#"{"id":"7","parameters":{"priority":2,"timeout":1500,"sequence_id":9,"binary_data_output":true},
        "inputs":[{"name":"a","shape":[2,1],"datatype":"FP32","data":[[1],[2.5]]},
                  {"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}},
                  {"data":["x"],"name":"c","shape":[1],"datatype":"BYTES"}],
        "outputs":[{"name":"y","parameters":{"binary_data":false}},{"name":"z"}],"unknown":[[{}]]}"#;
    let tail = b"\x01\0\0\0p\x02\0\0\0qr";
    let body: Bytes = [text.as_bytes(), tail].concat().into();
    let place = body[text.len()..].as_ptr();
    let (request, forms) = parse("m".into(), "3".into(), Some(text.len()), body).unwrap();
    assert_eq!((request.id.as_str(), request.version.as_str()), ("7", "3"));
    assert_eq!(request.parameters.priority, Priority::Critical);
    assert_eq!(request.parameters.timeout, Some(std::time::Duration::from_micros(1500)));
    assert_eq!(request.inputs[0].data.contiguous(), [1f32, 2.5].map(f32::to_le_bytes).concat());
    assert_eq!(request.inputs[1].data.contiguous(), tail.as_slice());
    assert_eq!(request.inputs[1].data.contiguous().as_ptr(), place, "binary tensors are not copied");
    assert_eq!(request.inputs[2].data.contiguous(), b"\x01\0\0\0x".as_slice());
    assert_eq!(request.outputs, ["y", "z"]);
    assert!(!forms.binary("y") && forms.binary("z"));
}

#[test]
fn hostile_bodies_are_refused_in_words() {
    let one = |input: &str| format!(r#"{{"inputs":[{{"name":"x",{input}}}]}}"#);
    let cases = [
        (String::new(), "EOF"),
        ("[]".into(), "an inference request"),
        ("7".into(), "an inference request"),
        (r#"{"inputs":[7]}"#.into(), "an input tensor"),
        ("{}".into(), "missing field `inputs`"),
        (r#"{"inputs":7}"#.into(), "array of at most 1024"),
        (r#"{"inputs":[],"inputs":[]}"#.into(), "duplicate field"),
        (r#"{"inputs":[],"parameters":{"a":{}}}"#.into(), "a parameter's value"),
        (r#"{"inputs":[],"parameters":{"priority":9}}"#.into(), "priority"),
        (r#"{"inputs":[],"parameters":{"timeout":-1}}"#.into(), "timeout"),
        (r#"{"inputs":[],"parameters":{"binary_data_output":1}}"#.into(), "binary_data_output"),
        (r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#.into(), "asked for twice"),
        (one(r#""shape":[1],"datatype":"FLOAT","data":[1]"#), "datatype 'FLOAT' is unknown"),
        (one(r#""shape":[1],"datatype":"FP32""#), "has no data"),
        (one(r#""shape":[1.5],"datatype":"FP32","data":[1]"#), "expected i64"),
        (one(r#""shape":[-1],"datatype":"FP32","data":[1]"#), "dimension -1"),
        (one(r#""shape":[9223372036854775807,9],"datatype":"FP32","data":[1]"#), "more elements than can be counted"),
        (one(r#""shape":[4611686018427387904],"datatype":"FP32","data":[1]"#), "holds 1 elements"),
        (one(r#""shape":[2],"datatype":"FP32","data":[1]"#), "holds 1 elements, its shape says 2"),
        (one(r#""shape":[1],"datatype":"FP32","data":1"#), "no JSON array"),
        (one(r#""shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}"#), "it must have one"),
        (
            one(r#""shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}"#),
            "inference-header-content-length",
        ),
        (one(r#""shape":[1],"datatype":"FP32","parameters":{"binary_data_size":-4}"#), "whole number of bytes"),
        (one(r#""shape":[1],"datatype":"FP16","data":[1]"#), "binary data only"),
        (format!(r#"{{"inputs":[{{"name":"{}","shape":[1],"datatype":"FP32","data":[1]}}]}}"#, "x".repeat(300)), "256"),
        (one(&format!(r#""shape":[{}],"datatype":"FP32","data":[1]"#, vec!["1"; 65].join(","))), "at most 64"),
        (one(&format!(r#""shape":[1],"datatype":"FP32","data":{}1{}"#, "[".repeat(9000), "]".repeat(9000))), "deep"),
        (format!(r#"{{"inputs":{}"#, "[".repeat(1 << 20)), "expected a string"),
        (format!(r#"{{"parameters":{{"a":{}"#, "[".repeat(1 << 20)), "a parameter's value"),
        (format!(r#"{{"x":{}"#, "[".repeat(1 << 20)), "EOF"),
    ];
    for (text, words) in cases {
        let error = json(&text).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(words), "{words:?} is not in {:?}", error.message);
        assert!(error.message.len() < 600, "a message must not repeat the body");
    }
}

#[test]
fn what_triton_serves_and_this_does_not_is_named() {
    let region = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#;
    let classes = r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#;
    for (text, words) in [(region, "shared memory"), (classes, "classification")] {
        let error = json(text).unwrap_err();
        assert_eq!(error.code, Code::Unimplemented);
        assert!(error.message.contains(words));
    }
}

#[test]
fn binary_sizes_must_add_up_to_the_body() {
    let input = |size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    assert!(binary(&input("4"), &[0; 4]).is_ok());
    for (size, tail, words) in [
        ("4", 3, "only 3 bytes left"),
        ("4", 5, "1 bytes more"),
        ("3", 3, "takes 4 bytes, got 3"),
        ("18446744073709551615", 4, "only 4 bytes left"),
        ("4.0", 4, "whole number"),
        ("\"4\"", 4, "whole number"),
    ] {
        let error = binary(&input(size), &vec![0; tail]).unwrap_err();
        assert!(error.message.contains(words), "{words:?} is not in {:?}", error.message);
    }
    let error = parse("m".into(), String::new(), Some(usize::MAX), Bytes::from_static(b"{}")).unwrap_err();
    assert!(error.message.contains("the body has only 2 bytes"));
    assert!(parse("m".into(), String::new(), Some(1), Bytes::from_static(b"{}")).is_err());
}

proptest! {
    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..80), length in prop::option::of(0usize..100)) {
        let _ = parse("m".into(), String::new(), length, Bytes::from(body));
    }

    #[test]
    fn no_damaged_request_panics(at in 0usize..170, byte in any::<u8>(), length in prop::option::of(0usize..200)) {
        let mut body = br#"{"id":"7","parameters":{"timeout":1},"inputs":[{"name":"a","shape":[2,1],"datatype":"FP32",
            "parameters":{"binary_data_size":8}},{"name":"b","shape":[1],"datatype":"INT8","data":[1]}]}12345678"#.to_vec();
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        let _ = parse("m".into(), String::new(), length, Bytes::from(body));
    }
}
