//! OpenAI's `response_format`: what the text of an answer must be.

use orion_proto::{Error, Format, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

/// As it stands in a request. A schema's `name`, `description` and `strict` are not used: every schema is kept to.
#[derive(Debug, Deserialize)]
#[serde(expecting = "'response_format' must be an object with a type")]
pub(crate) struct ResponseFormat {
    r#type: String,
    #[serde(default)]
    json_schema: Option<JsonSchema>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "'json_schema' must be an object with a schema")]
struct JsonSchema {
    #[serde(default)]
    schema: Option<Box<RawValue>>,
}

impl ResponseFormat {
    /// From its JSON text.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for another text.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("'response_format' is not valid: {error}")))
    }

    /// What it asks for. A schema keeps the order of its properties: it is that of the answer.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an unknown type, and where a schema is missing.
    pub(crate) fn format(&self) -> Result<Format> {
        let schema = self.json_schema.as_ref().and_then(|named| named.schema.as_ref());
        match (self.r#type.as_str(), schema) {
            ("text", _) => Ok(Format::Text),
            ("json_object", _) => Ok(Format::JsonObject),
            ("json_schema", Some(schema)) => Ok(Format::JsonSchema(schema.get().to_owned())),
            ("json_schema", None) => {
                Err(Error::invalid("a 'response_format' of type json_schema must have json_schema.schema"))
            }
            (other, _) => {
                let text =
                    format!("'response_format' has the type '{other}', it must be text, json_object or json_schema");
                Err(Error::invalid(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str) -> Result<Format> {
        ResponseFormat::from_json(text)?.format()
    }

    #[test]
    fn each_type_is_read_and_a_schema_keeps_its_order() {
        assert_eq!(format(r#"{"type": "text"}"#), Ok(Format::Text));
        assert_eq!(format(r#"{"type": "json_object"}"#), Ok(Format::JsonObject));
        let schema = r#"{"properties":{"z":{},"a":{}}}"#;
        let named = format!(r#"{{"type": "json_schema", "json_schema": {{"name": "x", "schema": {schema}}}}}"#);
        assert_eq!(format(&named), Ok(Format::JsonSchema(schema.into())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("{", "not valid"),
            ("3", "must be an object with a type"),
            (r#"{"type": "xml"}"#, "the type 'xml'"),
            (r#"{"type": "json_schema"}"#, "json_schema.schema"),
            (r#"{"type": "json_schema", "json_schema": {"name": "x"}}"#, "json_schema.schema"),
        ] {
            let message = format(text).unwrap_err().message;
            assert!(message.contains(word), "{message}, not {word}");
        }
    }
}
