//! `orion train`: a model is trained by the workers that are there, and served when it is.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use orion_proto::{
    jobs::{
        GetJobRequest, Job, JobSpec, RetryPolicy, SubmitJobRequest, TrainedModel, Training, TrainingCourse,
        job_result::Outcome, job_spec::Work,
    },
    training::Plan,
};
use orion_scheduler::jobs::shown;

use crate::{
    Failure,
    client::{ServerArguments, block_on},
    jobs::watch::to_its_end,
    progress,
    table::{Format, facts, write, write_json},
};

/// How often a line is printed where nobody sees the bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Train a model on the workers, and serve it when it is done
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  orion train digits.toml
  orion train digits.toml --detach
  orion train digits.toml --set training.epochs=1 --set workers.least=2

docs/training.md says what a plan may have. The training goes on when this command is ended: orion jobs watch ID.")]
pub(crate) struct TrainArguments {
    /// The plan, TOML
    plan: PathBuf,
    /// FIELD=VALUE in place of what the plan says; may be given again
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Print the job's number and do not wait for its end
    #[arg(long)]
    detach: bool,
    /// A second submission with the same key is the first job
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    server: ServerArguments,
}

pub(crate) fn run(arguments: &TrainArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let plan = read(&arguments.plan, &arguments.set)?;
    let (format, key) = (arguments.server.output, arguments.key.clone().unwrap_or_default());
    block_on(async {
        let mut client = arguments.server.connect().await?;
        let spec = JobSpec {
            work: Some(Work::Training(Training { plan: plan.to_json() })),
            idempotency_key: key,
            retry: Some(RetryPolicy::default()),
            ..JobSpec::default()
        };
        let id = client.jobs.submit(SubmitJobRequest { spec: Some(spec) }).await?.into_inner().id;
        if arguments.detach {
            return match format {
                Format::Json => write_json(out, &serde_json::json!({ "id": id })),
                Format::Table => write(out, &format!("{id}\n")),
            };
        }
        eprintln!("job {id}");
        let mut shown = Shown::new(id);
        let job = to_its_end(&mut client, id, &mut |job| shown.now(job)).await?;
        shown.bar.finish_and_clear();
        if job.state != "succeeded" {
            return Err(Failure::new(format!("job {id} {}: {}", job.state, job.reason)));
        }
        let result = client.jobs.result(GetJobRequest { id, ..Default::default() }).await?.into_inner();
        match result.outcome {
            Some(Outcome::Trained(model)) => self::result(&model, format, out),
            _ => Err(Failure::new(format!("job {id} left no model"))),
        }
    })
}

/// Prints what a training left.
pub(crate) fn result(model: &TrainedModel, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    if format == Format::Json {
        return write_json(out, &shown::trained(model));
    }
    let course = model.course.clone().unwrap_or_default();
    let share = |value: Option<f32>| value.map(|value| format!("{:.2} %", value * 100.0)).unwrap_or_default();
    let text = facts([
        ("model", model.name.clone()),
        ("version", model.version.clone()),
        ("path", model.path.clone()),
        ("steps", course.step.to_string()),
        ("train loss", format!("{:.4}", course.train_loss)),
        ("test loss", course.test_loss.map(|loss| format!("{loss:.4}")).unwrap_or_default()),
        ("test accuracy", share(course.test_accuracy)),
        ("workers", course.workers.join(" ")),
        ("cohorts", course.cohorts.to_string()),
    ]);
    write(out, &text)
}

/// How a training goes, in a line.
pub(crate) fn far(course: &TrainingCourse) -> String {
    let mut text = format!("step {}/{} loss {:.4}", course.step, course.steps, course.train_loss);
    if let (Some(loss), Some(accuracy)) = (course.test_loss, course.test_accuracy) {
        text += &format!(" test loss {loss:.4} accuracy {:.2} %", accuracy * 100.0);
    }
    let workers = course.workers.len();
    text + &format!(
        " {:.0} examples/s on {workers} worker{}",
        course.examples_per_second,
        if workers == 1 { "" } else { "s" }
    )
}

fn read(path: &Path, sets: &[String]) -> Result<Plan, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
    let mut table: toml::Table = toml::from_str(&text)
        .map_err(|error| Failure::new(format!("{shown} is not TOML: {}", error.to_string().trim())))?;
    for set in sets {
        replace(&mut table, set)?;
    }
    let json = serde_json::to_string(&table).map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    Plan::from_json(&json).map_err(Failure::from)
}

/// Sets one field; a value that is no TOML is a text.
fn replace(table: &mut toml::Table, set: &str) -> Result<(), Failure> {
    let (field, value) =
        set.split_once('=').ok_or_else(|| Failure::new(format!("--set '{set}' must be FIELD=VALUE")))?;
    let value =
        toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut read| read.remove("value"));
    let value = value.unwrap_or_else(|| toml::Value::String(set[field.len() + 1..].to_owned()));
    let mut parts: Vec<&str> = field.split('.').collect();
    let last = parts.pop().unwrap_or_default().to_owned();
    let mut place = table;
    for part in parts {
        let inner = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = inner.as_table_mut().ok_or_else(|| Failure::new(format!("--set {field}: '{part}' has no fields")))?;
    }
    place.insert(last, value);
    Ok(())
}

/// What is seen of a training: a bar with its loss where somebody watches, else a line now and then.
struct Shown {
    bar: indicatif::ProgressBar,
    losses: Vec<f32>,
    last: Option<Instant>,
    tested: Option<f32>,
    reason: String,
}

impl Shown {
    fn new(id: u64) -> Self {
        let bar = progress::bar(0, format!("job {id}"));
        Self { bar, losses: Vec::new(), last: None, tested: None, reason: String::new() }
    }

    fn now(&mut self, job: &Job) {
        if job.reason != self.reason && !job.reason.is_empty() && job.ended_unix_ms == 0 {
            self.say(&job.reason);
        }
        self.reason.clone_from(&job.reason);
        let Some(course) = job.training.as_ref().filter(|course| course.step > 0) else { return };
        self.bar.set_length(course.steps);
        self.bar.set_position(course.step);
        if self.losses.last() != Some(&course.train_loss) {
            self.losses.push(course.train_loss);
        }
        let curve = curve(&self.losses);
        self.bar.set_message(format!("{curve} {}", far(course)));
        let is_new = course.test_loss.is_some() && course.test_loss != self.tested;
        if is_new || (self.bar.is_hidden() && self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY)) {
            (self.tested, self.last) = (course.test_loss, Some(Instant::now()));
            self.say(&far(course));
        }
    }

    fn say(&self, text: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{text}"),
            false => self.bar.println(text),
        }
    }
}

/// The losses so far as a row of bars, the logarithm of each by height.
fn curve(losses: &[f32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDTH: usize = 24;
    let every = losses.len().div_ceil(WIDTH).max(1);
    let seen: Vec<f32> =
        losses.chunks(every).map(|some| (some.iter().sum::<f32>() / some.len() as f32).max(1e-9).ln()).collect();
    let (least, most) =
        seen.iter().fold((f32::MAX, f32::MIN), |(least, most), loss| (least.min(*loss), most.max(*loss)));
    let height = |loss: &f32| (((loss - least) / (most - least).max(1e-6)) * 7.0).round() as usize;
    seen.iter().map(|loss| BARS[height(loss).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let text =
            "name = \"m\"\n[model]\nkind = \"mlp\"\nhidden = [4]\n[data]\ntrain = \"d\"\n[training]\nepochs = 3\n";
        std::fs::write(&path, text).unwrap();
        let sets = ["training.epochs=1", "workers.least=2", "name=other"].map(str::to_owned);
        let plan = read(&path, &sets).unwrap();
        assert_eq!((plan.training.epochs, plan.workers.least, plan.name.as_str()), (1, 2, "other"));
        let refused = |set: &str| read(&path, &[set.to_owned()]).unwrap_err().to_string();
        assert!(refused("epochs").contains("FIELD=VALUE"));
        assert!(refused("name.x=1").contains("has no fields"));
        assert!(refused("training.epoch=1").contains("epoch"));
        std::fs::write(&path, "name = ").unwrap();
        assert!(read(&path, &[]).unwrap_err().to_string().contains("is not TOML"));
    }

    #[test]
    fn losses_are_drawn_by_their_logarithms() {
        assert_eq!(curve(&[8.0, 4.0, 2.0, 1.0]), "█▆▃▁");
        assert_eq!(curve(&[]), "");
        assert_eq!(curve(&[1.0; 100]).chars().count(), 20);
    }
}
