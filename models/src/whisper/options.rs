//! What a request may say of how its audio is transcribed: the parameters `prompt`, `temperature` and `language`.

use orion_proto::{
    Error, Result,
    inference::{InferParameter, infer_parameter::ParameterChoice},
};

/// Characters of a prompt that are read, its last: more do not fit before a transcript.
const PROMPT_CHARACTERS: usize = 2048;

/// How an audio is transcribed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    /// What is taken to have been said before, for names and spelling; may be empty.
    pub(super) prompt: String,
    /// The temperature of the only try; none: as many tries as it takes, each hotter than the last.
    pub(super) temperature: Option<f32>,
}

impl Options {
    /// Reads a request's parameters; those of other names are not looked at.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the parameter whose value cannot be used.
    pub(super) fn read(parameters: &[(String, InferParameter)]) -> Result<Self> {
        let mut options = Self::default();
        for (name, value) in parameters {
            let value = value.parameter_choice.as_ref();
            match name.as_str() {
                "prompt" => options.prompt = last_characters(text(name, value)?),
                "temperature" => options.temperature = Some(temperature(value)?).filter(|t| *t > 0.0),
                "language" => language(text(name, value)?)?,
                _ => {}
            }
        }
        Ok(options)
    }
}

fn text<'a>(name: &str, value: Option<&'a ParameterChoice>) -> Result<&'a str> {
    match value {
        Some(ParameterChoice::StringParam(text)) => Ok(text),
        _ => Err(Error::invalid(format!("parameter '{name}' must be a string"))),
    }
}

fn last_characters(text: &str) -> String {
    let from = text.char_indices().rev().take(PROMPT_CHARACTERS).last().map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

fn temperature(value: Option<&ParameterChoice>) -> Result<f32> {
    let number = match value {
        Some(ParameterChoice::DoubleParam(number)) => Some(*number),
        Some(ParameterChoice::Int64Param(number)) => Some(*number as f64),
        Some(ParameterChoice::Uint64Param(number)) => Some(*number as f64),
        Some(ParameterChoice::StringParam(text)) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(number) if (0.0..=1.0).contains(&number) => Ok(number as f32),
        _ => Err(Error::invalid("parameter 'temperature' must be a number from 0 to 1; 0 chooses it by itself")),
    }
}

fn language(name: &str) -> Result<()> {
    match name.to_ascii_lowercase().as_str() {
        "" | "en" | super::LANGUAGE => Ok(()),
        other => {
            let shown: String = other.chars().take(32).collect();
            Err(Error::invalid(format!("parameter 'language' is '{shown}', the model knows 'en' alone")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, choice: ParameterChoice) -> Result<Options> {
        Options::read(&[(name.to_owned(), InferParameter { parameter_choice: Some(choice) })])
    }

    fn string(text: &str) -> ParameterChoice {
        ParameterChoice::StringParam(text.to_owned())
    }

    #[test]
    fn what_is_said_is_read_and_what_cannot_be_used_is_named() {
        assert_eq!(read("prompt", string("Dashwood")).unwrap().prompt, "Dashwood");
        let long = format!("x{}", "é".repeat(PROMPT_CHARACTERS));
        assert_eq!(read("prompt", string(&long)).unwrap().prompt, long[1..]);
        for (choice, want) in [
            (ParameterChoice::DoubleParam(0.25), Some(0.25)),
            (ParameterChoice::Int64Param(1), Some(1.0)),
            (string("0.5"), Some(0.5)),
            (ParameterChoice::DoubleParam(0.0), None),
        ] {
            assert_eq!(read("temperature", choice).unwrap().temperature, want);
        }
        for language in ["en", "EN", "english", ""] {
            assert_eq!(read("language", string(language)).unwrap(), Options::default());
        }
        assert_eq!(read("sequence_id", ParameterChoice::Int64Param(1)).unwrap(), Options::default());
        for (name, choice, words) in [
            ("prompt", ParameterChoice::Int64Param(1), "parameter 'prompt' must be a string"),
            ("temperature", ParameterChoice::DoubleParam(1.5), "a number from 0 to 1"),
            ("temperature", ParameterChoice::DoubleParam(f64::NAN), "a number from 0 to 1"),
            ("temperature", string("warm"), "a number from 0 to 1"),
            ("language", string("de"), "'language' is 'de', the model knows 'en' alone"),
        ] {
            let error = read(name, choice).unwrap_err();
            assert!(error.code == orion_proto::Code::InvalidArgument && error.message.contains(words), "{error}");
        }
    }
}
