use super::*;
use http_body_util::BodyExt;
use orion_proto::{Datatype, Payload};

fn rendered(outputs: Vec<Tensor>, id: &str, forms: &OutputForms) -> Result<Response> {
    render("m", "1", outputs, id, forms)
}

fn answer() -> Vec<Tensor> {
    let mut pieces = Payload::from(Bytes::from_static(&[0, 0, 128, 63]));
    pieces.push(Bytes::from_static(&[0, 0, 0, 64]));
    let tensor = |name: &str, datatype, shape, data| Tensor::new(name, datatype, shape, data).unwrap();
    vec![
        tensor("y", Datatype::Fp32, vec![2, 1], pieces),
        tensor("z", Datatype::Bytes, vec![1], Payload::from(Bytes::from_static(b"\x02\0\0\0a\""))),
        tensor("e", Datatype::Fp32, vec![0], Payload::default()),
    ]
}

#[tokio::test]
async fn json_is_what_triton_writes() {
    let response = rendered(answer(), "a\"b", &OutputForms::default()).unwrap();
    assert!(!response.headers().contains_key(HEADER_LENGTH));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let expected = concat!(
        r#"{"id":"a\"b","model_name":"m","model_version":"1","outputs":["#,
        r#"{"name":"y","datatype":"FP32","shape":[2,1],"data":[1.0,2.0]},"#,
        r#"{"name":"z","datatype":"BYTES","shape":[1],"data":["a\""]},"#,
        r#"{"name":"e","datatype":"FP32","shape":[0],"data":[]}]}"#
    );
    assert_eq!(body, expected);
}

#[tokio::test]
async fn binary_pieces_follow_the_json_uncopied() {
    let answer = answer();
    let address = answer[0].data.pieces()[1].as_ptr();
    let response = rendered(answer, "", &OutputForms::all_binary()).unwrap();
    let length: usize = response.headers()[HEADER_LENGTH].to_str().unwrap().parse().unwrap();
    let mut body = response.into_body();
    let declared = http_body::Body::size_hint(&body).exact();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(frames[0].len(), length);
    assert!(
        frames[0].ends_with(br#"{"name":"e","datatype":"FP32","shape":[0],"parameters":{"binary_data_size":0}}]}"#)
    );
    assert_eq!(frames[2].as_ptr(), address);
    assert_eq!(declared, Some(frames.iter().map(|frame| frame.len() as u64).sum()));
    assert_eq!(frames[1..].concat(), b"\0\0\x80\x3f\0\0\0\x40\x02\0\0\0a\"");
}

#[test]
fn what_json_cannot_carry_is_refused_in_words() {
    let half = Tensor::new("h", Datatype::Fp16, vec![1], Payload::from(vec![0, 0])).unwrap();
    let raw = Tensor::new("b", Datatype::Bytes, vec![1], Payload::from(vec![1, 0, 0, 0, 255])).unwrap();
    for tensor in [half, raw] {
        let answer = vec![tensor];
        let error = rendered(answer, "", &OutputForms::default()).unwrap_err();
        assert!(error.message.contains("ask for it with binary_data"), "{error}");
    }
}
