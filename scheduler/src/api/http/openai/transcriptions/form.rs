//! The fields of a transcription request, from the parts of its form.

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request, multipart::Field},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use bytes::{Bytes, BytesMut};
use orion_proto::Error;

use super::{
    super::{Refusal, settings::about},
    format::Format,
};
use crate::api::http::reply;

/// Fields that go to the model under their own names.
pub(super) const MODEL_PARAMETERS: [&str; 3] = ["prompt", "temperature", "language"];
/// Fields that only Orion knows: the package sends them as `extra_body`.
const PARAMETERS: [&str; 4] = ["priority", "timeout", "routing_key", "idempotent"];
/// Fields that a form may have, the unknown ones included.
const MOST_FIELDS: usize = 64;
/// Bytes of a field that is no file.
const MOST_FIELD_BYTES: usize = 64 << 10;
/// Bytes of the body that are looked at before others get their turn.
const PIECE: usize = 64 << 10;

/// A transcription request. Fields that are not here, such as `chunking_strategy`, are not used.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) file: Bytes,
    pub(super) model: String,
    pub(super) format: Format,
    /// For the scheduler and the model, as they were given.
    pub(super) parameters: Vec<(&'static str, String)>,
}

/// The fields as they come.
#[derive(Default)]
struct Fields {
    file: Option<Bytes>,
    model: Option<String>,
    format: Option<Format>,
    has_granularities: bool,
    parameters: Vec<(&'static str, String)>,
}

impl Form {
    /// Reads the form in `body`, whose boundary the headers say.
    pub(super) async fn read(headers: &HeaderMap, body: Bytes) -> Result<Self, Refusal> {
        let mut form = multipart(headers, body).await?;
        let mut fields = Fields::default();
        let mut count = 0;
        while let Some(field) = form.next_field().await.map_err(|error| unreadable(&error.body_text()))? {
            count += 1;
            if count > MOST_FIELDS {
                return Err(Error::invalid(format!("the form has more than {MOST_FIELDS} fields")).into());
            }
            fields.take(field).await?;
        }
        fields.whole()
    }
}

impl Fields {
    async fn take(&mut self, field: Field<'_>) -> Result<(), Refusal> {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let twice = self.file.replace(bytes(field, usize::MAX).await?).is_some();
            return if twice { Err(about("file", "the form has several files, it must have one")) } else { Ok(()) };
        }
        let value = bytes(field, MOST_FIELD_BYTES).await?;
        let text = || {
            let shown = reply::excerpt(&name);
            String::from_utf8(value.to_vec()).map_err(|_| Error::invalid(format!("field '{shown}' is no UTF-8 text")))
        };
        match name.as_str() {
            "model" => self.model = Some(text()?),
            "response_format" => self.format = Some(Format::read(&text()?)?),
            "timestamp_granularities[]" | "timestamp_granularities" => {
                self.has_granularities = true;
                granularity(&text()?)?;
            }
            "stream" if text()? == "true" => {
                return Err(about("stream", "transcriptions are not streamed, leave 'stream' out"));
            }
            _ => {
                let known = MODEL_PARAMETERS.iter().chain(&PARAMETERS).find(|known| **known == name);
                self.parameters.extend(known.map(|known| Ok::<_, Error>((*known, text()?))).transpose()?);
            }
        }
        Ok(())
    }

    fn whole(self) -> Result<Form, Refusal> {
        let missing = |field: &'static str| about(field, format!("the form has no field '{field}'"));
        let format = self.format.unwrap_or(Format::Json);
        if self.has_granularities && format != Format::VerboseJson {
            let text = "timestamp_granularities need a response_format of verbose_json";
            return Err(about("timestamp_granularities", text));
        }
        Ok(Form {
            file: self.file.ok_or_else(|| missing("file"))?,
            model: self.model.ok_or_else(|| missing("model"))?,
            format,
            parameters: self.parameters,
        })
    }
}

async fn multipart(headers: &HeaderMap, body: Bytes) -> Result<Multipart, Refusal> {
    let pieces = (0..body.len()).step_by(PIECE).map(move |at| body.slice(at..body.len().min(at + PIECE)));
    let pieces = pieces.map(Ok::<_, std::convert::Infallible>);
    let mut request = Request::new(Body::from_stream(futures::stream::iter(pieces)));
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        request.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    // The body was read within the server's own limit.
    DefaultBodyLimit::disable().apply(&mut request);
    let refused = |_| Error::invalid("the request must be a form: Content-Type multipart/form-data with a boundary");
    Ok(Multipart::from_request(request, &()).await.map_err(refused)?)
}

/// A field's value.
async fn bytes(mut field: Field<'_>, most: usize) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    while let Some(piece) = field.chunk().await.map_err(|error| unreadable(&error.body_text()))? {
        if piece.len() > most - whole.len() {
            let name = reply::excerpt(field.name().unwrap_or_default());
            return Err(Error::invalid(format!("field '{name}' is longer than {most} bytes")).into());
        }
        whole.extend_from_slice(&piece);
        // All is there already, so nothing else would let others in.
        tokio::task::yield_now().await;
    }
    Ok(whole.freeze())
}

fn unreadable(reason: &str) -> Refusal {
    Error::invalid(format!("the form cannot be read: {}", reason.to_lowercase())).into()
}

fn granularity(name: &str) -> Result<(), Refusal> {
    let field = "timestamp_granularities";
    match name {
        "segment" => Ok(()),
        "word" => Err(about(field, "times of words are not served, timestamp_granularities must be segment")),
        other => {
            let shown = reply::excerpt(other);
            Err(about(field, format!("timestamp_granularities '{shown}' is unknown, it must be segment")))
        }
    }
}
