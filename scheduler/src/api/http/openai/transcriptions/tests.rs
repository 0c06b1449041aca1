use axum::http::{HeaderValue, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use orion_proto::{InferAnswer, ModelName};
use serde_json::{Value, json};
use std::sync::Arc;

use super::*;

const RECORD: &str = r#"{"language":"english","duration":3725.5,"segments":[
    {"id":0,"start":0.0,"end":2.52,"text":" One --> two.","tokens":[7]},
    {"id":1,"start":2.52,"end":3725.061,"text":" Three.","tokens":[8]}]}"#;

fn headers(kind: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
}

/// A form of fields; that of the name `file` has a file name, as clients send it.
async fn read(fields: &[(&str, &[u8])]) -> std::result::Result<Form, Value> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let file = if *name == "file" { "; filename=\"a.wav\"\r\nContent-Type: audio/wav" } else { "" };
        let head = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend([head.as_bytes(), value, b"\r\n"].concat());
    }
    body.extend(b"--b--\r\n");
    match Form::read(&headers("multipart/form-data; boundary=b"), body.into()).await {
        Ok(form) => Ok(form),
        Err(refusal) => Err(serde_json::from_str(&refusal.event()).unwrap()),
    }
}

#[tokio::test]
async fn a_form_is_read_whatever_the_order_of_its_fields() {
    let wave: Vec<u8> = (0..400_000u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
    let fields: [(&str, &[u8]); 10] = [
        ("temperature", b"0.2"),
        ("file", &wave),
        ("response_format", b"verbose_json"),
        ("timestamp_granularities[]", b"segment"),
        ("chunking_strategy", b"auto"),
        ("stream", b"false"),
        ("prompt", "Sense — and".as_bytes()),
        ("priority", b"2"),
        ("idempotent", b"false"),
        ("model", b"whisper"),
    ];
    let form = read(&fields).await.unwrap();
    assert!(form.file == wave && form.model == "whisper" && form.format == Format::VerboseJson);
    let parameters = [("temperature", "0.2"), ("prompt", "Sense — and"), ("priority", "2"), ("idempotent", "false")];
    assert_eq!(form.parameters, parameters.map(|(name, value)| (name, value.to_owned())));

    let request = infer_request(form, vec![TEXT.to_owned()]).unwrap();
    let audio = orion_proto::bytes_elements(AUDIO, &request.inputs[0].data.contiguous(), 1).unwrap();
    assert_eq!((audio[0].as_ref(), request.parameters.priority), (wave.as_slice(), orion_proto::Priority::Critical));
    assert!(!request.parameters.idempotent);
    let others: Vec<&str> = request.parameters.others.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(others, ["temperature", "prompt"]);
}

fn field<'a>(name: &'a str, value: &'a [u8]) -> (&'a str, &'a [u8]) {
    (name, value)
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_named() {
    let (file, model) = (field("file", b"RIFF"), field("model", b"m"));
    let long = vec![b'a'; 70_000];
    for (fields, param, words) in [
        (vec![model], json!("file"), "no field 'file'"),
        (vec![file], json!("model"), "no field 'model'"),
        (vec![file, file, model], json!("file"), "several files"),
        (
            vec![file, model, field("response_format", b"xml")],
            json!("response_format"),
            "'xml' is unknown, it must be json",
        ),
        (vec![file, model, field("stream", b"true")], json!("stream"), "not streamed"),
        (
            vec![file, model, field("timestamp_granularities[]", b"word")],
            json!("timestamp_granularities"),
            "times of words are not served",
        ),
        (
            vec![file, model, field("timestamp_granularities[]", b"segment")],
            json!("timestamp_granularities"),
            "need a response_format of verbose_json",
        ),
        (vec![file, model, field("prompt", &long)], Value::Null, "'prompt' is longer than 65536 bytes"),
        (vec![file, model, field("prompt", b"\xff")], Value::Null, "'prompt' is no UTF-8"),
        (vec![model; 65], Value::Null, "more than 64 fields"),
    ] {
        let error = &read(&fields).await.unwrap_err()["error"];
        assert_eq!((&error["param"], &error["type"]), (&param, &json!("invalid_request_error")), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{error}");
    }
    for (kind, body, words) in [
        ("application/json", "{}", "must be a form"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nRI",
            "cannot be read",
        ),
    ] {
        let refusal = Form::read(&headers(kind), body.into()).await.unwrap_err().event();
        assert!(refusal.contains(words), "{refusal}");
    }
}

async fn rendered(format: &str, segments: Option<&str>) -> (String, String) {
    let response = format::render(Format::read(format).unwrap(), " One --> two. Three.", segments).unwrap();
    let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (kind, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_transcript_is_written_in_every_format() {
    let plain = "text/plain; charset=utf-8";
    let text = "One --> two. Three.";
    assert_eq!(rendered("text", Some(RECORD)).await, (plain.to_owned(), format!("{text}\n")));
    let srt = "1\n00:00:00,000 --> 00:00:02,520\nOne -> two.\n\n2\n00:00:02,520 --> 01:02:05,061\nThree.\n\n";
    assert_eq!(rendered("srt", Some(RECORD)).await, (plain.to_owned(), srt.to_owned()));
    let vtt = "WEBVTT\n\n00:00:00.000 --> 00:00:02.520\nOne -> two.\n\n00:00:02.520 --> 01:02:05.061\nThree.\n\n";
    assert_eq!(rendered("vtt", Some(RECORD)).await, (plain.to_owned(), vtt.to_owned()));

    let usage = json!({"type": "duration", "seconds": 3726});
    let (kind, body) = rendered("json", Some(RECORD)).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((kind.as_str(), body), ("application/json", json!({"text": text, "usage": usage})));
    assert_eq!(rendered("json", None).await.1, json!({"text": text}).to_string());
    let body: Value = serde_json::from_str(&rendered("verbose_json", Some(RECORD)).await.1).unwrap();
    let record: Value = serde_json::from_str(RECORD).unwrap();
    let head = ["task", "language", "duration", "text"].map(|name| &body[name]);
    assert_eq!(head, [&json!("transcribe"), &json!("english"), &json!(3725.5), &json!(text)]);
    assert_eq!((&body["segments"], &body["usage"]), (&record["segments"], &usage));
    for segments in [None, Some("{}"), Some(r#"{"language":"english","duration":1,"segments":[{}]}"#)] {
        let error = format::render(Format::Srt, "", segments).unwrap_err();
        assert!(error.code == Code::Internal && error.message.contains("'segments'"), "{error}");
    }
}

fn spec(inputs: &[&str], outputs: &[&str]) -> ModelSpec {
    let tensors = |names: &[&str]| names.iter().map(|name| TensorSpec::new(*name, Datatype::Bytes, [-1])).collect();
    ModelSpec {
        name: ModelName::new("m").unwrap(),
        version: "1".into(),
        family: "test".into(),
        inputs: tensors(inputs),
        outputs: tensors(outputs),
        max_batch_rows: 1,
        memory_bytes: 0,
        inline: true,
        policy: orion_proto::ModelPolicy::default(),
        generator: None,
    }
}

#[test]
fn only_models_that_transcribe_are_asked() {
    let whisper = spec(&[AUDIO], &[TEXT, SEGMENTS]);
    assert_eq!(outputs(&whisper, Format::Text).unwrap(), [TEXT, SEGMENTS]);
    let bare = spec(&[AUDIO], &[TEXT]);
    assert_eq!(outputs(&bare, Format::Json).unwrap(), [TEXT]);
    for (spec, words) in [
        (bare, "model 'm' gives no times"),
        (spec(&[TEXT], &["embedding"]), "model 'm' does not transcribe audio"),
        (spec(&[AUDIO, TEXT], &[TEXT]), "does not transcribe"),
        (spec(&[AUDIO], &["label"]), "does not transcribe"),
    ] {
        let refusal = outputs(&spec, Format::Srt).unwrap_err().event();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn a_model_s_refusal_names_the_field() {
    for (error, param) in [
        (Error::invalid("element 0 of input 'audio' is empty"), json!("file")),
        (Error::invalid("parameter 'language' is 'de'"), json!("language")),
        (Error::new(Code::Unavailable, "no worker"), Value::Null),
    ] {
        let body: Value = serde_json::from_str(&named(error).event()).unwrap();
        assert_eq!(body["error"]["param"], param);
    }
}

#[test]
fn an_answer_that_is_no_text_is_an_error() {
    let answered = |data: Vec<u8>| {
        let tensor = Tensor { name: TEXT.into(), datatype: Datatype::Bytes, shape: vec![1], data: data.into() };
        let answer = InferAnswer { outputs: vec![tensor], ..InferAnswer::default() };
        Answered { spec: Arc::new(spec(&[AUDIO], &[TEXT])), answer }
    };
    assert_eq!(element(&answered(b"\x02\0\0\0hi".to_vec()), TEXT).unwrap(), "hi");
    for (data, name) in [(b"\x01\0\0\0\xff".to_vec(), TEXT), (b"\x02\0\0\0hi".to_vec(), SEGMENTS)] {
        assert_eq!(element(&answered(data), name).unwrap_err().code, Code::Internal);
    }
}
