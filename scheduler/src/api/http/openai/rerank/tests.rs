use std::sync::Arc;

use http_body_util::BodyExt;
use orion_proto::{InferAnswer, ModelName, ModelPolicy, bytes_elements};

use super::*;

fn spec(inputs: Vec<TensorSpec>, output: TensorSpec) -> ModelSpec {
    ModelSpec {
        name: ModelName::new("m").unwrap(),
        version: "1".into(),
        family: "test".into(),
        inputs,
        outputs: vec![output],
        max_batch_rows: 1,
        memory_bytes: 0,
        inline: true,
        policy: ModelPolicy::default(),
        generator: None,
    }
}

fn text(name: &str) -> TensorSpec {
    TensorSpec::new(name, Datatype::Bytes, [-1])
}

fn score() -> TensorSpec {
    TensorSpec::new(SCORE, Datatype::Fp32, [-1])
}

#[test]
fn documents_are_texts_or_objects_with_one() {
    let texts = |json: &str| {
        let documents: Documents = serde_json::from_str(json).map_err(|error| error.to_string())?;
        documents.texts().map_err(|error| error.message)
    };
    assert_eq!(texts(r#"["a", {"text": "b", "id": [7]}, ""]"#).unwrap(), ["a", "b", ""]);
    let many = |count: usize| format!("[{}]", vec!["\"a\""; count].join(","));
    assert_eq!(texts(&many(2048)).unwrap().len(), 2048);
    for (json, words) in [
        ("[]", "empty"),
        (many(2049).as_str(), "more than 2048"),
        ("\"a\"", "an array of documents"),
        ("[7]", "a document: a text, or an object"),
        (r#"[{"title": "a"}]"#, "missing field `text`"),
        (r#"[{"text": 7}]"#, "a string"),
        (&"[".repeat(1 << 20), "a document"),
    ] {
        let message = texts(json).unwrap_err();
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }
}

#[test]
fn the_query_stands_beside_each_document_within_the_limit() {
    let tensor = queries("what?", 3, 27).unwrap();
    let elements = bytes_elements(QUERY, &tensor.data.contiguous(), tensor.rows()).unwrap();
    assert_eq!(elements, ["what?"; 3]);
    let error = queries("what?", 3, 26).unwrap_err();
    assert!(error.message.contains("5 bytes and stands beside each of 3 documents"), "{error}");
    assert!(queries("what?", usize::MAX, usize::MAX - 1).is_err());
}

#[test]
fn only_a_reranker_will_do() {
    let optional = TensorSpec::optional("language", Datatype::Bytes, [-1]);
    assert!(check_model(&spec(vec![text(TEXT), text(QUERY)], score())).is_ok());
    assert!(check_model(&spec(vec![text(QUERY), text(TEXT), optional], score())).is_ok());
    for wrong in [
        spec(vec![text(TEXT)], score()),
        spec(vec![text(QUERY), text(TEXT), text("third")], score()),
        spec(vec![text(QUERY), text(TEXT)], TensorSpec::new(SCORE, Datatype::Fp32, [-1, 2])),
        spec(vec![text(QUERY), TensorSpec::new(TEXT, Datatype::Fp32, [-1])], score()),
    ] {
        assert!(check_model(&wrong).is_err_and(|error| error.message == "model 'm' is not a reranker"));
    }
}

#[tokio::test]
async fn results_are_the_best_first_and_as_many_as_were_asked_for() {
    let data: Vec<u8> = [0.25f32, 0.75, -1.0, 0.75].map(f32::to_le_bytes).concat();
    let tensor = Tensor::new(SCORE, Datatype::Fp32, vec![4], Payload::from(data)).unwrap();
    let answer = InferAnswer { outputs: vec![tensor], usage_tokens: 9, ..InferAnswer::default() };
    let answered = Answered { spec: Arc::new(spec(vec![text(QUERY), text(TEXT)], score())), answer };
    let texts = ["a", "b", "c", "d"].map(str::to_owned);
    for (texts, most, results) in [
        (
            None,
            4,
            r#"{"index":1,"relevance_score":0.75},{"index":3,"relevance_score":0.75},{"index":0,"relevance_score":0.25},{"index":2,"relevance_score":-1.0}"#,
        ),
        (Some(&texts[..]), 1, r#"{"index":1,"relevance_score":0.75,"document":{"text":"b"}}"#),
    ] {
        let body = render(&answered, texts, most).unwrap().into_body().collect().await.unwrap().to_bytes();
        let usage = r#"{"prompt_tokens":9,"total_tokens":9}"#;
        assert_eq!(body, format!(r#"{{"object":"list","model":"m","results":[{results}],"usage":{usage}}}"#));
    }
    assert!(render(&answered, Some(&texts[..1]), 4).is_err());
    assert_eq!((most_results(None, 4), most_results(Some(9), 4), most_results(Some(2), 4)), (Ok(4), Ok(4), Ok(2)));
    assert!(most_results(Some(0), 4).is_err_and(|error| error.message.contains("1 or more")));
}
