//! Parameters that only some models know, on their way to a worker.

use crate::{
    inference::{InferParameter, infer_parameter::ParameterChoice},
    session::{Parameter, parameter::Value},
};

impl From<&(String, InferParameter)> for Parameter {
    fn from((name, value): &(String, InferParameter)) -> Self {
        let value = value.parameter_choice.as_ref().map(|choice| match choice {
            ParameterChoice::BoolParam(flag) => Value::Boolean(*flag),
            ParameterChoice::Int64Param(number) => Value::Integer(*number),
            ParameterChoice::Uint64Param(number) => Value::Natural(*number),
            ParameterChoice::DoubleParam(number) => Value::Number(*number),
            ParameterChoice::StringParam(text) => Value::Text(text.clone()),
        });
        Self { name: name.clone(), value }
    }
}

impl From<Parameter> for (String, InferParameter) {
    fn from(wire: Parameter) -> Self {
        let parameter_choice = wire.value.map(|value| match value {
            Value::Boolean(flag) => ParameterChoice::BoolParam(flag),
            Value::Integer(number) => ParameterChoice::Int64Param(number),
            Value::Natural(number) => ParameterChoice::Uint64Param(number),
            Value::Number(number) => ParameterChoice::DoubleParam(number),
            Value::Text(text) => ParameterChoice::StringParam(text),
        });
        (wire.name, InferParameter { parameter_choice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_arrives_as_it_was() {
        for choice in [
            None,
            Some(ParameterChoice::BoolParam(true)),
            Some(ParameterChoice::Int64Param(-3)),
            Some(ParameterChoice::Uint64Param(u64::MAX)),
            Some(ParameterChoice::DoubleParam(0.25)),
            Some(ParameterChoice::StringParam("é".into())),
        ] {
            let parameter = ("temperature".to_owned(), InferParameter { parameter_choice: choice });
            assert_eq!(<(String, InferParameter)>::from(Parameter::from(&parameter)), parameter);
        }
    }
}
