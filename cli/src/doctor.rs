//! `orion doctor`: what is missing on this machine, and the command that mends it.

use std::{io::Write, path::PathBuf};

use clap::Args;
use comfy_table::Cell;
use orion_worker::doctor::{Finding, State, diagnose};

use crate::{
    Failure,
    table::{Format, state, table, write_json, write_table},
};

/// Show what is missing on this machine and how to mend it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion doctor
  orion doctor -o json

The exit status is 1 when something that Orion needs is missing.")]
pub(crate) struct DoctorArguments {
    /// Folder that a worker or scheduler would keep its data in [default: the user's data folder]
    #[arg(long, env = "ORION_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How to print what was found
    #[arg(short, long, env = "ORION_OUTPUT", value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(crate) fn run(arguments: &DoctorArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let folder = match &arguments.data_dir {
        Some(folder) => folder.clone(),
        None => crate::data_folder::users()?,
    };
    let findings = diagnose(&folder);
    match arguments.output {
        Format::Json => write_json(out, &findings)?,
        Format::Table => write_as_table(out, &findings)?,
    }
    let missing: Vec<&str> = findings.iter().filter(|f| f.state == State::Missing).map(|f| f.subject).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::new(format!("missing: {}", missing.join(", ")))) }
}

fn write_as_table(out: &mut dyn Write, findings: &[Finding]) -> Result<(), Failure> {
    let mut table = table(&["subject", "state", "found", "mend"]);
    for finding in findings {
        let word = match finding.state {
            State::Good => "good",
            State::Missing => "missing",
            State::Warning => "warning",
        };
        table.add_row([
            Cell::new(finding.subject),
            state(word),
            Cell::new(&finding.detail),
            Cell::new(finding.mend.as_deref().unwrap_or("")),
        ]);
    }
    write_table(out, table)
}
