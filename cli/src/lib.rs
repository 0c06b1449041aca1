//! The user's commands.
//!
//! [`run`] is all that the `orion` binary calls. A command writes what it found to standard output, as a table or as JSON
//! and nothing else; what went wrong goes to standard error and into the exit status: 0 done, 1 failed, 2 could not be
//! placed.

mod bench;
mod cache;
mod client;
mod command;
mod completion;
mod convert;
mod data_folder;
mod doctor;
mod explain;
mod failure;
mod generate;
mod infer;
mod jobs;
mod journal;
mod models;
mod nodes;
mod origins;
mod peer;
mod progress;
mod pull;
mod push;
mod serve;
mod small_pages;
mod status;
mod store;
mod table;
mod tensor_text;
mod train;
mod units;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::Parser;

pub use failure::{Exit, Failure};

/// A request is a dozen small allocations on one thread that another frees: the system's allocator took a seventh of the
/// scheduler's time there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the command that the process's arguments name.
pub fn run() -> ExitCode {
    // SAFETY: the process has only begun, and no thread beside this one.
    unsafe { orion_worker::let_tensor_threads_rest() };
    ExitCode::from(run_with(std::env::args_os(), &mut std::io::stdout(), &mut std::io::stderr()))
}

/// Runs the command that `arguments` name (the program's name first), and returns its exit status.
pub fn run_with(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let orion = match command::Orion::try_parse_from(arguments) {
        Ok(orion) => orion,
        Err(usage) => return print_usage(&usage, out, err),
    };
    match orion.command.run(out) {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody is left to tell when standard error is gone too.
            let _ = write!(err, "{failure}");
            failure.exit as u8
        }
    }
}

/// Help and version are answers, usage errors are not; clap says which, and styles them for a terminal.
fn print_usage(usage: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = usage.render();
    let (stream, terminal): (&mut dyn Write, bool) = match usage.use_stderr() {
        true => (err, std::io::IsTerminal::is_terminal(&std::io::stderr())),
        false => (out, std::io::IsTerminal::is_terminal(&std::io::stdout())),
    };
    let _ = if terminal { write!(stream, "{}", text.ansi()) } else { write!(stream, "{text}") };
    // Clap's own status for a mistake, 2, says here that something could not be placed.
    u8::from(usage.use_stderr())
}
