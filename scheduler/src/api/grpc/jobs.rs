//! `orion.v1.Jobs`.

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use orion_proto::{
    Code, Error,
    jobs::{
        GetJobRequest, Job, JobResult, ListJobsRequest, ListJobsResponse, SubmitJobRequest, SubmitJobResponse,
        jobs_server,
    },
};
use tokio::sync::broadcast::{self, error::RecvError};
use tonic::{Request, Response, Status, Streaming};

use crate::jobs::{Jobs, view::Changed};

/// Submissions of one stream that are on their way to the disk.
const AHEAD: usize = 1024;

type Answer<T> = Result<Response<T>, Status>;

/// The service of this scheduler.
#[derive(Clone)]
pub struct JobsService {
    jobs: orion_proto::Result<Jobs>,
}

impl JobsService {
    /// Speaks for these jobs, or says why there are none.
    pub fn new(jobs: orion_proto::Result<Jobs>) -> Self {
        Self { jobs }
    }

    fn jobs(&self) -> Result<&Jobs, Status> {
        self.jobs.as_ref().map_err(|error| Status::from(error.clone()))
    }

    async fn get_job(&self, id: u64) -> Result<Job, Status> {
        let view = self.jobs()?.view().clone();
        Ok(off_thread(move || view.get(id)).await?)
    }

    /// Returns when a job may have changed; an error where nothing can change any more.
    async fn changed(&self, changes: &mut broadcast::Receiver<Changed>, id: u64) -> Result<(), Status> {
        let view = self.jobs()?.view();
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
}

/// Reads the journal where that may block.
async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> orion_proto::Result<T> + Send + 'static,
) -> orion_proto::Result<T> {
    let gone = |_| Error::new(Code::Internal, "reading the journal failed unexpectedly");
    tokio::task::spawn_blocking(read).await.map_err(gone)?
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

    async fn submit(&self, request: Request<SubmitJobRequest>) -> Answer<SubmitJobResponse> {
        let spec = request.into_inner().spec.unwrap_or_default();
        Ok(Response::new(submitted(Ok(self.jobs()?.submit(spec).await?))))
    }

    async fn submit_stream(&self, request: Request<Streaming<SubmitJobRequest>>) -> Answer<Self::SubmitStreamStream> {
        let jobs = self.jobs()?.clone();
        let answers = request.into_inner().then(move |next| {
            let jobs = jobs.clone();
            async move { jobs.submit_ahead(next?.spec.unwrap_or_default()).await.map_err(Status::from) }
        });
        let wait = |asked: Result<tokio::sync::oneshot::Receiver<_>, Status>| async move {
            let stopping = |_| Status::from(Error::new(Code::Unavailable, "the scheduler is stopping"));
            Ok(submitted(asked?.await.map_err(stopping)?))
        };
        Ok(Response::new(answers.map(wait).buffered(AHEAD).boxed()))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        Ok(Response::new(self.get_job(request.into_inner().id).await?))
    }

    async fn list(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        let (view, asked) = (self.jobs()?.view().clone(), request.into_inner());
        Ok(Response::new(off_thread(move || view.list(&asked)).await?))
    }

    async fn watch(&self, request: Request<GetJobRequest>) -> Answer<Self::WatchStream> {
        let id = request.into_inner().id;
        // Before the first look, so that no change falls between.
        let changes = self.jobs()?.view().changes();
        let first = self.get_job(id).await?;
        let (service, ended) = (self.clone(), !is_open(&first));
        let rest = stream::unfold((changes, ended), move |(mut changes, ended)| {
            let service = service.clone();
            async move {
                if ended {
                    return None;
                }
                let job = match service.changed(&mut changes, id).await {
                    Ok(()) => service.get_job(id).await,
                    Err(error) => Err(error),
                };
                let ended = job.as_ref().map_or(true, |job| !is_open(job));
                Some((job, (changes, ended)))
            }
        });
        Ok(Response::new(same_once(stream::once(async { Ok(first) }).chain(rest)).boxed()))
    }

    async fn cancel(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        let id = request.into_inner().id;
        self.jobs()?.cancel(id).await?;
        Ok(Response::new(self.get_job(id).await?))
    }

    async fn retry(&self, request: Request<GetJobRequest>) -> Answer<Job> {
        let id = request.into_inner().id;
        self.jobs()?.retry(id).await?;
        Ok(Response::new(self.get_job(id).await?))
    }

    async fn result(&self, request: Request<GetJobRequest>) -> Answer<JobResult> {
        let (view, id) = (self.jobs()?.view().clone(), request.into_inner().id);
        Ok(Response::new(off_thread(move || view.result(id)).await?))
    }
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
