//! Compiles `wire/*.proto` with protox: building Orion needs no `protoc`.
use std::path::PathBuf;

type Fallible = Result<(), Box<dyn std::error::Error>>;

const FILES: [&str; 8] = [
    "inference.proto",
    "session.proto",
    "cluster.proto",
    "artifact.proto",
    "peer.proto",
    "files.proto",
    "jobs.proto",
    "journal.proto",
];

fn main() -> Fallible {
    println!("cargo:rerun-if-changed=wire");
    let descriptors = protox::compile(FILES, ["wire"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let bytes = protox::prost::Message::encode_to_vec(&descriptors);
    std::fs::write(out.join("descriptors.bin"), bytes)?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".inference.ModelInferResponse", "crate::answer::ModelInferResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
