//! A request's input tensors, from flags and the model's declaration.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
    str::FromStr,
};

use bytes::Bytes;
use orion_proto::{
    Datatype, Payload, Tensor, element_count,
    inference::{ModelInput, model_infer_request::InferInputTensor},
};

use super::npy;
use crate::{Failure, tensor_text::encode};

/// A tensor whose bytes fit its shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Input {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    data: Bytes,
}

/// An input as the model's configuration declares it; -1 stands for any size, no dimension at all for any shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InputMetadata {
    /// Its name.
    pub(crate) name: String,
    /// Its element type.
    pub(crate) datatype: Datatype,
    /// Its declared shape.
    pub(crate) shape: Vec<i64>,
    /// Whether a request may leave it out.
    pub(crate) optional: bool,
}

impl TryFrom<ModelInput> for InputMetadata {
    type Error = Failure;

    fn try_from(wire: ModelInput) -> Result<Self, Failure> {
        let unknown = || Failure::new(format!("input '{}' has the unknown data type {}", wire.name, wire.data_type));
        let datatype = Datatype::from_triton(wire.data_type()).ok_or_else(unknown)?;
        Ok(Self { name: wire.name, datatype, shape: wire.dims, optional: wire.optional })
    }
}

impl Input {
    /// A tensor of these elements.
    pub(crate) fn new(name: &str, datatype: Datatype, shape: Vec<i64>, fields: &[&str]) -> Result<Self, Failure> {
        let expected = element_count(name, &shape)?;
        if expected != fields.len() {
            let got = fields.len();
            return Err(Failure::new(format!("input '{name}' of shape {shape:?} takes {expected} values, got {got}")));
        }
        Self::from_raw(name, datatype, shape, encode(name, datatype, fields)?)
    }

    /// A tensor of these bytes.
    pub(crate) fn from_raw(name: &str, datatype: Datatype, shape: Vec<i64>, data: Bytes) -> Result<Self, Failure> {
        Tensor::new(name, datatype, shape.clone(), Payload::from(data.clone()))?;
        Ok(Self { name: name.to_owned(), datatype, shape, data })
    }

    /// Its first dimension.
    pub(crate) fn rows(&self) -> u64 {
        self.shape.first().map_or(1, |&rows| u64::try_from(rows).unwrap_or(0))
    }

    /// Its description and its raw contents.
    pub(crate) fn into_wire(self) -> (InferInputTensor, Bytes) {
        let datatype = self.datatype.name().to_owned();
        (InferInputTensor { name: self.name, datatype, shape: self.shape, ..Default::default() }, self.data)
    }
}

impl FromStr for Input {
    type Err = String;

    /// `NAME=DTYPE[SHAPE]:VALUES` or `NAME=@FILE.npy`.
    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            || "it must be NAME=DTYPE[SHAPE]:VALUES, such as INPUT0=FP32[1,3]:1,2,3, or NAME=@FILE.npy".to_owned();
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        if let Some(path) = rest.strip_prefix('@') {
            return npy::read(name, Path::new(path)).map_err(|failure| failure.message);
        }
        let (datatype, rest) = rest.split_once('[').ok_or_else(form)?;
        let (shape, values) = rest.split_once("]:").ok_or_else(form)?;
        let datatype = Datatype::from_name(datatype).map_err(|error| error.message)?;
        let shape = shape.split(',').filter(|dim| !dim.trim().is_empty()).map(|dim| dim.trim().parse());
        let shape = shape.collect::<Result<Vec<i64>, _>>().map_err(|_| form())?;
        let input = match (datatype, values.starts_with('[')) {
            (Datatype::Bytes, true) => {
                let elements: Vec<String> = serde_json::from_str(values)
                    .map_err(|error| format!("its values are no JSON array of strings: {error}"))?;
                Self::new(name, datatype, shape, &elements.iter().map(String::as_str).collect::<Vec<_>>())
            }
            _ => Self::new(name, datatype, shape, &fields(values)),
        };
        input.map_err(|failure| failure.message)
    }
}

fn fields(values: &str) -> Vec<&str> {
    if values.trim().is_empty() { vec![] } else { values.split(',').collect() }
}

/// The texts of `--text`, with the lines of standard input in the place of `-`.
pub(crate) fn read_texts(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::with_capacity(given.len());
    for text in given {
        if text != "-" {
            texts.push(text.clone());
            continue;
        }
        for line in std::io::stdin().lock().lines() {
            texts.push(line.map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?);
        }
    }
    match texts.is_empty() && !given.is_empty() {
        true => Err(Failure::new("standard input holds no line, it must hold one text a line")),
        false => Ok(texts),
    }
}

/// The only input that the model must have, if it `matches`, or why there is no such one.
fn only<'a>(
    model: &str,
    declared: &'a [InputMetadata],
    kind: &str,
    matches: impl Fn(&InputMetadata) -> bool,
) -> Result<&'a InputMetadata, Failure> {
    let needed: Vec<&InputMetadata> = declared.iter().filter(|input| !input.optional).collect();
    if let [input] = needed.as_slice()
        && matches(input)
    {
        return Ok(input);
    }
    let known: Vec<String> =
        declared.iter().map(|input| format!("{} {} {:?}", input.name, input.datatype, input.shape)).collect();
    Err(Failure::new(format!("model '{model}' does not take one {kind} input, its inputs are: {}", known.join(", ")))
        .hint("give them with --input NAME=DTYPE[SHAPE]:VALUES"))
}

/// One row for each text.
pub(crate) fn from_texts(model: &str, declared: &[InputMetadata], texts: &[String]) -> Result<Input, Failure> {
    let input = only(model, declared, "BYTES", |input| input.datatype == Datatype::Bytes)?;
    let fields: Vec<&str> = texts.iter().map(String::as_str).collect();
    Input::new(&input.name, input.datatype, fill_rows(&input.shape, fields.len(), 1), &fields)
}

/// One row for each file, its contents as they are.
pub(crate) fn from_files(model: &str, declared: &[InputMetadata], files: &[PathBuf]) -> Result<Input, Failure> {
    let input = only(model, declared, "BYTES", |input| input.datatype == Datatype::Bytes)?;
    let mut data = Vec::new();
    for path in files {
        let unreadable = |why: &dyn std::fmt::Display| Failure::new(format!("'{}' {why}", path.display()));
        let contents = std::fs::read(path).map_err(|error| unreadable(&format_args!("cannot be read: {error}")))?;
        let length = u32::try_from(contents.len()).map_err(|_| unreadable(&"has 4 GiB or more, a row takes less"))?;
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(&contents);
    }
    Input::from_raw(&input.name, input.datatype, fill_rows(&input.shape, files.len(), 1), data.into())
}

/// The values of `--data` in the shape given, or in the one that the declaration leaves open.
pub(crate) fn from_data(
    model: &str,
    declared: &[InputMetadata],
    values: &str,
    shape: &[i64],
) -> Result<Input, Failure> {
    let input = only(model, declared, "numeric", |input| input.datatype != Datatype::Bytes)?;
    let fields = fields(values);
    let shape = if shape.is_empty() { open_shape(&input.shape, fields.len()) } else { shape.to_vec() };
    Input::new(&input.name, input.datatype, shape, &fields).map_err(|failure| match failure.hint {
        None => failure.hint(format!("the model takes {:?}; give the shape with --shape", input.shape)),
        Some(_) => failure,
    })
}

/// A declared shape with `rows` in its first dimension and `other` in each further one that may have any size.
pub(crate) fn fill_rows(declared: &[i64], rows: usize, other: i64) -> Vec<i64> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let Some((first, rest)) = declared.split_first() else { return vec![rows] };
    let first = if *first < 0 { rows } else { *first };
    std::iter::once(first).chain(rest.iter().map(|&dim| if dim < 0 { other } else { dim })).collect()
}

/// A shape for `count` values: one row where the last dimension is open too, else as many rows as they make.
fn open_shape(declared: &[i64], count: usize) -> Vec<i64> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let fixed: i64 = declared.iter().filter(|&&dim| dim > 0).fold(1, |product, &dim| product.saturating_mul(dim));
    let open: Vec<usize> = (0..declared.len()).filter(|&at| declared[at] < 0).collect();
    let Some(&last_open) = open.last() else {
        return if declared.is_empty() { vec![1, count] } else { declared.to_vec() };
    };
    let fill = |(at, &dim): (usize, &i64)| match dim {
        _ if at == last_open => count / fixed,
        dim if dim < 0 => 1,
        dim => dim,
    };
    declared.iter().enumerate().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(name: &str, datatype: Datatype, shape: &[i64]) -> InputMetadata {
        InputMetadata { name: name.into(), datatype, shape: shape.to_vec(), optional: false }
    }

    #[test]
    fn texts_go_to_the_only_input_that_is_needed() {
        let pair = InputMetadata { optional: true, ..declare("text_pair", Datatype::Bytes, &[-1]) };
        let declared = [declare("text", Datatype::Bytes, &[-1]), pair.clone()];
        assert_eq!(from_texts("m", &declared, &["a".into()]).unwrap().name, "text");
        let both = [declare("query", Datatype::Bytes, &[-1]), InputMetadata { optional: false, ..pair }];
        assert!(from_texts("m", &both, &["a".into()]).unwrap_err().hint.unwrap().contains("--input"));
    }

    #[test]
    fn an_input_in_full_is_read_or_named() {
        let input: Input = "INPUT0=FP32[1,3]:1,2.5,-3".parse().unwrap();
        assert_eq!((input.name.as_str(), input.shape.as_slice()), ("INPUT0", [1, 3].as_slice()));
        assert_eq!(input.data.len(), 12);
        let text: Input = r#"t=BYTES[2]:["a, b]:","c"]"#.parse().unwrap();
        assert_eq!(text.data.as_ref(), b"\x06\0\0\0a, b]:\x01\0\0\0c");
        let empty: Input = "x=FP32[0,4]:".parse().unwrap();
        assert!(empty.data.is_empty());
        let scalar: Input = "x=INT8[]:7".parse().unwrap();
        assert!(scalar.shape.is_empty());
        for (wrong, part) in [
            ("x", "NAME=DTYPE"),
            ("x=FP32", "NAME=DTYPE"),
            ("x=F32[1]:1", "datatype 'F32' is unknown"),
            ("x=FP32[a]:1", "NAME=DTYPE"),
            ("x=FP32[2]:1", "takes 2 values, got 1"),
            ("x=FP32[-1]:1", "must be 0 or more"),
            ("x=FP32[9223372036854775807,9]:1", "more elements than can be counted"),
            ("x=INT8[1]:200", "which is no INT8"),
            ("x=BYTES[1]:[1]", "no JSON array of strings"),
        ] {
            let message = wrong.parse::<Input>().unwrap_err();
            assert!(message.contains(part), "{wrong}: {message}");
        }
    }

    #[test]
    fn shapes_are_filled_from_the_declaration() {
        assert_eq!(open_shape(&[], 3), [1, 3]);
        assert_eq!(open_shape(&[-1], 3), [3]);
        assert_eq!(open_shape(&[-1, -1], 3), [1, 3]);
        assert_eq!(open_shape(&[-1, 4], 8), [2, 4]);
        assert_eq!(open_shape(&[2, 2], 4), [2, 2]);
        assert_eq!(fill_rows(&[], 5, 1), [5]);
        assert_eq!(fill_rows(&[-1, -1, 7], 5, 16), [5, 16, 7]);
    }

    #[test]
    fn files_are_rows_as_they_are_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [here, missing] = ["here", "missing"].map(|name| folder.path().join(name));
        std::fs::write(&here, b"\xff\0").unwrap();
        let declared = [declare("image", Datatype::Bytes, &[-1])];
        let input = from_files("m", &declared, &[here.clone(), here.clone()]).unwrap();
        assert_eq!((input.shape.as_slice(), input.data.as_ref()), ([2].as_slice(), &b"\x02\0\0\0\xff\0".repeat(2)[..]));
        let failure = from_files("m", &declared, &[here, missing.clone()]).unwrap_err();
        assert!(failure.message.contains(&missing.display().to_string()), "{}", failure.message);
    }

    #[test]
    fn text_for_a_numeric_model_is_refused_with_what_it_takes() {
        let declared = [declare("x", Datatype::Fp32, &[-1, 4])];
        let failure = from_texts("m", &declared, &["a".into()]).unwrap_err();
        assert_eq!(failure.message, "model 'm' does not take one BYTES input, its inputs are: x FP32 [-1, 4]");
        assert_eq!(from_data("m", &declared, "1,2,3,4", &[]).unwrap().shape, [1, 4]);
        assert!(from_data("m", &declared, "1,2,3", &[]).unwrap_err().hint.unwrap().contains("--shape"));
    }
}
