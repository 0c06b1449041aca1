//! Sequences of requests, of which a model keeps a state between them: Triton's extension of the Open Inference Protocol.

use crate::{
    Error, Result,
    infer::{number, routing_key},
    inference::{InferParameter, infer_parameter::ParameterChoice},
};

/// A place in a sequence of requests, of which a model keeps a state between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// Which sequence: the parameter `sequence_id` as a number, or the [`routing_key`] of its text. 0 where only a flag was
    /// given, which a model that keeps states refuses.
    pub key: u64,
    /// The first request of its sequence.
    pub start: bool,
    /// The last one.
    pub end: bool,
}

/// A sequence's key; 0 and no text at all stand for none, as in Triton.
pub(crate) fn key(name: &str, value: &InferParameter) -> Result<Option<u64>> {
    Ok(match &value.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Some(routing_key(text)).filter(|_| !text.is_empty()),
        Some(ParameterChoice::Int64Param(_) | ParameterChoice::Uint64Param(_)) => {
            Some(number(name, value)?).filter(|key| *key != 0)
        }
        _ => return Err(Error::invalid(format!("parameter '{name}' must be a string or a whole number, 0 or more"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameters;

    #[test]
    fn a_sequence_is_read_in_any_order_and_runs_once() {
        let value = |choice| InferParameter { parameter_choice: Some(choice) };
        let read = |list: &[(&str, ParameterChoice)]| {
            let mut parameters = Parameters::default();
            list.iter().for_each(|(name, choice)| parameters.set(name, &value(choice.clone())).unwrap());
            (parameters.sequence, parameters.idempotent)
        };
        let yes = || ParameterChoice::BoolParam(true);
        let (id, number) = (|text: &str| ParameterChoice::StringParam(text.into()), ParameterChoice::Int64Param);
        let expected = Sequence { key: 7, start: true, end: false };
        for list in [
            [("sequence_id", number(7)), ("sequence_start", yes()), ("idempotent", yes())],
            [("idempotent", yes()), ("sequence_start", yes()), ("sequence_id", ParameterChoice::Uint64Param(7))],
        ] {
            assert_eq!(read(&list), (Some(expected), false));
        }
        let named = read(&[("sequence_end", yes()), ("sequence_id", id("call 7"))]).0;
        assert_eq!(named, Some(Sequence { key: routing_key("call 7"), start: false, end: true }));
        // Triton's clients say 0 or nothing for no sequence.
        let none = [("sequence_id", number(0)), ("sequence_start", ParameterChoice::BoolParam(false))];
        assert_eq!(read(&none), (None, true));
        assert_eq!(read(&[("sequence_id", id(""))]), (None, true));
        assert_eq!(read(&[("sequence_start", yes())]).0.map(|sequence| sequence.key), Some(0));
    }
}
