//! `orion.v1.Files`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
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
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, transport::Channel};

use super::leader::{self, Doer, Leading, off_thread, reached};
use crate::{
    api::budget::STALL,
    jobs::{
        Jobs,
        answers::Answers,
        files::{MOST_BYTES, announced},
        seat::Seat,
        view::View,
    },
    journal::Staging,
};

/// Bytes that are read or written at once.
const PIECE: usize = 256 << 10;
/// How long a file may take to come. What is staged for longer may be swept.
const LONGEST: Duration = Duration::from_secs(50 * 60);

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
                // One that broke off ends without having said that it is whole.
                let (told, broken) = oneshot::channel();
                let passed = leader::passed(metadata, until_broken(pieces, told));
                let answer = FilesClient::new(leader).put(passed).await.map_err(leader::known);
                match answer {
                    Err(status) => Err(broken.await.unwrap_or(status)),
                    answer => answer,
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
fn until_broken(
    pieces: impl Stream<Item = Result<PutFileRequest, Status>> + Send + Unpin + 'static,
    told: oneshot::Sender<Status>,
) -> impl Stream<Item = PutFileRequest> + Send + 'static {
    stream::unfold((pieces, Some(told)), |(mut pieces, mut told)| async move {
        match pieces.next().await? {
            Ok(piece) => Some((piece, (pieces, told))),
            Err(status) => {
                // Whoever asked may have gone.
                let _ = told.take()?.send(status);
                None
            }
        }
    })
}

/// Takes a file up and keeps it.
async fn keep(
    jobs: Jobs,
    mut pieces: impl Stream<Item = Result<PutFileRequest, Status>> + Send + Unpin,
) -> Result<File, Status> {
    let (begun, begins) = (Instant::now(), jobs.clone());
    let mut staging = off_thread(move || begins.stage()).await?;
    let (mut said, mut held, mut bytes) = (PutFileRequest::default(), BytesMut::new(), 0u64);
    while !said.is_whole {
        let next = tokio::time::timeout(STALL, pieces.next()).await;
        let Some(next) = next.map_err(|_| late(&format!("the file stood still for {} s", STALL.as_secs())))? else {
            return Err(Error::invalid("the file broke off, its last message must say that it is whole").into());
        };
        let mut next = next?;
        let piece = std::mem::take(&mut next.piece);
        bytes = bytes.saturating_add(piece.len() as u64);
        if bytes > MOST_BYTES {
            return Err(Error::invalid(format!("the file is too large, one may have {MOST_BYTES} bytes")).into());
        }
        if begun.elapsed() > LONGEST {
            return Err(late(&format!("the file took longer than {} s", LONGEST.as_secs())));
        }
        said = heard(said, next)?;
        held.extend_from_slice(&piece);
        if held.len() >= PIECE {
            staging = written(staging, held.split().freeze()).await?;
        }
    }
    let file = announced(&said.name, &said.purpose, said.keep_ms)?;
    let staging = written(staging, held.freeze()).await?;
    Ok(jobs.keep_file(file, staging).await?)
}

fn late(why: &str) -> Status {
    Error::new(Code::DeadlineExceeded, why).into()
}

/// What was said of a file so far; what is wrong is refused before the rest comes.
fn heard(mut said: PutFileRequest, next: PutFileRequest) -> Result<PutFileRequest, Status> {
    said.is_whole = next.is_whole;
    said.keep_ms = if next.keep_ms == 0 { said.keep_ms } else { next.keep_ms };
    if next.name.is_empty() && next.purpose.is_empty() {
        return Ok(said);
    }
    said.name = if next.name.is_empty() { said.name } else { next.name };
    said.purpose = if next.purpose.is_empty() { said.purpose } else { next.purpose };
    announced(if said.name.is_empty() { "not said yet" } else { &said.name }, &said.purpose, said.keep_ms)?;
    Ok(said)
}

/// With these bytes too.
async fn written(mut staging: Box<dyn Staging>, piece: Bytes) -> Result<Box<dyn Staging>, Status> {
    Ok(off_thread(move || staging.write(&piece).map(|()| staging)).await?)
}

/// A file that is being read.
enum Reading {
    Kept {
        view: Arc<View>,
        file: File,
        from: u64,
    },
    /// What came of a job's, after so many bytes, and what was read of it ahead.
    Answers(Answers, u64, Bytes),
}

impl Reading {
    fn open(view: Arc<View>, id: &str, from: u64) -> orion_proto::Result<Self> {
        if let Some(answers) = Answers::open(&view, id)? {
            return Ok(Self::Answers(answers, from, Bytes::new()));
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
            Self::Answers(answers, skip, ahead) => loop {
                let skipped = ahead.split_to(usize::try_from(*skip).unwrap_or(usize::MAX).min(ahead.len()));
                *skip -= skipped.len() as u64;
                if !ahead.is_empty() {
                    return Ok(Some(ahead.split_to(ahead.len().min(PIECE))));
                }
                match answers.next()? {
                    Some(lines) => *ahead = lines,
                    None => return Ok(None),
                }
            },
        }
    }
}

/// Its pieces: no thread waits for a client that reads slowly.
fn read(reading: Reading) -> BoxStream<'static, Result<FilePiece, Status>> {
    match reading {
        Reading::Answers(ref answers, ..) if answers.takes_a_place() => in_time(pieces(reading)).boxed(),
        reading => pieces(reading).boxed(),
    }
}

/// The same, but for who does not take a piece for so long: others wait.
fn in_time(
    pieces: impl Stream<Item = Result<FilePiece, Status>> + Send + 'static,
) -> impl Stream<Item = Result<FilePiece, Status>> {
    let (taken, given) = mpsc::channel(1);
    let (late, was_late) = oneshot::channel();
    tokio::spawn(async move {
        tokio::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            match tokio::time::timeout(STALL, taken.send(piece)).await {
                Ok(Ok(())) => {}
                // Nobody reads it any more.
                Ok(Err(_)) => return,
                // It ends with an error: it would be taken for whole.
                Err(_) => {
                    let _ = late.send(());
                    return;
                }
            }
        }
    });
    let ends = stream::once(was_late).filter_map(|late| {
        let error = || Error::new(Code::DeadlineExceeded, "it was read too slowly, and others wait");
        std::future::ready(late.is_ok().then(|| Err(error().into())))
    });
    ReceiverStream::new(given).chain(ends)
}

fn pieces(reading: Reading) -> impl Stream<Item = Result<FilePiece, Status>> + Send {
    stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        let read = off_thread(move || reading.next().map(|piece| (piece, reading))).await;
        match read {
            Ok((piece, reading)) => Some((Ok(FilePiece { piece: piece? }), Some(reading))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
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
