//! Log lines: pretty, JSON, or a tree of fields. On standard error, so that standard output stays the command's own.

use std::{fmt, io::IsTerminal};

use tracing::{Event, Subscriber, field::Visit};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, time::FormatTime, time::SystemTime},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::arguments::LogFormat;
use crate::Failure;

/// Starts logging.
pub(super) fn start(format: LogFormat, directives: &str) -> Result<(), Failure> {
    // Its lines about each file that it reads are no events of the server.
    let filter = EnvFilter::try_new(format!("symphonia=off,{directives}"))
        .map_err(|error| Failure::new(format!("--log '{directives}' cannot be read: {error}")))?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Tree => registry.with(layer.event_format(Tree)).try_init(),
        LogFormat::Pretty => {
            registry.with(layer.compact().with_target(false).with_ansi(std::io::stderr().is_terminal())).try_init()
        }
    };
    started.map_err(|error| Failure::new(format!("logging cannot be started: {error}")))
}

/// One line with the event, then a branch for each of its fields.
struct Tree;

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((name, value)),
        }
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.others.push((name, value.to_owned())),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Tree
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        SystemTime.format_time(&mut writer)?;
        writeln!(writer, " {:5} {}", event.metadata().level().as_str(), fields.message)?;
        let last = fields.others.len().saturating_sub(1);
        for (index, (name, value)) in fields.others.iter().enumerate() {
            let branch = if index == last { "└──" } else { "├──" };
            writeln!(writer, "  {branch} {name}: {}", value.replace('\n', "\n      "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_are_branches_and_the_last_one_closes_the_tree() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(Tree).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(worker = "w1", session = 7, "worker_joined");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("INFO  worker_joined"), "{text}");
        assert_eq!(lines[1..], ["  ├── worker: w1", "  └── session: 7"]);
    }
}
