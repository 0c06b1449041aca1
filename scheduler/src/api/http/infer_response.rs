//! The answer of `infer`: JSON, and behind it the pieces of the outputs that travel in binary, never copied together.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use orion_proto::{Result, Tensor};

use super::{element_json, infer_request::OutputForms, reply};

/// Says how many bytes of a body are JSON; tensors follow.
pub(super) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Bytes of tensors that will be written as JSON.
pub(super) fn json_bytes(outputs: &[Tensor], forms: &OutputForms) -> usize {
    outputs.iter().filter(|tensor| !forms.binary(&tensor.name)).map(|tensor| tensor.data.len()).sum()
}

/// The response of a model of this name and version to a request with this `id`.
///
/// # Errors
/// INVALID_ARGUMENT when an output that was not asked for in binary cannot be JSON.
pub(super) fn render(
    name: &str,
    version: &str,
    outputs: Vec<Tensor>,
    id: &str,
    forms: &OutputForms,
) -> Result<Response> {
    let mut head = Vec::with_capacity(256 + 3 * json_bytes(&outputs, forms));
    head.push(b'{');
    if !id.is_empty() {
        field(&mut head, "id", id);
        head.push(b',');
    }
    field(&mut head, "model_name", name);
    head.push(b',');
    field(&mut head, "model_version", version);
    head.extend_from_slice(b",\"outputs\":[");
    let mut pieces = VecDeque::new();
    let mut any_binary = false;
    for (index, tensor) in outputs.into_iter().enumerate() {
        if index > 0 {
            head.push(b',');
        }
        let binary = forms.binary(&tensor.name);
        output(&mut head, &tensor, binary)?;
        if binary {
            any_binary = true;
            pieces.extend(tensor.data.pieces().iter().filter(|piece| !piece.is_empty()).cloned());
        }
    }
    head.extend_from_slice(b"]}");
    Ok(if any_binary { binary_response(head, pieces) } else { reply::json_bytes(head) })
}

fn output(head: &mut Vec<u8>, tensor: &Tensor, binary: bool) -> Result<()> {
    head.push(b'{');
    field(head, "name", &tensor.name);
    head.push(b',');
    field(head, "datatype", tensor.datatype.name());
    head.extend_from_slice(b",\"shape\":");
    value(head, &tensor.shape);
    if binary {
        head.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        value(head, &tensor.data.len());
        head.push(b'}');
    } else {
        head.extend_from_slice(b",\"data\":");
        element_json::write(head, tensor)?;
    }
    head.push(b'}');
    Ok(())
}

fn field(head: &mut Vec<u8>, name: &str, content: &str) {
    head.push(b'"');
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b"\":");
    value(head, content);
}

fn value<T: serde::Serialize + ?Sized>(head: &mut Vec<u8>, content: &T) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(head, content);
}

fn binary_response(head: Vec<u8>, mut pieces: VecDeque<Bytes>) -> Response {
    let header_length = HeaderValue::from(head.len());
    pieces.push_front(Bytes::from(head));
    let left = pieces.iter().map(|piece| piece.len() as u64).sum();
    let mut response = Response::new(Body::new(Pieces { pieces, left }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(HEADER_LENGTH, header_length);
    response
}

/// A body of pieces, sent in order.
struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests;
