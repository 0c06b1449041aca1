//! `orion.v1.Files`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use orion_proto::{
    Code, Error,
    files::{
        File, FilePiece, FileRequest, ListFilesRequest, ListFilesResponse, PutFileRequest, ReadFileRequest,
        files_client::FilesClient, files_server,
    },
};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, transport::Channel};

use super::leader::{self, Doer, Leading, off_thread, reached};
use crate::{
    jobs::{
        Jobs,
        answers::Answers,
        files::{MOST_BYTES, announced},
        seat::Seat,
        view::View,
    },
    journal::Staging,
};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Pieces on their way to the disk, or from it.
const AHEAD: usize = 4;

type Answer<T> = Result<Response<T>, Status>;

/// The service of this scheduler.
#[derive(Clone)]
pub struct FilesService(Leading);

impl FilesService {
    /// Speaks for whoever runs the jobs.
    pub fn new(seat: watch::Receiver<Seat>) -> Self {
        Self(Leading::new(seat))
    }

    /// Keeps a file that comes in pieces.
    pub(crate) async fn put_pieces(
        &self,
        metadata: &MetadataMap,
        pieces: impl Stream<Item = Result<PutFileRequest, Status>> + Send + Unpin + 'static,
    ) -> Answer<File> {
        match self.0.doer(metadata)? {
            Doer::Here(jobs) => Ok(Response::new(keep(jobs, pieces).await?)),
            Doer::There(shared) => {
                let leader = self.0.stream_there(metadata)?.unwrap_or(shared);
                let (broken, why) = broken_off(pieces);
                let answer = FilesClient::new(leader).put(leader::passed(metadata, broken)).await;
                // A client that broke off has not asked for the file.
                match why.await {
                    Ok(status) => Err(status),
                    Err(_) => answer.map_err(leader::known),
                }
            }
        }
    }

    /// The bytes of a file, or of what came of a job's.
    pub(crate) async fn pieces(
        &self,
        metadata: &MetadataMap,
        asked: ReadFileRequest,
    ) -> Result<BoxStream<'static, Result<FilePiece, Status>>, Status> {
        let (view, id) = (self.0.view()?, asked.id.clone());
        let (of, from) = (view.clone(), asked.from);
        let opened = off_thread(move || Reading::open(of, &id, from)).await;
        if opened.is_err()
            && let Some(leader) = self.0.stream_there(metadata)?
            && let Some(answer) = reached(FilesClient::new(leader).read(leader::passed(metadata, asked)).await)
        {
            return Ok(answer?.into_inner().map_err(leader::known).boxed());
        }
        Ok(read(opened.map_err(|error| self.0.unsure(error))?).boxed())
    }

    async fn at_leader(&self, metadata: &MetadataMap, asked: &FileRequest) -> Option<Answer<File>> {
        let leader: Channel = self.0.there(metadata)?;
        reached(FilesClient::new(leader).get(leader::passed(metadata, asked.clone())).await)
    }
}

/// A stream that ends where its client breaks off; and then, why.
fn broken_off(
    pieces: impl Stream<Item = Result<PutFileRequest, Status>> + Send + Unpin + 'static,
) -> (impl Stream<Item = PutFileRequest> + Send + 'static, tokio::sync::oneshot::Receiver<Status>) {
    let (told, why) = tokio::sync::oneshot::channel();
    let whole = stream::unfold((pieces, Some(told)), |(mut pieces, mut told)| async move {
        match pieces.next().await {
            Some(Ok(piece)) => Some((piece, (pieces, told))),
            Some(Err(status)) => {
                let _ = told.take()?.send(status);
                None
            }
            None => None,
        }
    });
    (whole, why)
}

/// Takes a file up and keeps it.
async fn keep(
    jobs: Jobs,
    mut pieces: impl Stream<Item = Result<PutFileRequest, Status>> + Send + Unpin,
) -> Result<File, Status> {
    let begins = jobs.clone();
    let staging = off_thread(move || begins.stage()).await?;
    let (sender, receiver) = mpsc::channel::<Bytes>(AHEAD);
    let written = tokio::task::spawn_blocking(move || write(staging, receiver));
    let (mut name, mut purpose, mut keep, mut bytes) = (String::new(), String::new(), 0, 0u64);
    while let Some(next) = pieces.next().await {
        let next = next?;
        if !next.name.is_empty() {
            name = next.name;
        }
        if !next.purpose.is_empty() {
            purpose = next.purpose;
        }
        keep = if next.keep_ms == 0 { keep } else { next.keep_ms };
        bytes = bytes.saturating_add(next.piece.len() as u64);
        if bytes > MOST_BYTES {
            return Err(Error::invalid(format!("the file is too large, one may have {MOST_BYTES} bytes")).into());
        }
        // Where it cannot be written, that is said below.
        if !next.piece.is_empty() && sender.send(next.piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let failed = |_| Error::new(Code::Internal, "keeping the file failed unexpectedly");
    let staging = written.await.map_err(failed)??;
    Ok(jobs.keep_file(announced(&name, &purpose, keep)?, staging).await?)
}

fn write(mut staging: Box<dyn Staging>, mut pieces: mpsc::Receiver<Bytes>) -> orion_proto::Result<Box<dyn Staging>> {
    while let Some(piece) = pieces.blocking_recv() {
        staging.write(&piece)?;
    }
    Ok(staging)
}

/// A file that is being read.
enum Reading {
    Kept {
        view: Arc<View>,
        file: File,
        from: u64,
    },
    /// What came of a job's, after so many bytes.
    Answers(Answers, u64),
}

impl Reading {
    fn open(view: Arc<View>, id: &str, from: u64) -> orion_proto::Result<Self> {
        if let Some(answers) = Answers::open(&view, id)? {
            return Ok(Self::Answers(answers, from));
        }
        let file = view.file(id)?;
        Ok(Self::Kept { view, file, from })
    }

    fn next(&mut self) -> orion_proto::Result<Option<Bytes>> {
        match self {
            Self::Kept { view, file, from } => {
                let piece = view.read_file(file, *from, PIECE)?;
                *from = from.saturating_add(piece.len() as u64);
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::Answers(answers, skip) => {
                while let Some(mut lines) = answers.next()? {
                    let skipped = lines.split_to(usize::try_from(*skip).unwrap_or(usize::MAX).min(lines.len()));
                    *skip -= skipped.len() as u64;
                    if !lines.is_empty() {
                        return Ok(Some(lines));
                    }
                }
                Ok(None)
            }
        }
    }
}

fn read(mut reading: Reading) -> impl Stream<Item = Result<FilePiece, Status>> + Send {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        while let Some(piece) = reading.next().transpose() {
            let is_last = piece.is_err();
            let piece = piece.map(|piece| FilePiece { piece }).map_err(Status::from);
            // A client that is gone reads no more.
            if sender.blocking_send(piece).is_err() || is_last {
                break;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

#[tonic::async_trait]
impl files_server::Files for FilesService {
    type ReadStream = BoxStream<'static, Result<FilePiece, Status>>;

    async fn put(&self, request: Request<Streaming<PutFileRequest>>) -> Answer<File> {
        let (metadata, _, pieces) = request.into_parts();
        self.put_pieces(&metadata, pieces).await
    }

    async fn get(&self, request: Request<FileRequest>) -> Answer<File> {
        let (metadata, _, asked) = request.into_parts();
        if let Some(answer) = self.at_leader(&metadata, &asked).await {
            return answer;
        }
        let view = self.0.view()?;
        let file = off_thread(move || view.file(&asked.id)).await;
        Ok(Response::new(file.map_err(|error| self.0.unsure(error))?))
    }

    async fn list(&self, request: Request<ListFilesRequest>) -> Answer<ListFilesResponse> {
        let (metadata, _, asked) = request.into_parts();
        if let Some(leader) = self.0.there(&metadata)
            && let Some(answer) = reached(FilesClient::new(leader).list(leader::passed(&metadata, asked.clone())).await)
        {
            return answer;
        }
        let view = self.0.view()?;
        Ok(Response::new(off_thread(move || view.files(&asked)).await?))
    }

    async fn delete(&self, request: Request<FileRequest>) -> Answer<File> {
        let (metadata, _, asked) = request.into_parts();
        match self.0.doer(&metadata)? {
            Doer::There(leader) => {
                FilesClient::new(leader).delete(leader::passed(&metadata, asked)).await.map_err(leader::known)
            }
            Doer::Here(jobs) => Ok(Response::new(jobs.drop_file(&asked.id).await?)),
        }
    }

    async fn read(&self, request: Request<ReadFileRequest>) -> Answer<Self::ReadStream> {
        let (metadata, _, asked) = request.into_parts();
        Ok(Response::new(self.pieces(&metadata, asked).await?))
    }
}
