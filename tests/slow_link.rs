//! A worker behind a slow link is not declared dead because large tensors are on their way.
//!
//! Two network namespaces, joined by a link of 20 Mbit/s in each direction, carry 16 MiB tensors to a worker and back.
//! Needs root and `ip` and `tc`; elsewhere it says that it was skipped.

use std::{
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const ORION: &str = env!("CARGO_BIN_EXE_orion");
const TENSOR_BYTES: usize = 16 << 20;

/// Two namespaces and the link between them; gone when dropped.
struct Link {
    near: String,
    far: String,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Link {
    fn new() -> Result<Self, String> {
        let unique = std::process::id();
        let link = Self { near: format!("orion-near-{unique}"), far: format!("orion-far-{unique}") };
        let (near_end, far_end) = (format!("on{unique}"), format!("of{unique}"));
        run("ip", &["netns", "add", &link.near])?;
        run("ip", &["netns", "add", &link.far])?;
        run(
            "ip",
            &[
                "link", "add", &near_end, "netns", &link.near, "type", "veth", "peer", "name", &far_end, "netns",
                &link.far,
            ],
        )?;
        for (space, end, address) in [(&link.near, &near_end, "10.77.0.1/24"), (&link.far, &far_end, "10.77.0.2/24")] {
            let inside = |arguments: &[&str]| run("ip", &[&["netns", "exec", space], arguments].concat());
            inside(&["ip", "link", "set", "lo", "up"])?;
            inside(&["ip", "address", "add", address, "dev", end])?;
            inside(&["ip", "link", "set", end, "up"])?;
            let shape = ["rate", "20mbit", "burst", "32kbit", "latency", "400ms"];
            inside(&[&["tc", "qdisc", "add", "dev", end, "root", "tbf"], &shape[..]].concat())?;
        }
        Ok(link)
    }

    fn command(&self, space: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space, ORION]).args(arguments);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for space in [&self.near, &self.far] {
            let _ = run("ip", &["netns", "delete", space]);
        }
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One row of zeros as NumPy writes it.
fn npy() -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {}), }}", TENSOR_BYTES / 4);
    let header = format!("{header:<117}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.resize(file.len() + TENSOR_BYTES, 0);
    file
}

fn json(command: &mut Command) -> Option<serde_json::Value> {
    let output = command.output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

#[test]
fn large_tensors_on_a_slow_link_cause_no_false_death() {
    let link = match Link::new() {
        Ok(link) => link,
        Err(error) if std::env::var_os("ORION_TEST_NAMESPACES").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: network namespaces cannot be made here ({error})");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let scheduler = ["scheduler", "--session", "10.77.0.1:8003", "--insecure"];
    let _scheduler = Running(link.command(&link.near, &scheduler).stdout(Stdio::null()).spawn().unwrap());
    let worker = ["worker", "--join", "10.77.0.1:8003", "--name", "far", "--data-dir", data];
    let _worker = Running(link.command(&link.far, &worker).stdout(Stdio::null()).spawn().unwrap());

    let nodes = || json(&mut link.command(&link.near, &["nodes", "-o", "json"]));
    let models = || json(&mut link.command(&link.near, &["models", "-o", "json"]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !models().is_some_and(|models| models[0]["state"] == "ready") {
        assert!(Instant::now() < deadline, "the worker did not serve within 60 s");
        std::thread::yield_now();
    }
    let tensor = folder.path().join("tensor.npy");
    std::fs::write(&tensor, npy()).unwrap();
    let input = format!("INPUT0=@{}", tensor.display());
    // Two at once: each direction is full for seconds.
    let infer = ["infer", "identity", "--input", &input, "--timeout", "120"];
    let infers: Vec<Child> =
        (0..2).map(|_| link.command(&link.near, &infer).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let answers: Vec<Output> = infers.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let nodes = nodes().expect("orion nodes prints JSON").to_string();
    for answer in answers {
        let text = String::from_utf8_lossy(&answer.stdout);
        assert!(answer.status.success() && text.contains("OUTPUT0"), "{text}\n{nodes}");
    }
    assert!(!nodes.contains("suspect") && !nodes.contains("dead"), "{nodes}");
    assert!(nodes.contains("\"sessions_opened\":1"), "{nodes}");
}
