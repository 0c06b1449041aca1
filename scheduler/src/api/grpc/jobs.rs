//! `orion.v1.Jobs`.

use std::sync::Arc;

use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use orion_proto::{
    Code, Error,
    jobs::{
        GetJobRequest, Job, JobLogsRequest, JobResult, ListJobsRequest, ListJobsResponse, LogLine, SubmitJobRequest,
        SubmitJobResponse, jobs_server,
    },
};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use tonic::{Request, Response, Status, Streaming};

use super::leader::{self, Doer, Leading, off_thread, reached};
use crate::jobs::{
    logs::Log,
    seat::Seat,
    view::{Changed, View},
};

/// Submissions of one stream that are on their way to the disk.
const AHEAD: usize = 1024;

type Answer<T> = Result<Response<T>, Status>;

/// The service of this scheduler.
#[derive(Clone)]
pub struct JobsService(Leading);

impl JobsService {
    /// Speaks for whoever runs the jobs.
    pub fn new(seat: watch::Receiver<Seat>) -> Self {
        Self(Leading::new(seat))
    }

    async fn get_job(&self, GetJobRequest { id, with_inputs }: GetJobRequest) -> Result<Job, Status> {
        let view = self.0.view()?;
        Ok(off_thread(move || if with_inputs { view.get_whole(id) } else { view.get(id) })
            .await
            .map_err(|error| self.0.unsure(error))?)
    }

    /// A job, and then again whenever it has changed, as this scheduler knows.
    async fn watch_here(&self, id: u64) -> Result<BoxStream<'static, Result<Job, Status>>, Status> {
        let view = self.0.view()?;
        // Before the first look, so that no change falls between.
        let changes = view.changes();
        let look = move |view: Arc<View>| off_thread(move || view.get(id));
        let first = look(view.clone()).await.map_err(|error| self.0.unsure(error))?;
        let ended = !is_open(&first);
        let rest = stream::unfold((changes, ended), move |(mut changes, ended)| {
            let view = view.clone();
            async move {
                if ended {
                    return None;
                }
                let job = match changed(&view, &mut changes, id).await {
                    Ok(()) => look(view).await.map_err(Status::from),
                    Err(error) => Err(error),
                };
                let ended = job.as_ref().map_or(true, |job| !is_open(job));
                Some((job, (changes, ended)))
            }
        });
        Ok(same_once(stream::once(async { Ok(first) }).chain(rest)).boxed())
    }
}

/// Returns when a job may have changed; an error where nothing can change any more.
async fn changed(view: &View, changes: &mut broadcast::Receiver<Changed>, id: u64) -> Result<(), Status> {
    while view.ended().is_none() {
        match changes.recv().await {
            Ok(Changed::Job(changed)) if changed != id => {}
            Ok(Changed::Job(_)) | Err(RecvError::Lagged(_)) => return Ok(()),
            Ok(Changed::Ended) | Err(RecvError::Closed) => break,
        }
    }
    let stopping = || Error::new(Code::Unavailable, "the scheduler is stopping");
    Err(view.ended().unwrap_or_else(stopping).into())
}

fn submitted(outcome: orion_proto::Result<u64>) -> SubmitJobResponse {
    match outcome {
        Ok(id) => SubmitJobResponse { id, ..Default::default() },
        Err(error) => SubmitJobResponse { id: 0, code: error.code.name().into(), message: error.message },
    }
}

fn is_open(job: &Job) -> bool {
    matches!(job.state.as_str(), "waiting" | "queued" | "running")
}

#[tonic::async_trait]
impl jobs_server::Jobs for JobsService {
    type SubmitStreamStream = BoxStream<'static, Result<SubmitJobResponse, Status>>;
    type WatchStream = BoxStream<'static, Result<Job, Status>>;
    type LogsStream = BoxStream<'static, Result<LogLine, Status>>;

    async fn submit(&self, request: Request<SubmitJobRequest>) -> Answer<SubmitJobResponse> {
        let (metadata, _, asked) = request.into_parts();
        match self.0.doer(&metadata)? {
            Doer::There(leader) => {
                leader::jobs(leader).submit(leader::passed(&metadata, asked)).await.map_err(leader::known)
            }
            Doer::Here(jobs) => Ok(Response::new(submitted(Ok(jobs.submit(asked.spec.unwrap_or_default()).await?)))),
        }
    }

    async fn submit_stream(&self, request: Request<Streaming<SubmitJobRequest>>) -> Answer<Self::SubmitStreamStream> {
        let (metadata, _, asked) = request.into_parts();
        let jobs = match self.0.doer(&metadata)? {
            Doer::Here(jobs) => jobs,
            Doer::There(shared) => {
                let mut leader = leader::jobs(self.0.stream_there(&metadata)?.unwrap_or(shared));
                // A client that breaks off has asked for no more.
                let asked = asked
                    .take_while(|next| std::future::ready(next.is_ok()))
                    .filter_map(|next| std::future::ready(next.ok()));
                let answers = leader.submit_stream(leader::passed(&metadata, asked)).await.map_err(leader::known)?;
                return Ok(answers.map(|answers| answers.map_err(leader::known).boxed()));
            }
        };
        let ahead = jobs.clone();
        let answers = asked.then(move |next| {
            let jobs = ahead.clone();
            async move { jobs.submit_ahead(next?.spec.unwrap_or_default()).await.map_err(Status::from) }
        });
        let wait = move |asked: Result<_, Status>| {
            let jobs = jobs.clone();
            async move { Ok(submitted(jobs.answered(asked?).await)) }
        };
        Ok(Response::new(answers.map(wait).buffered(AHEAD).boxed()))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        let (metadata, _, asked) = request.into_parts();
        if let Some(mut leader) = self.0.there(&metadata).map(leader::jobs)
            && let Some(answer) = reached(leader.get(leader::passed(&metadata, asked)).await)
        {
            return answer;
        }
        Ok(Response::new(self.get_job(asked).await?))
    }

    async fn list(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        let (metadata, _, asked) = request.into_parts();
        if let Some(mut leader) = self.0.there(&metadata).map(leader::jobs)
            && let Some(answer) = reached(leader.list(leader::passed(&metadata, asked.clone())).await)
        {
            return answer;
        }
        let view = self.0.view()?;
        Ok(Response::new(off_thread(move || view.list(&asked)).await?))
    }

    async fn watch(&self, request: Request<GetJobRequest>) -> Answer<Self::WatchStream> {
        let (metadata, _, asked) = request.into_parts();
        let here = self.watch_here(asked.id).await;
        // One that has just been submitted may not be known here yet. Streams have a connection of their own: many that stay open
        // would leave calls no room.
        if here.is_err()
            && let Some(mut leader) = self.0.stream_there(&metadata)?.map(leader::jobs)
            && let Some(answer) = reached(leader.watch(leader::passed(&metadata, asked)).await)
        {
            return Ok(answer?.map(|jobs| jobs.map_err(leader::known).boxed()));
        }
        Ok(Response::new(here?))
    }

    async fn logs(&self, request: Request<JobLogsRequest>) -> Answer<Self::LogsStream> {
        let (metadata, _, JobLogsRequest { id, follow }) = request.into_parts();
        let asked = Request::from_parts(metadata, tonic::Extensions::new(), GetJobRequest { id, with_inputs: false });
        let jobs =
            if follow { self.watch(asked).await?.into_inner() } else { once(self.get(asked).await?.into_inner()) };
        let lines = jobs.scan(Log::default(), |log, job| {
            let lines = job.map(|job| log.next(&job));
            let lines = lines.map_or_else(|error| vec![Err(error)], |lines| lines.into_iter().map(Ok).collect());
            std::future::ready(Some(stream::iter(lines)))
        });
        Ok(Response::new(lines.flatten().boxed()))
    }

    async fn cancel(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        let (metadata, _, asked) = request.into_parts();
        match self.0.doer(&metadata)? {
            Doer::There(leader) => {
                leader::jobs(leader).cancel(leader::passed(&metadata, asked)).await.map_err(leader::known)
            }
            Doer::Here(jobs) => {
                jobs.cancel(asked.id).await?;
                Ok(Response::new(self.get_job(asked).await?))
            }
        }
    }

    async fn retry(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        let (metadata, _, asked) = request.into_parts();
        match self.0.doer(&metadata)? {
            Doer::There(leader) => {
                leader::jobs(leader).retry(leader::passed(&metadata, asked)).await.map_err(leader::known)
            }
            Doer::Here(jobs) => {
                jobs.retry(asked.id).await?;
                Ok(Response::new(self.get_job(asked).await?))
            }
        }
    }

    async fn result(&self, request: Request<GetJobRequest>) -> Answer<JobResult> {
        let (metadata, _, asked) = request.into_parts();
        if let Some(mut leader) = self.0.there(&metadata).map(leader::jobs)
            && let Some(answer) = reached(leader.result(leader::passed(&metadata, asked)).await)
        {
            return answer;
        }
        let view = self.0.view()?;
        let result = off_thread(move || view.result(asked.id)).await;
        Ok(Response::new(result.map_err(|error| self.0.unsure(error))?))
    }
}

fn once(job: Job) -> BoxStream<'static, Result<Job, Status>> {
    stream::once(async { Ok(job) }).boxed()
}

/// A job that has not changed is not said again: several changes may be read at once.
fn same_once(jobs: impl Stream<Item = Result<Job, Status>>) -> impl Stream<Item = Result<Job, Status>> {
    let mut last: Option<Job> = None;
    jobs.filter(move |job| {
        let is_new = job.as_ref().map_or(true, |job| last.as_ref() != Some(job));
        if let Ok(job) = job {
            last = Some(job.clone());
        }
        std::future::ready(is_new)
    })
}
