//! A row of a table as a call: a column is a field of the body, or an input of the model.

use orion_proto::{
    Datatype, Error, ModelSpec, Result, TensorSpec,
    jobs::{FileCalls, HttpCall},
};
use serde_json::{Map, Value, json};

use super::calls;

/// Fields that are texts, whatever they look like.
const TEXTS: [&str; 9] =
    ["input", "prompt", "query", "text", "text_input", "model", "user", "suffix", "encoding_format"];

/// The call of a row; `model` is that of an `infer`.
///
/// # Errors
/// INVALID_ARGUMENT naming the column that is wrong or missing.
pub(super) fn call(row: &[(&str, String)], of: &FileCalls, model: Option<&ModelSpec>) -> Result<HttpCall> {
    let body = match model {
        Some(model) => inputs(row, model)?,
        None => fields(row),
    };
    let mut call = HttpCall { path: of.path.clone(), body: body.to_string().into(), model: of.model.clone() };
    calls::complete(&mut call)?;
    Ok(call)
}

fn fields(row: &[(&str, String)]) -> Value {
    let field = |(name, text): &(&str, String)| {
        // An empty value is one that is not given.
        (!text.is_empty()).then(|| ((*name).to_owned(), value(name, text)))
    };
    Value::Object(row.iter().filter_map(field).collect::<Map<_, _>>())
}

/// What is JSON and no text counts as that.
fn value(name: &str, text: &str) -> Value {
    if TEXTS.contains(&name) {
        return text.into();
    }
    match serde_json::from_str(text) {
        Ok(Value::String(_)) | Err(_) => text.into(),
        Ok(value) => value,
    }
}

fn inputs(row: &[(&str, String)], model: &ModelSpec) -> Result<Value> {
    let mut inputs = Vec::new();
    for input in &model.inputs {
        match row.iter().find(|(name, _)| *name == input.name) {
            Some((_, text)) if !text.is_empty() || input.datatype == Datatype::Bytes => {
                inputs.push(tensor(input, text)?)
            }
            _ if input.optional => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "column '{}' is empty, model '{}' needs it",
                    input.name, model.name
                )));
            }
            None => {
                let text = format!("the file has no column '{}', model '{}' needs it", input.name, model.name);
                return Err(Error::invalid(text));
            }
        }
    }
    Ok(json!({ "inputs": inputs }))
}

fn tensor(input: &TensorSpec, text: &str) -> Result<Value> {
    let wrong = |why: &str| Error::invalid(format!("column '{}' {why}", input.name));
    let (mut dims, mut data) = (Vec::new(), Vec::new());
    if input.datatype == Datatype::Bytes {
        data.push(text.into());
    } else {
        let value: Value =
            serde_json::from_str(text).map_err(|_| wrong("must be a number, or a list of numbers such as [1, 2]"))?;
        flatten(value, 0, &mut dims, &mut data).ok_or_else(|| wrong("must be numbers, its lists all of one length"))?;
    }
    Ok(
        json!({ "name": input.name, "datatype": input.datatype.name(), "shape": shape(input, &dims, data.len()), "data": data }),
    )
}

/// The numbers of nested lists, and how long those of each level are.
fn flatten(value: Value, level: usize, dims: &mut Vec<usize>, data: &mut Vec<Value>) -> Option<()> {
    match value {
        Value::Array(values) => {
            if dims.len() == level {
                // A number was there before where a list is now.
                if !data.is_empty() {
                    return None;
                }
                dims.push(values.len());
            }
            if dims[level] != values.len() {
                return None;
            }
            values.into_iter().try_for_each(|value| flatten(value, level + 1, dims, data))
        }
        Value::Number(_) | Value::Bool(_) if level == dims.len() => {
            data.push(value);
            Some(())
        }
        _ => None,
    }
}

/// One row of what the model declares.
fn shape(input: &TensorSpec, dims: &[usize], count: usize) -> Vec<i64> {
    let own = input.shape.get(1..).unwrap_or_default();
    let fixed: Option<i64> = own.iter().try_fold(1i64, |all, dim| (*dim >= 0).then(|| all.checked_mul(*dim)).flatten());
    let given = || dims.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX));
    match fixed {
        Some(fixed) if !own.is_empty() && Ok(fixed) == i64::try_from(count) => {
            [1].into_iter().chain(own.iter().copied()).collect()
        }
        _ if dims.is_empty() && !own.is_empty() => [1].into_iter().chain(own.iter().map(|_| 1)).collect(),
        _ => [1].into_iter().chain(given()).collect(),
    }
}

/// What a call's answer holds, column by column.
pub(super) fn answer(path: &str, body: &Value) -> Vec<(String, Value)> {
    let named = |name: &str, value: &Value| (name.to_owned(), value.clone());
    let choice = &body["choices"][0];
    match path {
        "/v1/embeddings" => vec![named("embedding", &body["data"][0]["embedding"])],
        "/v1/completions" => vec![named("text", &choice["text"]), named("finish_reason", &choice["finish_reason"])],
        "/v1/chat/completions" => {
            vec![named("content", &choice["message"]["content"]), named("finish_reason", &choice["finish_reason"])]
        }
        "/v1/rerank" => vec![named("results", &body["results"])],
        _ if path.ends_with("/generate") => vec![named("text_output", &body["text_output"])],
        _ => {
            let outputs = body["outputs"].as_array().into_iter().flatten();
            let only = |data: &Value| match data.as_array().map(Vec::as_slice) {
                Some([one]) => one.clone(),
                _ => data.clone(),
            };
            outputs
                .map(|output| (output["name"].as_str().unwrap_or_default().to_owned(), only(&output["data"])))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, datatype: Datatype, shape: &[i64], optional: bool) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.into(), optional }
    }

    #[test]
    fn a_column_is_a_field() {
        let of = FileCalls { path: "/v1/completions".into(), model: "m".into(), ..FileCalls::default() };
        let row = [
            ("prompt", "17".to_owned()),
            ("max_tokens", "4".into()),
            ("stop", "[\"a\"]".into()),
            ("user", String::new()),
        ];
        let body: Value = serde_json::from_slice(&call(&row, &of, None).unwrap().body).unwrap();
        assert_eq!(body, json!({ "model": "m", "prompt": "17", "max_tokens": 4, "stop": ["a"] }));
    }

    #[test]
    fn a_column_is_an_input_of_the_model() {
        let at = |input: &TensorSpec, text| {
            tensor(input, text).map(|tensor| (tensor["shape"].to_string(), tensor["data"].to_string()))
        };
        let matrix = input("x", Datatype::Fp32, &[-1, -1], false);
        assert_eq!(at(&matrix, "[1, 2.5]").unwrap(), ("[1,2]".into(), "[1,2.5]".into()));
        assert_eq!(at(&matrix, "3").unwrap(), ("[1,1]".into(), "[3]".into()));
        assert_eq!(at(&input("x", Datatype::Int64, &[-1], false), "3").unwrap().0, "[1]");
        let image = input("x", Datatype::Fp32, &[-1, 2, 2], false);
        assert_eq!(at(&image, "[1, 2, 3, 4]").unwrap().0, "[1,2,2]");
        assert_eq!(at(&image, "[[1, 2], [3, 4]]").unwrap().0, "[1,2,2]");
        let text = input("t", Datatype::Bytes, &[-1], false);
        assert_eq!(at(&text, "[1]").unwrap(), ("[1]".into(), "[\"[1]\"]".into()));
        for wrong in ["x", "\"x\"", "[[1], [1, 2]]", "[1, [2]]", "[[1], 2]", "{}", "[null]"] {
            assert!(at(&matrix, wrong).unwrap_err().message.contains("'x'"), "{wrong}");
        }
    }
}
