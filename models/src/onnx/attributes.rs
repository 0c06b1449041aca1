//! A node's attributes, by name and with their types.

use std::path::Path;

use super::{
    schema::{AttributeProto, NodeProto, attribute_proto::Kind},
    weight::Weight,
};

/// One attribute's value. Graphs are not here: they become the node's bodies.
#[derive(Clone, Debug)]
enum Value {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Weight),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

/// The attributes of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<(String, Value)>);

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty, $words:literal) => {
        $(#[$doc])*
        pub(super) fn $name(&self, name: &str) -> Result<Option<$type>, String> {
            match self.value(name) {
                None => Ok(None),
                Some(Value::$variant(value)) => Ok(Some(value)),
                Some(_) => Err(format!("attribute '{name}' must be {}", $words)),
            }
        }
    };
}

impl Attributes {
    /// Reads a node's attributes but its graphs.
    ///
    /// # Errors
    /// A message naming an attribute that is of no known type, or a tensor that does not fit the file.
    pub(super) fn read(node: &NodeProto, folder: &Path) -> Result<Self, String> {
        let read = |attribute: &AttributeProto| match value(attribute, folder) {
            Ok(None) => None,
            Ok(Some(value)) => Some(Ok((attribute.name.clone(), value))),
            Err(problem) => Some(Err(format!("attribute '{}': {problem}", attribute.name))),
        };
        node.attribute.iter().filter_map(read).collect::<Result<_, _>>().map(Self)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether there is one of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// All tensors among them.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Weight> {
        self.0.iter().filter_map(|(_, value)| match value {
            Value::Tensor(weight) => Some(weight),
            _ => None,
        })
    }

    getter!(
        /// A list of numbers.
        floats, Floats, &Vec<f32>, "a list of numbers"
    );
    getter!(
        /// A list of whole numbers.
        ints, Ints, &Vec<i64>, "a list of whole numbers"
    );
    getter!(
        /// A list of texts.
        texts, Texts, &Vec<String>, "a list of strings"
    );
    getter!(
        /// A tensor.
        tensor, Tensor, &Weight, "a tensor"
    );

    /// A whole number, or what it is where it is left out.
    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Int(value)) => Ok(*value),
            Some(_) => Err(format!("attribute '{name}' must be a whole number")),
        }
    }

    /// Whether a whole number is not 0.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        self.int(name, default.into()).map(|value| value != 0)
    }

    /// A number, or what it is where it is left out.
    pub(super) fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Float(value)) => Ok(*value),
            Some(_) => Err(format!("attribute '{name}' must be a number")),
        }
    }

    /// A text, or what it is where it is left out.
    pub(super) fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, String> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Text(value)) => Ok(value),
            Some(_) => Err(format!("attribute '{name}' must be a string")),
        }
    }
}

fn value(attribute: &AttributeProto, folder: &Path) -> Result<Option<Value>, String> {
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8".to_owned());
    Ok(Some(match attribute.r#type() {
        Kind::Float => Value::Float(attribute.f),
        Kind::Int => Value::Int(attribute.i),
        Kind::String => Value::Text(text(&attribute.s)?),
        Kind::Tensor => {
            let tensor = attribute.t.as_ref().ok_or("its tensor is missing")?;
            Value::Tensor(Weight::read(tensor, folder)?)
        }
        Kind::Floats => Value::Floats(attribute.floats.clone()),
        Kind::Ints => Value::Ints(attribute.ints.clone()),
        Kind::Strings => Value::Texts(attribute.strings.iter().map(text).collect::<Result<_, _>>()?),
        Kind::Graph => return Ok(None),
        kind => return Err(format!("its type {} is not served", kind.as_str_name().to_lowercase())),
    }))
}
