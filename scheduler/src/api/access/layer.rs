//! [`Access`] as tower layers: for axum routers and for tonic servers.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, header::WWW_AUTHENTICATE},
};
use futures::future::Either;
use orion_proto::{Code, Error};
use tower_layer::Layer;
use tower_service::Service;

use super::Access;
use crate::api::http::reply;

impl Access {
    /// The layer for an axum router: Host list and token.
    pub fn http_layer(self: &Arc<Self>) -> HttpAccessLayer {
        HttpAccessLayer(Arc::clone(self))
    }

    /// The layer for a tonic server: the token. A browser cannot speak bare HTTP/2, so names are not checked.
    pub fn grpc_layer(self: &Arc<Self>) -> GrpcAccessLayer {
        GrpcAccessLayer(Arc::clone(self))
    }
}

/// Makes [`HttpAccess`].
#[derive(Clone, Debug)]
pub struct HttpAccessLayer(Arc<Access>);

/// Answers 400, 401 or 403 to requests that [`Access`] refuses.
#[derive(Clone, Debug)]
pub struct HttpAccess<S> {
    access: Arc<Access>,
    inner: S,
}

/// Makes [`GrpcAccess`].
#[derive(Clone, Debug)]
pub struct GrpcAccessLayer(Arc<Access>);

/// Answers UNAUTHENTICATED to calls that [`Access`] refuses.
#[derive(Clone, Debug)]
pub struct GrpcAccess<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> Layer<S> for HttpAccessLayer {
    type Service = HttpAccess<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpAccess { access: Arc::clone(&self.0), inner }
    }
}

impl<S> Layer<S> for GrpcAccessLayer {
    type Service = GrpcAccess<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcAccess { access: Arc::clone(&self.0), inner }
    }
}

type Answer<R, S, B> =
    Either<Ready<Result<Response<R>, <S as Service<Request<B>>>::Error>>, <S as Service<Request<B>>>::Future>;

impl<S, B> Service<Request<B>> for HttpAccess<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<Body, S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let checked = self.access.check_host(&request).and_then(|()| self.access.check_token(request.headers()));
        match checked {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(error) => Either::Left(ready(Ok(refusal(request.uri().path(), error)))),
        }
    }
}

fn refusal(path: &str, error: Error) -> Response<Body> {
    let challenge = error.code == Code::Unauthenticated;
    let mut response = reply::in_dialect_of(path, error.into());
    if challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"orion\""));
    }
    response
}

impl<S, B, R> Service<Request<B>> for GrpcAccess<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<R, S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.access.check_token(request.headers()) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(error) => Either::Left(ready(Ok(tonic::Status::from(error).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests;
