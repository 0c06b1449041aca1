//! The `orion` binary: everything is in the library `orion-cli`.
fn main() -> std::process::ExitCode {
    orion_cli::run()
}
