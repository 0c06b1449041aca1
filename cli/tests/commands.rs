//! The client commands against a server of the same wire protocol.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod explain;
mod operate;
mod server;
mod simulate;

use serde_json::Value;

/// What a command wrote, and its exit status.
struct Ran {
    status: u8,
    out: String,
    err: String,
}

fn orion(arguments: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = std::iter::once(&"orion").chain(arguments);
    let status = orion_cli::run_with(arguments, &mut out, &mut err);
    Ran { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

impl Ran {
    /// Standard output, which must be one JSON document and nothing else.
    fn json(&self) -> Value {
        assert_eq!(self.status, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    fn done(&self) -> &str {
        assert_eq!((self.status, self.err.as_str()), (0, ""));
        &self.out
    }

    fn failed(&self, status: u8) -> &str {
        assert_eq!((self.status, self.out.as_str()), (status, ""), "{}", self.err);
        &self.err
    }
}

/// A running server's address as the `--server` arguments.
struct Server(String);

impl Server {
    fn start() -> Self {
        Self(server::start(None).to_string())
    }

    fn orion(&self, arguments: &[&str]) -> Ran {
        orion(&[arguments, &["--server", &self.0]].concat())
    }
}

#[test]
fn infer_sends_text_numbers_and_whole_inputs() {
    let server = Server::start();
    let json = server.orion(&["infer", "minilm", "--text", "ab", "--text", "", "--id", "7", "-o", "json"]).json();
    assert_eq!(json["id"], "7");
    assert_eq!(json["outputs"][0]["shape"], serde_json::json!([2, 3]));
    assert_eq!(json["outputs"][0]["data"], serde_json::json!([2.0, 3.0, 4.0, 0.0, 3.0, 4.0]));

    let table = server.orion(&["infer", "minilm", "--text", "", "--truncate", "--timeout", "5"]);
    assert!(table.done().contains("embedding FP32 [1, 3]"), "{}", table.out);
    assert!(table.out.contains("5.0000"), "the norm: {}", table.out);

    let identity = |arguments: &[&str]| {
        let ran = server.orion(&[&["infer", "identity", "-o", "json"], arguments].concat());
        let output = &ran.json()["outputs"][0];
        (output["shape"].to_string(), output["data"].to_string())
    };
    let expected = |shape: &str, data: &str| (shape.to_string(), data.to_string());
    assert_eq!(identity(&["--data", "-1,0.1,2"]), expected("[1,3]", "[-1.0,0.1,2.0]"));
    assert_eq!(identity(&["--data", "1,2", "--shape", "2,1"]), expected("[2,1]", "[1.0,2.0]"));
    assert_eq!(identity(&["--input", "INPUT0=FP32[0,4]:"]), expected("[0,4]", "[]"));
    let array = tempfile::NamedTempFile::new().unwrap();
    let header = b"\x93NUMPY\x01\x00\x3c\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";
    std::fs::write(array.path(), [header.as_slice(), &1f32.to_le_bytes(), &2f32.to_le_bytes()].concat()).unwrap();
    let input = format!("INPUT0=@{}", array.path().display());
    assert_eq!(identity(&["--input", &input]), expected("[2,1]", "[1.0,2.0]"));
}

#[test]
fn infer_sends_the_parameters_that_its_flags_say() {
    let server = Server::start();
    let flags = ["--truncate", "--timeout", "1.5", "--priority", "2"];
    let answer = server.orion(&[["infer", "identity", "--data", "1", "-o", "json"].as_slice(), &flags].concat()).json();
    let expected = serde_json::json!({ "truncate": true, "timeout": 1_500_000, "priority": 2 });
    assert_eq!(answer["parameters"], expected);
}

#[test]
fn convert_needs_no_server_and_says_what_it_took_and_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/checkpoints/training.pt");
    let convert = |flags: &[&str]| orion(&[&["models", "convert", source, &target], flags].concat());
    let json = convert(&["-o", "json"]).json();
    assert_eq!((&json["key"], &json["left_out"]), (&"model".into(), &serde_json::json!(["optimizer"])));
    assert_eq!(
        (&json["tensors"], &json["files"]),
        (&9.into(), &serde_json::json!([format!("{target}/model.safetensors")]))
    );
    let there = convert(&[]);
    assert!(there.failed(1).contains("model.safetensors is already there, --force replaces it"), "{}", there.err);
    let again = convert(&["--force", "--dtype", "bf16", "--key", "model"]);
    assert!(again.done().contains("9, below key 'model', not those below: optimizer"), "{}", again.out);
}

#[test]
fn failures_go_to_standard_error_with_their_exit_status() {
    let server = Server::start();
    let unknown = server.orion(&["infer", "nope", "--text", "a", "-o", "json"]);
    assert_eq!(unknown.failed(1), "error: model 'nope' is unknown\n");
    let busy = server.orion(&["infer", "busy", "--data", "1"]);
    assert_eq!(busy.failed(2), "error: the queue of model 'busy' is full\n");
    let huge = server.orion(&["models", "load", "huge"]);
    assert!(huge.failed(2).starts_with("error: model 'huge' takes 80 GiB"));
    assert!(server.orion(&["nodes", "show", "x"]).failed(1).contains("the server's nodes are: here, edge"));
    assert!(server.orion(&["models", "show", "x"]).failed(1).contains("the server's models are: minilm, lazy"));
    assert!(server.orion(&["infer", "minilm", "--data", "1"]).failed(1).contains("text BYTES [-1]"));
    assert!(orion(&["infer", "minilm"]).failed(1).contains("--text"));

    // Bound and never accepting would hang; a port that was just given back refuses.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = orion(&["status", "--server", &free]);
    assert!(nobody.failed(1).starts_with(&format!("error: cannot reach the server at {free}: ")));
    assert!(nobody.err.ends_with("hint: is a scheduler running? start one with: orion up\n"));
}

#[test]
fn a_token_is_sent_by_every_command() {
    let address = server::start(Some("secret")).to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let token = file.path().to_str().unwrap();
    let commands: [&[&str]; 3] = [
        &["nodes"],
        &["infer", "identity", "--data", "1"],
        &["bench", "identity", "--concurrency", "2", "--seconds", "0.2", "--warmup", "0.1"],
    ];
    for command in commands {
        let without = orion(&[command, &["--server", &address]].concat());
        assert!(without.failed(1).contains("--token-file"), "{}", without.err);
        let with = orion(&[command, &["--server", &address, "--token-file", token]].concat());
        assert_eq!(with.status, 0, "{}", with.err);
        assert!(!with.out.contains("Unauthenticated"));
    }
}

#[test]
fn models_are_listed_shown_loaded_and_unloaded() {
    let server = Server::start();
    let list = server.orion(&["models", "-o", "json"]).json();
    assert_eq!(list[0]["name"], "minilm");
    assert_eq!(list[0]["inputs"][0]["datatype"], "BYTES");
    assert!(server.orion(&["models"]).done().contains("90.0 MiB"));
    assert!(server.orion(&["models", "show", "minilm"]).done().contains("text BYTES [-1]"));
    assert_eq!(server.orion(&["models", "load", "lazy", "-o", "json"]).json()["state"], "READY");
    assert_eq!(server.orion(&["models", "unload", "lazy", "-o", "json"]).json()["state"], "UNAVAILABLE");
}

#[test]
fn nodes_and_status_show_what_is_known_and_what_is_not() {
    let server = Server::start();
    let list = server.orion(&["nodes"]);
    for part in ["here", "edge", "8.0 GiB / 16.0 GiB", "4 (8)", "100 ms ago"] {
        assert!(list.done().contains(part), "{part} in\n{}", list.out);
    }
    let shown = server.orion(&["nodes", "show", "edge"]);
    for part in ["385 GFLOP/s", "not measured yet", "2.00 ms + n × 500 µs", "LOADING 40 %", "12.0 s ago: suspect"] {
        assert!(shown.done().contains(part), "{part} in\n{}", shown.out);
    }
    let json = server.orion(&["nodes", "show", "edge", "-o", "json"]).json();
    assert_eq!(json["measurement"]["f32_flops"], 385e9);
    assert_eq!(json["measurement"]["bf16_flops"], Value::Null);
    assert_eq!(json["models"][0]["curve"]["per_row_seconds"], 5e-4);
    assert_eq!(server.orion(&["status", "-o", "json"]).json()["state"], "serving");
    assert!(server.orion(&["status"]).done().contains("1 min 1 s"));
}

#[test]
fn bench_counts_answers_errors_and_the_server_s_cpu() {
    let server = Server::start();
    let quick = ["--seconds", "0.4", "--warmup", "0.1", "-o", "json"];
    let bench = |arguments: &[&str]| server.orion(&[&["bench"], arguments, &quick].concat()).json();
    let runs = bench(&["identity", "--concurrency", "1,16", "--shape", "4,16", "--threads", "2"]);
    for (run, concurrency) in runs.as_array().unwrap().iter().zip([1, 16]) {
        let figure = |key: &str| run[key].as_f64().unwrap_or_else(|| panic!("{key} in {run}"));
        assert_eq!(run["concurrency"], concurrency);
        assert_eq!(run["errors"], 0);
        assert!(figure("requests") > 0.0);
        assert!((figure("rows_per_second") / figure("rate") - 4.0).abs() < 1e-9);
        assert!(figure("p50_us") <= figure("p95_us") && figure("p95_us") <= figure("p99_us"));
        assert!(figure("p99_us") <= figure("max_us"));
        // The double claims a fixed cost for each request; reading it takes a moment at both ends of the run.
        let cpu = figure("server_cpu_us_per_request") / (server::CPU_SECONDS * 1e6);
        assert!((0.5..2.0).contains(&cpu), "{cpu} times what the server claims");
    }

    let flaky = &bench(&["flaky", "--concurrency", "4"])[0];
    assert!(flaky["requests"].as_u64() > Some(0));
    assert_eq!(flaky["errors"], flaky["errors_by_status"]["Unavailable"]);
    assert!(flaky["errors"].as_u64() > Some(0));

    assert_eq!(server.orion(&["bench", "busy"]).failed(2), "error: the queue of model 'busy' is full\n");
    let text = server.orion(&["bench", "minilm", "--rows", "2", "--concurrency", "2", "--seconds", "0.2"]);
    assert_eq!(text.status, 0, "{}", text.err);
    assert!(text.out.contains("requests/s"), "{}", text.out);
}

#[test]
fn help_version_and_completion_are_answers() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(orion(&["completion", shell]).done().contains("orion"), "{shell}");
    }
    assert_eq!(orion(&["--version"]).done(), format!("orion {}\n", env!("CARGO_PKG_VERSION")));
    assert!(orion(&["bench", "--help"]).done().contains("Examples:\n  orion bench"));
}
