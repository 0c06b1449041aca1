use std::convert::Infallible;

use axum::{Router, http::StatusCode, routing::get};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::api::access::Token;

const TOKEN: &str = "0123456789abcdef";

fn access(token: Option<&str>) -> Arc<Access> {
    Arc::new(Access::new(token.map(|text| Token::new(text).unwrap()), &[], &[]).unwrap())
}

async fn ask(access: &Arc<Access>, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let router = Router::new().route("/metrics", get(|| async { "figures" })).layer(access.http_layer());
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn every_path_is_behind_the_host_list_and_the_token() {
    let (open, closed) = (access(None), access(Some(TOKEN)));
    let local = ("host", "localhost:8002");
    let own = ("authorization", "Bearer 0123456789abcdef");
    for path in ["/metrics", "/unknown"] {
        let passed = if path == "/metrics" { StatusCode::OK } else { StatusCode::NOT_FOUND };
        for (access, headers, expected) in [
            (&open, [local].as_slice(), passed),
            (&open, &[("host", "evil.example")], StatusCode::FORBIDDEN),
            (&open, &[], StatusCode::BAD_REQUEST),
            (&closed, &[local], StatusCode::UNAUTHORIZED),
            (&closed, &[local, ("authorization", "Bearer 0123456789abcdeX")], StatusCode::UNAUTHORIZED),
            (&closed, &[local, own], passed),
            (&closed, &[("host", "evil.example"), own], StatusCode::FORBIDDEN),
        ] {
            assert_eq!(ask(access, path, headers).await.status(), expected, "{path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_json_in_the_paths_dialect_and_says_how_to_pass() {
    let closed = access(Some(TOKEN));
    for (path, pointer) in [("/v2/health/live", "/error"), ("/v1/models", "/error/message")] {
        let response = ask(&closed, path, &[("host", "localhost")]).await;
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer realm=\"orion\"");
        let body: serde_json::Value = serde_json::from_slice(&text(response).await).unwrap();
        assert!(body.pointer(pointer).unwrap().as_str().unwrap().contains("authorization: Bearer"), "{body}");
    }
    let response = ask(&closed, "/v2", &[("host", "evil.example")]).await;
    assert!(String::from_utf8(text(response).await).unwrap().contains("--allowed-host evil.example"));
}

async fn text(response: Response<Body>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test]
async fn a_grpc_call_without_the_token_gets_a_grpc_status() {
    let answers =
        tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(tonic::body::Body::default())) });
    let service = access(Some(TOKEN)).grpc_layer().layer(answers);
    let request = Request::post("/grpc.health.v1.Health/Check");
    let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "16");
    let request = Request::post("/x").header("authorization", format!("Bearer {TOKEN}"));
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
}

#[test]
fn the_layer_fits_a_tonic_server() {
    let _ = tonic::transport::Server::builder()
        .layer(access(Some(TOKEN)).grpc_layer())
        .add_routes(tonic::service::Routes::default());
}
