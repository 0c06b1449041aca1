//! What a command prints: a light table that fits the terminal, or JSON.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::Serialize;

use crate::Failure;

/// Columns below which wrapping makes a table unreadable; some pseudo-terminals say that they have none.
const NARROWEST: u16 = 60;

/// The form of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: nothing but JSON on standard output
    Json,
}

/// An empty table with these headings. Colours only appear on a terminal.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(comfy_table::LineStyle::none()));
    table.set_header(headings.iter().copied());
    table
}

/// The table's lines, wrapped to the terminal's width where there is one that can hold a table at all.
pub(crate) fn render(mut table: Table) -> String {
    if table.width().is_some_and(|width| width >= NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    format!("{}\n", table.trim_fmt())
}

/// A table of names and what they are.
pub(crate) fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<(&str, String)> = rows.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, text)| format!("{name:<width$}  {text}\n")).collect()
}

/// A cell of a figure.
pub(crate) fn figure(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A cell of a state: green for what works, red for what does not, yellow for what is on its way.
pub(crate) fn state(text: &str) -> Cell {
    let cell = Cell::new(text);
    match text.to_ascii_lowercase().split([' ', ',']).next().unwrap_or_default() {
        "ready" | "serving" | "excellent" | "good" => cell.fg(Color::Green),
        "failed" | "dead" | "unavailable" | "missing" | "critical" => cell.fg(Color::Red),
        "loading" | "suspect" | "draining" | "starting" | "warning" | "poor" => cell.fg(Color::Yellow),
        _ => cell,
    }
}

/// Writes a text that ends its line. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn write(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a table.
pub(crate) fn write_table(out: &mut dyn Write, table: Table) -> Result<(), Failure> {
    write(out, &render(table))
}

/// Writes one JSON document.
pub(crate) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(format!("the answer cannot be written as JSON: {error}")))?;
    write(out, &format!("{text}\n"))
}
