//! Fields of Orion's own beside those of a dialect; OpenAI's clients send them as `extra_body`.

use orion_proto::Parameters;

use super::Refusal;
use crate::api::http::parameters::Scalar;

/// The parameters of a request that gives these fields.
pub(super) fn beside(truncate: bool, given: [(&'static str, Option<Scalar>); 4]) -> Result<Parameters, Refusal> {
    let mut parameters = Parameters { truncate, ..Parameters::default() };
    for (name, value) in given {
        let Some(value) = value else { continue };
        parameters.set(name, &value.into()).map_err(|error| Refusal::from(error).about(name))?;
    }
    Ok(parameters)
}
