use std::{str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue};

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_str(name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        map.append(name, value);
    }
    map
}

fn arrival() -> Arrival {
    Arrival::now(Some("::ffff:10.0.0.7".parse().unwrap()))
}

#[test]
fn the_earlier_deadline_holds_and_what_has_passed_is_taken_off() {
    let second = Duration::from_secs;
    let arrival = arrival();
    for (header, own, wanted) in [
        (None, None, None),
        (Some("10"), None, Some(second(7))),
        (None, Some(second(8)), Some(second(5))),
        (Some("10"), Some(second(8)), Some(second(5))),
        (Some("6"), Some(second(8)), Some(second(3))),
        (Some("2"), Some(second(8)), Some(Duration::ZERO)),
        (Some("10"), Some(Duration::MAX), Some(second(7))),
        (None, Some(Duration::MAX), None),
    ] {
        let given: Vec<_> = header.map(|seconds| (timeout::HTTP, seconds)).into_iter().collect();
        let terms = Terms::of_http(&headers(&given), arrival).unwrap();
        let mut parameters = Parameters { timeout: own, ..Parameters::default() };
        terms.apply_at(&mut parameters, arrival.at, arrival.at + second(3));
        assert_eq!(parameters.timeout, wanted, "{header:?} {own:?}");
    }
    let terms = Terms::of_grpc(&headers(&[(timeout::GRPC, "10001m")]), arrival).unwrap();
    // A later request of a stream: its own time begins when it comes, the stream's began before.
    let mut parameters = Parameters { timeout: Some(second(8)), ..Parameters::default() };
    terms.apply_at(&mut parameters, arrival.at + second(3), arrival.at + second(3));
    assert_eq!(parameters.timeout, Some(second(7)));
}

#[tokio::test]
async fn a_grpc_call_is_over_at_its_end_if_the_scheduler_does_not_say_so() {
    let terms = |given: &[(&str, &str)]| Terms::of_grpc(&headers(given), arrival()).unwrap();
    let one = terms(&[(timeout::GRPC, "1m")]);
    let over = one.in_time(std::future::pending::<Result<()>>());
    // The guard is against waiting for ever.
    let over = tokio::time::timeout(Duration::from_secs(30), over).await.expect("the call has no end");
    assert_eq!(over.unwrap_err().code, Code::DeadlineExceeded);
    // An answer that is there counts, however late it is.
    assert_eq!(terms(&[(timeout::GRPC, "0m")]).in_time(async { Ok(7) }).await, Ok(7));
    assert_eq!(terms(&[]).in_time(async { Ok(7) }).await, Ok(7));
}

#[test]
fn the_routing_key_is_the_requests_own_or_the_headers_or_the_address() {
    let key = |given: &[(&str, &str)], own: Option<u64>| {
        let parameters = Parameters { routing_key: own, ..Parameters::default() };
        let mut request = InferRequest { parameters, ..InferRequest::default() };
        Terms::of_http(&headers(given), arrival()).unwrap().apply(&mut request, Instant::now());
        request.parameters.routing_key
    };
    assert_eq!(key(&[(ROUTING_KEY, "session 7, ü")], Some(3)), Some(3));
    assert_eq!(key(&[(ROUTING_KEY, "session 7, ü")], None), Some(routing_key("session 7, ü")));
    assert_eq!(key(&[], None), Some(routing_key("10.0.0.7")));
    assert_eq!(Terms::of_grpc(&HeaderMap::new(), Arrival::now(None)).unwrap().routing_key, None);
}

#[test]
fn the_id_is_the_requests_own_or_the_headers() {
    let id = |given: &[(&str, &str)], own: &str| {
        let mut request = InferRequest { id: own.into(), ..InferRequest::default() };
        Terms::of_grpc(&headers(given), arrival()).map(|terms| {
            terms.apply(&mut request, Instant::now());
            request.id
        })
    };
    assert_eq!(id(&[], "").unwrap(), "");
    assert_eq!(id(&[(REQUEST_ID, "h/1")], "").unwrap(), "h/1");
    assert_eq!(id(&[(REQUEST_ID, "h/1")], "own").unwrap(), "own");
    assert_eq!(id(&[(REQUEST_ID, &"x".repeat(128))], "").unwrap().len(), 128);
    for wrong in ["", "a b", "ü", &"x".repeat(129)] {
        let error = id(&[(REQUEST_ID, wrong)], "").unwrap_err();
        assert!(error.message.contains(REQUEST_ID) && error.message.len() < 400, "{error}");
    }
}

#[test]
fn tenants_have_short_plain_names() {
    let tenant = |given: &[(&str, &str)]| Terms::of_grpc(&headers(given), arrival()).map(|terms| terms.tenant);
    assert_eq!(tenant(&[]).unwrap(), None);
    for name in ["a", "team-A.prod_1", &"x".repeat(64)] {
        assert_eq!(tenant(&[(TENANT, name)]).unwrap().as_deref(), Some(name));
    }
    for name in ["", "a b", "a/b", "ü", &"x".repeat(65), &"x".repeat(10_000)] {
        let error = tenant(&[(TENANT, name)]).unwrap_err();
        assert!(error.message.contains(TENANT) && error.message.len() < 400, "{error}");
    }
    assert!(tenant(&[(TENANT, "a"), (TENANT, "b")]).is_err_and(|error| error.message.contains("once")));
}
