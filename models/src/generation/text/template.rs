//! Chat templates: Jinja as Hugging Face's `apply_chat_template` runs it.

use std::io;

use jiff::{Timestamp, fmt::strtime, tz::TimeZone};
use minijinja::{Environment, ErrorKind, State, Value, context, value::Kwargs};
use orion_proto::{Error, Result};
use serde::Serialize;
use serde_json::Value as Json;

use crate::unservable;

/// Steps that a template may take for one conversation.
const FUEL: u64 = 2_000_000;
/// Bytes that it may write.
const MOST_BYTES: usize = 16 << 20;
const NAME: &str = "chat";

/// What a template makes a prompt of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversation<'a> {
    /// A JSON array.
    pub(crate) messages: &'a str,
    /// Another.
    pub(crate) tools: Option<&'a str>,
    /// When it was sent, seconds since 1970.
    pub(crate) asked: u64,
}

/// What is said beside the messages.
struct Beside {
    tools: Option<Value>,
    asked: u64,
}

/// A compiled template with its model's special tokens.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    start: String,
    end: String,
}

impl ChatTemplate {
    /// Compiles a template. `start` and `end` are what it knows as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// FAILED_PRECONDITION saying what the template's mistake is.
    pub(crate) fn new(source: &str, start: Option<String>, end: Option<String>) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_function("strftime_now", written_time);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, without_marks(source))
            .map_err(|error| unservable(format!("its chat template cannot be compiled: {error}")))?;
        Ok(Self { environment, start: start.unwrap_or_default(), end: end.unwrap_or_default() })
    }

    /// The prompt of a conversation, ready for the assistant's answer.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no JSON array and what the template refuses.
    pub(crate) fn render(&self, conversation: Conversation<'_>) -> Result<String> {
        let Conversation { messages, tools, asked } = conversation;
        let array = |name: &str, json: &str| {
            let value: serde_json::Result<Vec<Json>> = serde_json::from_str(json);
            value.map_err(|error| Error::invalid(format!("'{name}' is no JSON array: {error}")))
        };
        let mut messages = array("messages", messages)?;
        messages.iter_mut().enumerate().try_for_each(|(at, message)| join_parts(at, message))?;
        let tools = tools.map(|tools| array("tools", tools)).transpose()?.map(Value::from_serialize);
        let beside = Beside { tools, asked };
        // Templates differ in what they take: they are given a conversation in each form until they take one.
        let (mut refusal, mut tried) = (None, Vec::with_capacity(FORMS.len()));
        for form in FORMS {
            let given: Vec<Json> = messages.iter().map(|message| form.of(message)).collect();
            if tried.contains(&given) {
                continue;
            }
            match self.render_form(&given, &beside) {
                Ok(prompt) if !form.text => return Ok(self.without_nulls(prompt, form, &messages, &beside)),
                Ok(prompt) => return Ok(prompt),
                Err(error) => refusal = refusal.or(Some(error)),
            }
            tried.push(given);
        }
        Err(refusal.unwrap_or_else(|| Error::invalid("the chat template takes no conversation")))
    }

    /// The same prompt, or where a template writes the contents that are null, which one that looks for them does not, that
    /// with empty ones.
    fn without_nulls(&self, prompt: String, form: Form, messages: &[Json], beside: &Beside) -> String {
        if !messages.iter().any(|message| message.get("content").is_some_and(Json::is_null)) {
            return prompt;
        }
        let given: Vec<Json> = messages.iter().map(|message| Form { text: true, ..form }.of(message)).collect();
        // Both differ in nothing but the word that stands for null.
        let rest = |prompt: &str| prompt.replace("None", "").replace("none", "");
        let empty = self.render_form(&given, beside).ok();
        empty.filter(|empty| rest(empty) == rest(&prompt)).unwrap_or(prompt)
    }

    fn render_form(&self, messages: &[Json], beside: &Beside) -> Result<String> {
        let values = context! {
            messages => Value::from_serialize(messages),
            tools => beside.tools,
            orion_asked => beside.asked,
            add_generation_prompt => true,
            bos_token => self.start,
            eos_token => self.end,
        };
        let refused = |error: minijinja::Error| {
            let detail = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            Error::invalid(format!("the chat template refuses the conversation: {detail}"))
        };
        let mut out = Bounded(Vec::new());
        let template = self.environment.get_template(NAME).map_err(refused)?;
        template.render_captured_to(values, &mut out).map_err(refused)?;
        String::from_utf8(out.0).map_err(|error| Error::invalid(format!("the chat template wrote no UTF-8: {error}")))
    }
}

/// The time at which a conversation was sent, in UTC: not that of the worker, or it would go on elsewhere with another prompt.
fn written_time(state: &State<'_, '_>, format: &str) -> std::result::Result<String, minijinja::Error> {
    let refused = |error: &dyn std::fmt::Display| {
        let text = format!("'{format}' does not say how a time is written: {error}");
        minijinja::Error::new(ErrorKind::InvalidOperation, text)
    };
    let asked = state.lookup("orion_asked").and_then(|asked| i64::try_from(asked).ok()).unwrap_or(0);
    let time = Timestamp::from_second(asked).map_err(|error| refused(&error))?.to_zoned(TimeZone::UTC);
    strtime::format(format, &time).map_err(|error| refused(&error))
}

/// How a message stands where clients and templates differ.
#[derive(Clone, Copy)]
struct Form {
    /// Arguments of tool calls, which clients send as JSON text, are the object that it says.
    objects: bool,
    /// A content of null is an empty text.
    text: bool,
}

/// First what templates of Hugging Face are given, then what those take that put texts together: arguments as text, and null
/// where they look for it, before what has none.
const FORMS: [Form; 4] = [
    Form { objects: true, text: false },
    Form { objects: false, text: false },
    Form { objects: true, text: true },
    Form { objects: false, text: true },
];

impl Form {
    fn of(self, message: &Json) -> Json {
        let mut message = message.clone();
        if let Some(content @ Json::Null) = message.get_mut("content").filter(|_| self.text) {
            *content = "".into();
        }
        let calls = message.get_mut("tool_calls").filter(|_| self.objects).and_then(Json::as_array_mut);
        for call in calls.into_iter().flatten() {
            let Some(arguments) = call.get_mut("function").and_then(|function| function.get_mut("arguments")) else {
                continue;
            };
            // Some clients send nothing at all for a call without arguments.
            let said = arguments.as_str().map(|text| if text.trim().is_empty() { "{}" } else { text });
            if let Some(object @ Json::Object(_)) = said.and_then(|text| serde_json::from_str(text).ok()) {
                *arguments = object;
            }
        }
        message
    }
}

/// A content of parts becomes their text.
fn join_parts(at: usize, message: &mut Json) -> Result<()> {
    if let Some(content @ Json::Array(_)) = message.get_mut("content") {
        *content = text_of(at, content)?.into();
    }
    Ok(())
}

/// The text of a content's parts, a line each.
fn text_of(at: usize, content: &Json) -> Result<String> {
    let parts = content.as_array().into_iter().flatten();
    let text = |part: &Json| match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (Some("text"), None) => Err(Error::invalid(format!("message {at} has a part of type text without a 'text'"))),
        (Some(other), _) => Err(Error::invalid(format!(
            "message {at} has a part of type '{other}', this model takes parts of type text"
        ))),
        (None, _) => Err(Error::invalid(format!("message {at} has a part without a 'type', such as text"))),
    };
    Ok(parts.map(text).collect::<Result<Vec<_>>>()?.join("\n"))
}

/// Leaves out the marks of an assistant's own text, which only training reads.
fn without_marks(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length + 2;
        let inner = rest[start + 2..end - 2].trim_matches(['-', '+', ' ', '\n', '\t']);
        out.push_str(&rest[..start]);
        if !matches!(inner, "generation" | "endgeneration") {
            out.push_str(&rest[start..end]);
        }
        rest = &rest[end..];
    }
    out + rest
}

/// A text that does not grow without end.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::other(format!("it writes more than {MOST_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON as Python's `json.dumps` writes it, which templates were made with.
fn to_json(value: Value, options: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    let failed = |error: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Python)).map_err(failed)?,
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

/// A space after each comma and colon.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &str, tools: Option<&str>) -> Result<String> {
        ChatTemplate::new(source, Some("<s>".into()), Some("</s>".into()))?.render(Conversation {
            messages,
            tools,
            asked: 1_780_000_000,
        })
    }

    #[test]
    fn conversations_are_written_as_the_template_says() {
        let source = "{% for message in messages %}\n{{ bos_token + message['role'].upper() }}: {{ message.content.strip() }}{% if not loop.last %}|{% endif %}{% endfor %}\n{%- if add_generation_prompt %}>{% endif %}";
        let messages = r#"[{"role":"user","content":" hi <b> "},{"role":"assistant","content":"é"}]"#;
        assert_eq!(render(source, messages, None).unwrap(), "<s>USER: hi <b>|<s>ASSISTANT: é>");
    }

    #[test]
    fn parts_become_text_and_the_arguments_of_calls_what_they_say() {
        let source = "{% for m in messages %}{{ '[' + m.content + ']' }}{% for call in m.tool_calls %}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}";
        let messages = r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{\"z\": 1, \"a\": [true]}"}},
            {"function":{"name":"g","arguments":"no JSON"}}]}]"#;
        assert_eq!(render(source, messages, None).unwrap(), "[a\nb][]{\"z\": 1, \"a\": [true]}\"no JSON\"");
        // One that looks for null and puts the arguments' text together with others.
        let joining = "{% for m in messages %}{% if m.content is none %}{{ '<' + m.tool_calls[0].function.arguments + '>' }}{% endif %}{% endfor %}";
        assert_eq!(render(joining, messages, None).unwrap(), "<{\"z\": 1, \"a\": [true]}>");
        let empty = r#"[{"role":"assistant","content":"","tool_calls":[{"function":{"arguments":""}},{"function":{"arguments":"3"}}]}]"#;
        let each = "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}";
        assert_eq!(render(each, empty, None).unwrap(), "{}\"3\"");
        for (part, words) in [
            (r#"{"type":"image_url","image_url":{"url":"x"}}"#, "message 0 has a part of type 'image_url'"),
            (r#"{"type":"text"}"#, "without a 'text'"),
            ("{}", "without a 'type'"),
            ("3", "without a 'type'"),
        ] {
            let error = render(source, &format!(r#"[{{"role":"user","content":[{part}]}}]"#), None).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn tools_are_written_as_python_does_and_in_their_order() {
        let tools = r#"[{"type":"function","function":{"name":"f","a":[1,true,null]}}]"#;
        let plain = render("{% for tool in tools %}{{ tool | tojson }}{% endfor %}", "[]", Some(tools)).unwrap();
        assert_eq!(plain, r#"{"type": "function", "function": {"name": "f", "a": [1, true, null]}}"#);
        let indented = render("{{ tools[0].function.a | tojson(indent=2) }}", "[]", Some(tools)).unwrap();
        assert_eq!(indented, "[\n  1,\n  true,\n  null\n]");
        assert_eq!(render("{% if tools %}t{% else %}n{% endif %}", "[]", None).unwrap(), "n");
    }

    #[test]
    fn what_a_template_refuses_and_what_would_never_end_is_told() {
        for (source, words) in [
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", "fuel"),
            ("{{ messages.nothing.at_all }}", "undefined"),
        ] {
            let error = render(source, "[]", None).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
        assert!(render("{% if %}", "[]", None).unwrap_err().message.contains("cannot be compiled"));
        assert!(render("", "{}", None).unwrap_err().message.contains("'messages' is no JSON array"));
        assert_eq!(render("a{%- generation -%}b{% endgeneration %}", "[]", None).unwrap(), "ab");
    }

    #[test]
    fn the_time_is_that_of_the_request() {
        let source = "{% if strftime_now is defined %}{{ strftime_now('%d %B %Y, %H:%M') }}{% endif %}";
        assert_eq!(render(source, "[]", None).unwrap(), "28 May 2026, 20:26");
        let error = render("{{ strftime_now('%Y %') }}", "[]", None).unwrap_err();
        assert!(error.message.contains("'%Y %' does not say how a time is written"), "{error}");
    }

    #[test]
    fn a_null_content_is_never_written() {
        let messages = r#"[{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},{"role":"user","content":"None"}]"#;
        for source in [
            "{% for m in messages %}[{{ m.content }}]{% endfor %}",
            "{% for m in messages %}{{ '[' + m.content | trim + ']' }}{% endfor %}",
            "{% for m in messages %}{{ '[' ~ m.content ~ ']' }}{% endfor %}",
            "{% for m in messages %}[{% if m.content is not none %}{{ m.content }}{% endif %}]{% endfor %}",
        ] {
            assert_eq!(render(source, messages, None).unwrap(), "[][None]", "{source}");
        }
        // Who looks for null and says nothing otherwise keeps it, whatever its calls say.
        let calls = messages.replace("{}", r#"{\"a\": \"none\"}"#);
        let source = "{% for m in messages %}{% if m.content is none %}{{ '<' + m.tool_calls[0].function.arguments + '>' }}{% endif %}{% endfor %}";
        assert_eq!(render(source, &calls, None).unwrap(), r#"<{"a": "none"}>"#);
    }
}
