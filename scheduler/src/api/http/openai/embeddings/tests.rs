use super::*;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use orion_proto::{InferAnswer, ModelName};
use std::sync::Arc;

fn spec(outputs: Vec<TensorSpec>) -> ModelSpec {
    ModelSpec {
        name: ModelName::new("m").unwrap(),
        version: "1".into(),
        family: "test".into(),
        inputs: vec![TensorSpec::new(TEXT, Datatype::Bytes, [-1])],
        outputs,
        max_batch_rows: 1,
        memory_bytes: 0,
        inline: true,
        policy: orion_proto::ModelPolicy::default(),
        generator: None,
    }
}

fn texts(json: &str) -> std::result::Result<Vec<String>, String> {
    let input: Input = serde_json::from_str(json).map_err(|error| error.to_string())?;
    input.texts().map_err(|error| error.message)
}

#[test]
fn input_is_a_text_or_texts() {
    assert_eq!(texts(r#""a""#).unwrap(), ["a"]);
    assert_eq!(texts(r#"["a","b\n"]"#).unwrap(), ["a", "b\n"]);
    let many = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
    assert_eq!(texts(&many(2048)).unwrap().len(), 2048);
    for (json, words) in [
        ("[]", "empty"),
        ("[1,2]", "tokens"),
        ("[[1,2],[3]]", "tokens"),
        (many(2049).as_str(), "more than 2048"),
        ("7", "a text or an array of texts"),
        ("[null]", "a text"),
        (&"[".repeat(1 << 20), "EOF"),
    ] {
        let message = texts(json).unwrap_err();
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }
}

#[tokio::test]
async fn answers_are_openais_in_both_encodings() {
    let spec = Arc::new(spec(vec![TensorSpec::new(EMBEDDING, Datatype::Fp32, [-1, 2])]));
    let answered = |data: &[u8]| {
        let tensor = Tensor::new(EMBEDDING, Datatype::Fp32, vec![2, 2], Payload::from(data.to_vec())).unwrap();
        let answer = InferAnswer { outputs: vec![tensor], usage_tokens: 9, ..InferAnswer::default() };
        Answered { spec: spec.clone(), answer }
    };
    let none: Vec<u8> = [0.5f32, -1.0, f32::NAN, 2.0].map(f32::to_le_bytes).concat();
    let error = render(&answered(&none), Encoding::Float).unwrap_err();
    assert_eq!(error.message, "the model's embedding of text 1 holds values that are no numbers");
    let data: Vec<u8> = [0.5f32, -1.0, 0.1, 2.0].map(f32::to_le_bytes).concat();
    let answered = answered(&data);
    for (encoding, expected) in [
        (Encoding::Float, ["[0.5,-1.0]".to_owned(), "[0.1,2.0]".to_owned()]),
        (Encoding::Base64, [&data[..8], &data[8..]].map(|row| format!("\"{}\"", STANDARD.encode(row)))),
    ] {
        let body = render(&answered, encoding).unwrap().into_body().collect().await.unwrap().to_bytes();
        let [first, second] = expected;
        let row = |index: usize, row: &str| format!(r#"{{"object":"embedding","index":{index},"embedding":{row}}}"#);
        let rows = [row(0, &first), row(1, &second)].join(",");
        let usage = r#"{"prompt_tokens":9,"total_tokens":9}"#;
        assert_eq!(body, format!(r#"{{"object":"list","data":[{rows}],"model":"m","usage":{usage}}}"#));
    }
}

#[tokio::test]
async fn models_that_do_not_embed_or_not_so_are_refused_in_openais_shape() {
    let embedder = spec(vec![TensorSpec::new(EMBEDDING, Datatype::Fp32, [-1, 384])]);
    assert!(check_model(&embedder, None).is_ok() && check_model(&embedder, Some(384)).is_ok());
    let other = spec(vec![TensorSpec::new("y", Datatype::Fp32, [-1, 384])]);
    for (refusal, field, words) in [
        (check_model(&embedder, Some(256)), "dimensions", "384 dimensions, 256"),
        (check_model(&other, None), "model", "model 'm' is not an embedding model"),
        (encoding(Some("int8")).map(drop), "encoding_format", "int8"),
    ] {
        let response = refusal.unwrap_err().into_response();
        assert_eq!(response.status(), 400);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["param"], field);
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(body["error"]["message"].as_str().unwrap().contains(words));
    }
}

#[test]
fn parameters_come_beside_openais_own_fields() {
    let parameters = |fields: &str| {
        let json = format!(r#"{{"model":"m","input":"a","user":"u"{fields}}}"#);
        let read: serde_json::Result<(Request, Scheduling)> =
            (|| Ok((from_slice(json.as_bytes())?, from_slice(json.as_bytes())?)))();
        read.map_err(|error| error.to_string())
    };
    let read = |fields: &str| {
        let (request, scheduling) = parameters(fields).unwrap();
        scheduling.parameters(request.truncate)
    };
    assert_eq!(read("").unwrap(), Parameters::default());
    assert_eq!(read(r#","priority":null,"timeout":0"#).unwrap(), Parameters::default());
    let all = read(r#","priority":1,"timeout":1500,"routing_key":"k","idempotent":false,"truncate":true"#).unwrap();
    let expected = Parameters {
        priority: orion_proto::Priority::Realtime,
        timeout: Some(std::time::Duration::from_micros(1500)),
        truncate: true,
        routing_key: Some(orion_proto::routing_key("k")),
        sequence: None,
        idempotent: false,
        tenant: None,
        others: Vec::new(),
        job: None,
        of_job: false,
    };
    assert_eq!(all, expected);
    for (field, value) in [("priority", "6"), ("priority", "\"high\""), ("timeout", "-1"), ("idempotent", "1")] {
        let refused = read(&format!(r#","{field}":{value}"#)).unwrap_err().into_response();
        assert_eq!(refused.status(), 400, "{field} {value}");
    }
    assert!(parameters(r#","priority":[1]"#).is_err_and(|error| error.contains("a parameter's value")));
}
