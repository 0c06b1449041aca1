//! A row of a table as a call: a column is a field of the body, or an input of the model.

use orion_proto::{
    Datatype, Error, ModelSpec, Result, TensorSpec,
    jobs::{FileCalls, HttpCall},
};
use serde_json::{Map, Value, json};

use super::calls;

/// Fields that are texts, whatever they look like.
pub(super) const TEXTS: [&str; 9] =
    ["input", "prompt", "query", "text", "text_input", "model", "user", "suffix", "encoding_format"];

/// A value of a row.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// As it is written; of a column of numbers or lists it is JSON.
    Text(String),
    /// As its file's column has it.
    Value(Value),
}

impl Given {
    /// An empty value is one that is not given.
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Value(value) => value.is_null(),
        }
    }
}

/// The call of a row; `model` is that of an `infer`.
///
/// # Errors
/// INVALID_ARGUMENT naming the column that is wrong or missing.
pub(super) fn call(row: &[(&str, Given)], of: &FileCalls, model: Option<&ModelSpec>) -> Result<HttpCall> {
    let body = match model {
        Some(model) => inputs(row, model)?,
        None => fields(row),
    };
    let mut call = HttpCall { path: of.path.clone(), body: body.to_string().into(), model: of.model.clone() };
    calls::complete(&mut call)?;
    Ok(call)
}

fn fields(row: &[(&str, Given)]) -> Value {
    let field = |(name, cell): &(&str, Given)| (!cell.is_empty()).then(|| ((*name).to_owned(), value(name, cell)));
    Value::Object(row.iter().filter_map(field).collect::<Map<_, _>>())
}

/// What is JSON and no text counts as that.
fn value(name: &str, cell: &Given) -> Value {
    let is_text = TEXTS.contains(&name);
    match cell {
        Given::Text(text) if is_text => text.as_str().into(),
        Given::Text(text) => match serde_json::from_str(text) {
            Ok(Value::String(_)) | Err(_) => text.as_str().into(),
            Ok(value) => value,
        },
        Given::Value(value) if is_text && !value.is_array() => value.to_string().into(),
        Given::Value(value) => value.clone(),
    }
}

fn inputs(row: &[(&str, Given)], model: &ModelSpec) -> Result<Value> {
    let inputs = model.inputs.iter().filter_map(|input| one_input(row, input, model.name.as_str()).transpose());
    Ok(json!({ "inputs": inputs.collect::<Result<Vec<_>>>()? }))
}

fn one_input(row: &[(&str, Given)], input: &TensorSpec, model: &str) -> Result<Option<Value>> {
    match row.iter().find(|(name, _)| *name == input.name) {
        Some((_, Given::Text(text))) if input.datatype == Datatype::Bytes => {
            Ok(Some(texts(input, vec![text.as_str().into()], &[])))
        }
        Some((_, cell)) if !cell.is_empty() => tensor(input, cell).map(Some),
        _ if input.optional => Ok(None),
        Some(_) => Err(Error::invalid(format!("column '{}' is empty, model '{model}' needs it", input.name))),
        None => Err(Error::invalid(format!("the file has no column '{}', model '{model}' needs it", input.name))),
    }
}

fn tensor(input: &TensorSpec, cell: &Given) -> Result<Value> {
    let wrong = |why: &str| Error::invalid(format!("column '{}' {why}", input.name));
    let value = match cell {
        Given::Text(text) => {
            serde_json::from_str(text).map_err(|_| wrong("must be a number, or a list of numbers such as [1, 2]"))?
        }
        Given::Value(value) => value.clone(),
    };
    if input.datatype == Datatype::Bytes {
        return match value {
            Value::Array(all) if all.iter().all(Value::is_string) => {
                let count = all.len();
                Ok(texts(input, all, &[count]))
            }
            _ => Err(wrong("must be a text, or a list of texts")),
        };
    }
    let (mut dims, mut data) = (Vec::new(), Vec::new());
    flatten(value, 0, &mut dims, &mut data).ok_or_else(|| wrong("must be numbers, its lists all of one length"))?;
    Ok(
        json!({ "name": input.name, "datatype": input.datatype.name(), "shape": shape(input, &dims, data.len()), "data": data }),
    )
}

fn texts(input: &TensorSpec, data: Vec<Value>, dims: &[usize]) -> Value {
    json!({ "name": input.name, "datatype": input.datatype.name(), "shape": shape(input, dims, data.len()), "data": data })
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

    fn text(text: &str) -> Given {
        Given::Text(text.into())
    }

    fn input(name: &str, datatype: Datatype, shape: &[i64], optional: bool) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.into(), optional }
    }

    #[test]
    fn a_column_is_a_field() {
        let of = FileCalls { path: "/v1/completions".into(), model: "m".into(), ..FileCalls::default() };
        let row = [
            ("prompt", text("17")),
            ("max_tokens", text("4")),
            ("stop", text("[\"a\"]")),
            ("user", text("")),
            ("suffix", Given::Value(json!(3))),
            ("seed", Given::Value(json!(5))),
            ("n", Given::Value(Value::Null)),
        ];
        let body: Value = serde_json::from_slice(&call(&row, &of, None).unwrap().body).unwrap();
        assert_eq!(
            body,
            json!({ "model": "m", "prompt": "17", "max_tokens": 4, "stop": ["a"], "suffix": "3", "seed": 5 })
        );
    }

    #[test]
    fn a_column_is_an_input_of_the_model() {
        let cell = |input: &TensorSpec, cell: Given| {
            let tensor = one_input(&[(input.name.as_str(), cell)], input, "m")?.unwrap();
            Ok::<_, Error>((tensor["shape"].to_string(), tensor["data"].to_string()))
        };
        let at = |input: &TensorSpec, written: &str| cell(input, text(written));
        let matrix = input("x", Datatype::Fp32, &[-1, -1], false);
        assert_eq!(at(&matrix, "[1, 2.5]").unwrap(), ("[1,2]".into(), "[1,2.5]".into()));
        assert_eq!(cell(&matrix, Given::Value(json!([1, 2.5]))).unwrap(), ("[1,2]".into(), "[1,2.5]".into()));
        assert_eq!(at(&matrix, "3").unwrap(), ("[1,1]".into(), "[3]".into()));
        assert_eq!(at(&input("x", Datatype::Int64, &[-1], false), "3").unwrap().0, "[1]");
        let image = input("x", Datatype::Fp32, &[-1, 2, 2], false);
        assert_eq!(at(&image, "[1, 2, 3, 4]").unwrap().0, "[1,2,2]");
        assert_eq!(at(&image, "[[1, 2], [3, 4]]").unwrap().0, "[1,2,2]");
        let one = input("t", Datatype::Bytes, &[-1], false);
        assert_eq!(at(&one, "[1]").unwrap(), ("[1]".into(), "[\"[1]\"]".into()));
        let many = input("t", Datatype::Bytes, &[-1, -1], false);
        assert_eq!(cell(&many, Given::Value(json!(["a", "b"]))).unwrap(), ("[1,2]".into(), "[\"a\",\"b\"]".into()));
        assert!(cell(&many, Given::Value(json!([1]))).unwrap_err().message.contains("'t'"));
        assert!(cell(&matrix, Given::Value(Value::Null)).unwrap_err().message.contains("is empty"));
        for wrong in ["x", "\"x\"", "[[1], [1, 2]]", "[1, [2]]", "[[1], 2]", "{}", "[null]"] {
            assert!(at(&matrix, wrong).unwrap_err().message.contains("'x'"), "{wrong}");
        }
    }
}
