//! Request bodies: read within a limit, into one run of bytes however many chunks they come in.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header::CONTENT_ENCODING},
};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use orion_proto::{Code, Error};

use super::reply::Failure;
use crate::api::budget::{Held, STALL};

/// Bytes set aside on a Content-Length's word; more grows as it arrives.
const TRUSTED_BYTES: u64 = 4 << 20;
/// JSON text from this size on is parsed or written off the threads that do the I/O.
pub(super) const BLOCKING_BYTES: usize = 256 << 10;

/// The body, which is copied only when it does not arrive in one piece.
///
/// # Errors
/// 413 above `limit` bytes, before anything is read if the length is declared; 415 for a compressed body; 400 when it
/// ends early.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, limit: usize, mut held: Held) -> Result<Bytes, Failure> {
    refuse_encodings(headers)?;
    let declared = body.size_hint().lower();
    if declared > limit as u64 {
        return Err(too_large(&format!("request body of {declared} bytes is"), limit));
    }
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() <= limit && body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len().max(declared.min(TRUSTED_BYTES) as usize));
    let mut piece = first;
    loop {
        if piece.len() > limit - whole.len() {
            return Err(too_large("request body is", limit));
        }
        held.add(piece.len())?;
        whole.extend_from_slice(&piece);
        let more = tokio::time::timeout(STALL, next(&mut body)).await;
        let stalled =
            |_| Error::new(Code::DeadlineExceeded, format!("the request body stood still for {} s", STALL.as_secs()));
        match more.map_err(stalled)?? {
            Some(more) => piece = more,
            None => return Ok(whole.freeze()),
        }
    }
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::invalid("the request body ended early or is not framed well"))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn refuse_encodings(headers: &HeaderMap) -> Result<(), Failure> {
    let encoded = |value: &&axum::http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().find(encoded) {
        None => Ok(()),
        Some(encoding) => {
            let encoding: String = String::from_utf8_lossy(encoding.as_bytes()).chars().take(32).collect();
            let text =
                format!("a request body encoded as '{encoding}' is not served, send it without Content-Encoding");
            Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

fn too_large(what: &str, limit: usize) -> Failure {
    let message = format!("{what} above the limit of {limit} bytes, which --max-message-mb sets");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// Runs work on `bytes` of JSON: here when it is short, else on a thread of its own.
///
/// # Errors
/// Those of the work.
pub(super) async fn off_the_loop<T, E>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    if bytes < BLOCKING_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(Code::Cancelled, "the server is stopping").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::budget::Budget;

    fn held() -> Held {
        Budget::new(1 << 20).hold()
    }

    fn chunks(pieces: Vec<&'static [u8]>) -> Body {
        Body::from_stream(futures::stream::iter(pieces.into_iter().map(|p| Ok::<_, std::io::Error>(Bytes::from(p)))))
    }

    async fn status(body: Body, limit: usize) -> Result<Bytes, u16> {
        read(&HeaderMap::new(), body, limit, held()).await.map_err(|failure| failure.status.as_u16())
    }

    #[tokio::test]
    async fn bodies_are_joined_up_to_the_limit() {
        assert_eq!(status(chunks(vec![b"a"; 1000]), 1000).await.unwrap(), vec![b'a'; 1000]);
        assert_eq!(status(chunks(vec![b"a"; 1001]), 1000).await, Err(413));
        assert_eq!(status(chunks(vec![]), 0).await.unwrap(), Bytes::new());
        let whole = Bytes::from(vec![7; 1000]);
        let address = whole.as_ptr();
        assert_eq!(status(Body::from(whole.clone()), 1000).await.unwrap().as_ptr(), address);
        let failure = read(&HeaderMap::new(), Body::from(whole), 999, held()).await.unwrap_err();
        assert_eq!(failure.status, 413);
        assert!(failure.message.contains("1000 bytes") && failure.message.contains("--max-message-mb"));
    }

    #[tokio::test]
    async fn compressed_and_broken_bodies_are_refused() {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, axum::http::HeaderValue::from_static("gzip"))]);
        assert_eq!(read(&headers, Body::from("x"), 10, held()).await.unwrap_err().status, 415);
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("reset"))]);
        assert_eq!(status(Body::from_stream(broken), 10).await, Err(400));
    }
}
