//! Answers of a given form.

use orion_proto::{Code, FinishReason, Format, Generation, Priority};

use super::{alone, drawn, loaded, model};
use crate::{Generator, tiny_llama};

#[test]
fn answers_of_a_given_form_are_that_and_survive_every_cut() {
    let mut model = model("");
    let schema = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["one", "two"]}, "sizes": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}},
        "required": ["name", "kind", "sizes"], "additionalProperties": false}"#;
    let schema = || Format::JsonSchema(schema.into());
    for (seed, format) in [(1, schema()), (2, schema()), (3, Format::JsonObject)] {
        let object = format == Format::JsonObject;
        let generation = Generation { format, ignore_end: false, ..drawn(seed, 9, 200) };
        let want = alone(&mut model, &generation);
        if object && want.finish == Some(FinishReason::Length) {
            assert!(want.text.trim_start().starts_with('{'), "{}", want.text);
        } else {
            let value: serde_json::Value = serde_json::from_str(&want.text).unwrap();
            assert!(value.is_object() && want.finish == Some(FinishReason::Stop), "{}", want.text);
            assert!(object || ["one", "two"].contains(&value["kind"].as_str().unwrap()) && value["sizes"].is_array());
        }
        for cut in (0..want.tokens.len()).step_by(7) {
            let rest = Generation { resume: want.tokens[..cut].to_vec(), ..generation.clone() };
            model.add(1, Priority::Normal, &rest).unwrap();
            let mut tokens = want.tokens[..cut].to_vec();
            while model.load().running + model.load().waiting > 0 {
                model.step().into_iter().for_each(|(_, delta)| tokens.extend(delta.unwrap().tokens));
            }
            assert_eq!(tokens, want.tokens, "cut at {cut}");
        }
    }
}

/// As many as the bytes of a schema hold: taken or refused, but neither the process ends nor is anybody else to blame.
#[test]
fn schemas_that_refer_on_and_on_end_nothing() {
    let mut model = model("");
    let link = |at: usize| format!("\"d{at}\": {{\"$ref\": \"#/$defs/d{}\"}}", at + 1);
    let links: Vec<String> = (0..5_000).map(link).chain(["\"d5000\": {\"type\": \"integer\"}".into()]).collect();
    let of = |definitions: &str| format!("{{\"$ref\": \"#/$defs/d0\", \"$defs\": {{{definitions}}}}}");
    let array = |at: usize| format!("{{\"type\": \"array\", \"items\": {{\"const\": {at}}}}}");
    let arrays: Vec<String> = (0..3_000).map(array).collect();
    let objects = vec!["{\"type\": \"object\"}"; 5_000].join(", ");
    for (schema, what) in [
        (of(&links.join(", ")), "a chain"),
        (of("\"d0\": {\"$ref\": \"#/$defs/d1\"}, \"d1\": {\"$ref\": \"#/$defs/d0\"}"), "a circle"),
        (format!("{{\"type\": \"object\", \"allOf\": [{objects}]}}"), "many at once"),
        (format!("{{\"type\": \"array\", \"items\": {{\"anyOf\": [{}]}}}}", arrays.join(", ")), "many that may begin"),
    ] {
        let generation = Generation { format: Format::JsonSchema(schema), ..drawn(1, 2, 3) };
        let mut refusals: Vec<orion_proto::Error> =
            model.add(1, Priority::Normal, &generation).err().into_iter().collect();
        while model.load().running + model.load().waiting > 0 {
            refusals.extend(model.step().into_iter().filter_map(|(_, delta)| delta.err()));
        }
        assert!(refusals.iter().all(|error| error.code == Code::InvalidArgument), "{what}: {refusals:?}");
    }
}

/// A tokenizer to which tokens were added may name an end that the model never writes.
#[test]
fn an_end_beyond_the_vocabulary_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path()).unwrap();
    let ends = format!("{{\"eos_token_id\": [1, 5000, {}]}}", u32::MAX);
    std::fs::write(folder.path().join("generation_config.json"), ends).unwrap();
    let generation = Generation { format: Format::JsonObject, ignore_end: false, ..drawn(3, 9, 200) };
    assert_eq!(alone(&mut loaded(folder.path(), ""), &generation), alone(&mut model(""), &generation));
}
