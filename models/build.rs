//! Compiles `wire/*.proto` with protox: building Orion needs no `protoc`.

type Fallible = Result<(), Box<dyn std::error::Error>>;

fn main() -> Fallible {
    println!("cargo:rerun-if-changed=wire");
    let descriptors = protox::compile(["onnx.proto"], ["wire"])?;
    // Bytes are slices of the file that they were read from: weights are not copied by decoding.
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
