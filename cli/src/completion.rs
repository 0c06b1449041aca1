//! `orion completion`: a script that completes commands and flags in a shell.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{Failure, command::Orion, table};

/// Print a shell's completion script
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion completion bash > ~/.local/share/bash-completion/completions/orion
  orion completion zsh > ~/.zfunc/_orion
  orion completion fish > ~/.config/fish/completions/orion.fish")]
pub(crate) struct CompletionArguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Orion::command(), "orion", &mut script);
    table::write(out, &String::from_utf8_lossy(&script))
}
