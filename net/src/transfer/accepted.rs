//! Connections that other nodes opened, with what the system knows of their losses.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tonic::transport::server::{Connected, TcpIncoming};

use crate::LossMeter;

/// Another node's connection.
#[derive(Debug)]
pub(super) struct Accepted {
    stream: TcpStream,
    from: Caller,
}

/// What its requests tell of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub(super) address: Option<SocketAddr>,
    /// None where the system gave no meter: only the losses are not known then.
    pub(super) loss: Option<Arc<LossMeter>>,
}

/// The connections of a listener.
pub(super) fn accepted(listener: TcpListener) -> impl Stream<Item = io::Result<Accepted>> {
    TcpIncoming::from(listener).with_nodelay(Some(true)).map(|stream| {
        let stream = stream?;
        let loss = LossMeter::new(&stream).ok().map(Arc::new);
        let from = Caller { address: stream.peer_addr().ok(), loss };
        Ok(Accepted { stream, from })
    })
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.from.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
