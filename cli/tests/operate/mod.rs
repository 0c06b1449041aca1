//! `orion nodes cordon | drain | uncordon`, and what nodes show of it.

use serde_json::json;

use super::{Server, orion};

#[test]
fn cordoning_says_what_the_node_is_then_and_the_list_shows_it() {
    let server = Server::start();
    assert_eq!(server.orion(&["nodes", "cordon", "edge"]).done(), "edge is ready, cordoned\n");
    let list = server.orion(&["nodes"]);
    let edge = list.done().lines().find(|line| line.starts_with("edge")).unwrap();
    assert!(edge.contains("ready, cordoned"), "{edge}");
    assert!(server.orion(&["nodes", "show", "edge"]).done().contains("ready, cordoned"));
    assert_eq!(server.orion(&["nodes", "uncordon", "edge"]).done(), "edge is ready\n");
    let json = server.orion(&["nodes", "cordon", "edge", "-o", "json"]).json();
    assert_eq!(json, json!({ "name": "edge", "state": "ready", "cordon": "cordoned" }));
    assert_eq!(server.orion(&["nodes", "-o", "json"]).json()[1]["cordon"], "cordoned");
    let unknown = server.orion(&["nodes", "cordon", "x"]);
    assert_eq!(unknown.failed(1), "error: node 'x' is unknown, the nodes are: here, edge\n");
}

#[test]
fn draining_waits_for_its_end_unless_told_not_to() {
    let server = Server::start();
    assert_eq!(server.orion(&["nodes", "drain", "edge", "--no-wait"]).done(), "edge is ready, draining\n");
    assert_eq!(server.orion(&["nodes", "drain", "edge"]).done(), "edge is ready, drained\n");
    // This one never ends.
    let late = server.orion(&["nodes", "drain", "here", "--timeout", "0.15"]);
    let expected = "error: node 'here' is not drained after 0.15 s: it is ready, draining and runs 2 batches\nhint: ";
    assert!(late.failed(1).starts_with(expected), "{}", late.err);
    assert!(
        orion(&["nodes", "drain", "here", "--no-wait", "--timeout", "1"]).failed(1).contains("cannot be used with")
    );
    assert!(orion(&["nodes", "drain", "here", "--timeout", "0"]).failed(1).contains("above 0"));
}

#[test]
fn a_node_shows_what_it_is_for_and_its_devices_ledgers() {
    let server = Server::start();
    let ran = server.orion(&["nodes", "show", "edge"]);
    for part in ["hybrid", "barn", "row=7 tier=gold", "12.0 GiB", "3.0 GiB", "1.0 GiB", "7.0 GiB", "250 ms", "1.50 s"] {
        assert!(ran.done().contains(part), "{part} in\n{}", ran.out);
    }
    let json = server.orion(&["nodes", "show", "edge", "-o", "json"]).json();
    assert_eq!(json["capability"]["labels"], json!({ "tier": "gold", "row": "7" }));
    assert_eq!((&json["capability"]["role"], &json["capability"]["zone"]), (&json!("hybrid"), &json!("barn")));
    assert_eq!(json["ledgers"][0]["weights_bytes"], 3u64 << 30);
    assert_eq!(json["ledgers"][0]["queued_seconds"], 1.5);
}
