//! The tree of commands and their one-line descriptions.

use std::io::Write;

use clap::{Parser, Subcommand};

use crate::{
    Failure, bench, cache, completion, doctor, explain, generate, infer, jobs, journal, models, nodes, pull, push,
    serve, status, train,
};

/// Runs models on the machines you have
#[derive(Parser)]
#[command(name = "orion", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Orion {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  orion up --model minilm=models/minilm
  orion infer minilm --text 'a sentence'
  orion models
  orion explain minilm
  orion bench identity --concurrency 1,16,64";

/// What `orion` can be asked to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Up(Box<serve::UpArguments>),
    Scheduler(serve::SchedulerArguments),
    Worker(serve::WorkerArguments),
    Infer(infer::InferArguments),
    Generate(generate::GenerateArguments),
    Chat(generate::ChatArguments),
    Train(train::TrainArguments),
    Jobs(jobs::JobsArguments),
    Journal(journal::JournalArguments),
    Models(models::ModelsArguments),
    Push(push::PushArguments),
    Pull(pull::PullArguments),
    Cache(cache::CacheArguments),
    Nodes(nodes::NodesArguments),
    Status(status::StatusArguments),
    Explain(explain::ExplainArguments),
    Bench(bench::BenchArguments),
    Doctor(doctor::DoctorArguments),
    Completion(completion::CompletionArguments),
}

impl Command {
    /// Runs it to its end; what it finds goes to `out`.
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Self::Up(arguments) => serve::run_up(&arguments, out),
            Self::Scheduler(arguments) => serve::run_scheduler(&arguments, out),
            Self::Worker(arguments) => serve::run_worker(&arguments, out),
            Self::Infer(arguments) => infer::run(&arguments, out),
            Self::Generate(arguments) => generate::run(&arguments, out),
            Self::Chat(arguments) => generate::run_chat(&arguments, out),
            Self::Train(arguments) => train::run(&arguments, out),
            Self::Jobs(arguments) => jobs::run(&arguments, out),
            Self::Journal(arguments) => journal::run(&arguments, out),
            Self::Models(arguments) => models::run(&arguments, out),
            Self::Push(arguments) => push::run(&arguments, out),
            Self::Pull(arguments) => pull::run(&arguments, out),
            Self::Cache(arguments) => cache::run(&arguments, out),
            Self::Nodes(arguments) => nodes::run(&arguments, out),
            Self::Status(arguments) => status::run(&arguments, out),
            Self::Explain(arguments) => explain::run(&arguments, out),
            Self::Bench(arguments) => bench::run(&arguments, out),
            Self::Doctor(arguments) => doctor::run(&arguments, out),
            Self::Completion(arguments) => completion::run(&arguments, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound_and_every_command_shows_an_example() {
        Orion::command().debug_assert();
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  orion"), "orion {} has no examples", command.get_name());
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && about.len() < 90 && !about.contains('\n'), "{}: {about}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Orion::command());
    }
}
