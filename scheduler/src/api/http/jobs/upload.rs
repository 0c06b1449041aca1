//! A form with a file, which is kept as it comes: nowhere is all of it in memory.

use axum::{
    extract::{FromRequest, Multipart, Request, State, multipart::Field},
    response::Response,
};
use bytes::Bytes;
use orion_proto::{Code, Error, Result, files::PutFileRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Api, files::shown, metadata, refused};
use crate::api::{
    budget::STALL,
    http::{
        openai::Refusal,
        reply::{self, excerpt},
    },
};

/// Pieces on their way.
const AHEAD: usize = 4;
/// Bytes of a field that is no file.
const FIELD_BYTES: usize = 1024;

type Pieces = mpsc::Sender<std::result::Result<PutFileRequest, Status>>;

pub(super) async fn upload(State(api): State<Api>, request: Request) -> std::result::Result<Response, Refusal> {
    let metadata = metadata(request.headers());
    let form = Multipart::from_request(request, &())
        .await
        .map_err(|_| Error::invalid("the request must be a form: Content-Type multipart/form-data with a boundary"))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let sent = async move {
        if let Err(error) = send(form, &sender).await {
            // Whoever keeps it may have refused it before.
            let _ = sender.send(Err(error.into())).await;
        }
    };
    let kept = api.0.files.put_pieces(&metadata, ReceiverStream::new(receiver));
    let ((), kept) = tokio::join!(sent, kept);
    let file = kept.map_err(|status| refused(&status))?.into_inner();
    Ok(reply::json(&shown(&file)))
}

/// Sends the form's file and what is said of it.
async fn send(mut form: Multipart, pieces: &Pieces) -> Result<()> {
    let mut has_file = false;
    while let Some(mut field) = in_time(form.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if has_file => return Err(Error::invalid("the form has several files, it must have one")),
            "file" => {
                has_file = true;
                let name = field.file_name().unwrap_or_default().to_owned();
                give(pieces, PutFileRequest { name, ..Default::default() }).await;
                while let Some(piece) = in_time(field.chunk()).await? {
                    if !give(pieces, PutFileRequest { piece, ..Default::default() }).await {
                        return Ok(());
                    }
                }
            }
            "purpose" => {
                let purpose = text(field).await?;
                give(pieces, PutFileRequest { purpose, ..Default::default() }).await;
            }
            "expires_after[seconds]" => {
                let seconds = text(field).await?;
                let keep_ms =
                    seconds.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000)).filter(|ms| *ms > 0);
                let wrong = || {
                    Error::invalid(format!("expires_after[seconds] '{}' must be a number from 1", excerpt(&seconds)))
                };
                give(pieces, PutFileRequest { keep_ms: keep_ms.ok_or_else(wrong)?, ..Default::default() }).await;
            }
            "expires_after[anchor]" => {
                let anchor = text(field).await?;
                if anchor != "created_at" {
                    return Err(Error::invalid(format!(
                        "expires_after[anchor] '{}' must be created_at",
                        excerpt(&anchor)
                    )));
                }
            }
            other => {
                return Err(Error::invalid(format!(
                    "field '{}' is unknown, the form has file, purpose and expires_after",
                    excerpt(other)
                )));
            }
        }
    }
    if !has_file {
        return Err(Error::invalid("the form has no field 'file'"));
    }
    give(pieces, PutFileRequest { is_whole: true, ..Default::default() }).await;
    Ok(())
}

/// Whether it is wanted still.
async fn give(pieces: &Pieces, piece: PutFileRequest) -> bool {
    pieces.send(Ok(piece)).await.is_ok()
}

async fn text(mut field: Field<'_>) -> Result<String> {
    let mut whole = Vec::new();
    while let Some(piece) = in_time(field.chunk()).await? {
        let piece: Bytes = piece;
        if whole.len() + piece.len() > FIELD_BYTES {
            let name = excerpt(field.name().unwrap_or_default());
            return Err(Error::invalid(format!("field '{name}' is longer than {FIELD_BYTES} bytes")));
        }
        whole.extend_from_slice(&piece);
    }
    String::from_utf8(whole).map_err(|_| Error::invalid("a field of the form is no UTF-8 text"))
}

/// Waits for a client that goes on sending.
async fn in_time<T>(
    next: impl Future<Output = std::result::Result<T, axum::extract::multipart::MultipartError>>,
) -> Result<T> {
    let stalled = |_| Error::new(Code::DeadlineExceeded, format!("the form stood still for {} s", STALL.as_secs()));
    let next = tokio::time::timeout(STALL, next).await.map_err(stalled)?;
    next.map_err(|error| Error::invalid(format!("the form cannot be read: {}", error.body_text().to_lowercase())))
}
