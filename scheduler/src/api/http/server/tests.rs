use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};

use super::*;
use crate::api::budget::Budget;
use crate::api::{http::body, terms::Terms};

async fn start(router: Router, limits: Limits) -> (SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    (address, stop, tokio::spawn(serve(listener, router, limits, stopped)))
}

async fn talk(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes on what it has not read resets the connection: what came before still counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_in_flight_are_answered_before_it_stops() {
    let (begun, mut begins) = mpsc::channel::<()>(1);
    let (release, released) = watch::channel(false);
    let slow = move || {
        let (begun, mut released) = (begun.clone(), released.clone());
        async move {
            begun.send(()).await.unwrap();
            released.wait_for(|go| *go).await.unwrap();
            "done"
        }
    };
    let (address, stop, server) = start(Router::new().route("/", get(slow)), Limits::default()).await;
    let asking = tokio::spawn(async move { talk(address, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await });
    begins.recv().await.unwrap();
    stop.send(true).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.is_finished());
    release.send(true).unwrap();
    server.await.unwrap();
    let answer = asking.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn large_heads_are_refused() {
    let (address, _stop, _server) = start(Router::new().route("/", get(|| async { "ok" })), Limits::default()).await;
    let head = |bytes: usize| {
        format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nfiller: {}\r\n\r\n", "x".repeat(bytes))
    };
    assert!(talk(address, head(15 << 10).as_bytes()).await.starts_with("HTTP/1.1 200"));
    // Not a byte more than it reads: closing on unread bytes resets the connection, and the answer may be lost.
    let refused = talk(address, &head(17 << 10).as_bytes()[..16 << 10]).await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert!(talk(address, b"NONSENSE\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn clients_that_send_no_request_are_dropped() {
    let limits = Limits { header_read_timeout: Duration::from_millis(20), ..Limits::default() };
    let (address, _stop, _server) = start(Router::new(), limits).await;
    for beginning in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        // It ends: with a wait without end this test would time out.
        talk(address, beginning.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_body_of_one_byte_chunks_is_read_and_limited() {
    let length = post(|headers: axum::http::HeaderMap, body: Body| async move {
        body::read(&headers, body, 20_000, Budget::new(1 << 20).hold()).await.map(|body| body.len().to_string())
    });
    let (address, _stop, _server) = start(Router::new().route("/", length), Limits::default()).await;
    let request = |chunks: usize| {
        let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(chunks))
    };
    assert!(talk(address, request(20_000).as_bytes()).await.ends_with("20000"));
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20001\r\n\r\n";
    assert!(talk(address, head.as_bytes()).await.starts_with("HTTP/1.1 413"));
    assert!(!talk(address, request(20_001).as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn handlers_learn_when_and_from_where_a_request_came() {
    let key = get(|arrival: Arrival, headers: axum::http::HeaderMap| async move {
        let mut request = orion_proto::InferRequest::default();
        Terms::of_http(&headers, arrival).unwrap().apply(&mut request, arrival.at);
        format!("{:?}", request.parameters.routing_key)
    });
    let (address, _stop, _server) = start(Router::new().route("/", key), Limits::default()).await;
    let answer = talk(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let expected = format!("{:?}", Some(orion_proto::routing_key("127.0.0.1")));
    assert!(answer.ends_with(&expected), "{answer} does not end with {expected}");
}
