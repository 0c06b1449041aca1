//! The field `messages`: checked, and left as it stands for the model's template.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// How many messages a conversation has.
///
/// # Errors
/// Saying which message has no role, and what is no message.
pub(super) fn count(messages: &RawValue) -> serde_json::Result<usize> {
    serde_json::from_str::<Count>(messages.get()).map(|count| count.0)
}

struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CountVisitor)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<Count, A::Error> {
        let mut count = 0;
        while let Some(Message { has_role }) = messages.next_element()? {
            if !has_role {
                return Err(A::Error::custom(format_args!("message {count} has no role, such as user or assistant")));
            }
            count += 1;
        }
        Ok(Count(count))
    }
}

/// One message: an object whose `role` is a text.
struct Message {
    has_role: bool,
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message: an object with a role and a content")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Message, A::Error> {
        let mut has_role = false;
        while let Some(name) = fields.next_key::<String>()? {
            if name == "role" {
                fields.next_value::<String>()?;
                has_role = true;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Message { has_role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_role_and_what_has_none_is_named() {
        let counted = |json: &str| {
            let messages: Box<RawValue> = serde_json::from_str(json).unwrap();
            count(&messages).map_err(|error| error.to_string())
        };
        assert_eq!(counted("[]").unwrap(), 0);
        assert_eq!(counted(r#"[{"role":"user","content":"a"},{"content":[{"x":1}],"role":"tool"}]"#).unwrap(), 2);
        for (json, words) in [
            (r#"[{"role":"user"},{"content":"a"}]"#, "message 1 has no role"),
            (r#"[{"role":3}]"#, "expected a string"),
            (r#"[["user"]]"#, "a message: an object"),
            ("[0]", "a message: an object"),
            (r#"{"role":"user"}"#, "an array of messages"),
        ] {
            let message = counted(json).unwrap_err();
            assert!(message.contains(words), "{words:?} is not in {message:?}");
        }
    }
}
