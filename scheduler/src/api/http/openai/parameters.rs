//! Fields of Orion's own beside those of a dialect; OpenAI's clients send them as `extra_body`.

use orion_proto::Parameters;
use serde::Deserialize;

use super::Refusal;
use crate::api::http::parameters::Scalar;

/// What a request says of how it is scheduled.
#[derive(Debug, Deserialize)]
pub(super) struct Scheduling {
    #[serde(default)]
    priority: Option<Scalar>,
    /// Microseconds.
    #[serde(default)]
    timeout: Option<Scalar>,
    #[serde(default)]
    routing_key: Option<Scalar>,
    #[serde(default)]
    idempotent: Option<Scalar>,
}

impl Scheduling {
    /// As the parameters of a request. `truncate`: whether texts beyond the model's limit are cut.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the field that is wrong.
    pub(super) fn parameters(self, truncate: bool) -> Result<Parameters, Refusal> {
        let mut parameters = Parameters { truncate, ..Parameters::default() };
        let given = [
            ("priority", self.priority),
            ("timeout", self.timeout),
            ("routing_key", self.routing_key),
            ("idempotent", self.idempotent),
        ];
        for (name, value) in given {
            let Some(value) = value else { continue };
            parameters.set(name, &value.into()).map_err(|error| Refusal::from(error).about(name))?;
        }
        Ok(parameters)
    }
}
