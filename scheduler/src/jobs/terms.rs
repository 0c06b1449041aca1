//! What a job's specification means.

use std::sync::Arc;

use prost::Message;

use orion_proto::{
    Code, Error, Priority, Result,
    jobs::{JobSpec, RetryPolicy, job_spec::Work},
    training::Plan,
};

use super::calls;

/// Milliseconds since 1970, or of a length of time.
pub type Millis = u64;

/// Attempts of a job that names none, and at most.
const ATTEMPTS: u32 = 3;
const MOST_ATTEMPTS: u32 = 100;
/// The first pause between attempts of a job that names none, and the longest of any.
const BACK_OFF: Millis = 1_000;
const LONGEST_BACK_OFF: Millis = 300_000;
/// How long an outcome is kept where nothing is said, and at most: a week and ten years.
const KEEP: Millis = 7 * 24 * 3600 * 1000;
const LONGEST_KEEP: Millis = 3650 * 24 * 3600 * 1000;
/// Bytes of a specification, encoded, with its inputs.
const MOST_SPEC_BYTES: usize = 64 << 20;
/// Bytes of an idempotency key, of a label's name and value, and how many labels and earlier jobs there may be.
const KEY_BYTES: usize = 256;
const LABEL_BYTES: usize = 64;
const VALUE_BYTES: usize = 512;
const MOST_LABELS: usize = 16;
const MOST_AFTER: usize = 64;

/// The part of a job's specification that decides what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Of the client's choosing; empty: none.
    pub key: String,
    /// The model that does its work.
    pub model: Arc<str>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it must have ended.
    pub deadline: Option<Millis>,
    /// How many attempts it has.
    pub attempts: u32,
    /// Before the second of them.
    pub back_off: Millis,
    /// Codes after which it is tried again; empty: those that the table calls worth it, and INTERNAL.
    pub codes: Vec<Code>,
    /// How long its outcome is kept.
    pub keep: Millis,
}

impl Terms {
    /// What a specification says of a job that was submitted at this time; what it says wrong counts as not said.
    pub fn of(spec: &JobSpec, submitted: Millis) -> Self {
        let retry = spec.retry.clone().unwrap_or_default();
        // Whoever waits for an answer does not wait for a file.
        let is_file = matches!(spec.work, Some(Work::File(_) | Work::Training(_)));
        let or = |value: u64, other: u64| if value == 0 { other } else { value };
        Self {
            key: spec.idempotency_key.clone(),
            model: model(spec).into(),
            priority: if is_file && spec.priority.is_empty() {
                Priority::Low
            } else {
                priority(&spec.priority).unwrap_or_default()
            },
            deadline: (spec.deadline_ms > 0).then(|| submitted.saturating_add(spec.deadline_ms)),
            attempts: if retry.attempts == 0 { ATTEMPTS } else { retry.attempts },
            back_off: or(retry.back_off_ms, BACK_OFF).min(LONGEST_BACK_OFF),
            codes: retry.codes.iter().map(|name| Code::from_name(name)).collect(),
            keep: or(spec.keep_ms, KEEP).min(LONGEST_KEEP),
        }
    }

    /// Whether it is tried again after its attempt of this number, counted from 1, ended so.
    pub fn tries_again(&self, counted: u32, code: Code) -> bool {
        let worth =
            if self.codes.is_empty() { code.may_retry() || code == Code::Internal } else { self.codes.contains(&code) };
        worth && counted < self.attempts
    }

    /// The pause after the attempt of this number, counted from 1.
    pub fn pause(&self, counted: u32) -> Millis {
        let doubled = 1u64.checked_shl(counted.saturating_sub(1)).unwrap_or(u64::MAX);
        self.back_off.saturating_mul(doubled).min(LONGEST_BACK_OFF)
    }
}

/// Instead of a model, of jobs that are files: no model has this name.
pub(super) const FILES: &str = "";

fn model(spec: &JobSpec) -> &str {
    match &spec.work {
        Some(Work::Inference(request)) => &request.model_name,
        Some(Work::Call(call)) => &call.model,
        Some(Work::File(_) | Work::Training(_)) | None => FILES,
    }
}

/// The name of a priority.
pub(super) fn name(priority: Priority) -> &'static str {
    match priority {
        Priority::Realtime => "realtime",
        Priority::Critical => "critical",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// The priority of this name; none is normal.
fn priority(name: &str) -> Result<Priority> {
    Ok(match name {
        "realtime" => Priority::Realtime,
        "critical" => Priority::Critical,
        "high" => Priority::High,
        "" | "normal" => Priority::Normal,
        "low" => Priority::Low,
        _ => {
            let text = format!("priority '{name}' must be realtime, critical, high, normal or low");
            return Err(Error::invalid(text));
        }
    })
}

/// Checks a specification in itself: what needs to know of no other job and no model.
///
/// # Errors
/// INVALID_ARGUMENT, naming the field.
pub fn check(spec: &JobSpec) -> Result<()> {
    let wrong = |text: String| Err(Error::invalid(text));
    let bytes = spec.encoded_len();
    if bytes > MOST_SPEC_BYTES {
        return wrong(format!("the job has {bytes} bytes, it may have {MOST_SPEC_BYTES}"));
    }
    match &spec.work {
        None => return wrong("the job has no work, it must name one: inference, call, file or training".into()),
        Some(Work::Inference(request)) if request.model_name.is_empty() => {
            return wrong("the job's request names no model, it must: model_name".into());
        }
        Some(Work::Inference(_)) => {}
        Some(Work::Call(call)) => calls::check(call)?,
        Some(Work::File(file)) => calls::check_file(file)?,
        Some(Work::Training(training)) => drop(Plan::from_json(&training.plan)?),
    }
    priority(&spec.priority)?;
    if spec.idempotency_key.len() > KEY_BYTES {
        let bytes = spec.idempotency_key.len();
        return wrong(format!("the idempotency key has {bytes} bytes, it may have {KEY_BYTES}"));
    }
    let RetryPolicy { attempts, codes, .. } = spec.retry.clone().unwrap_or_default();
    if attempts > MOST_ATTEMPTS {
        return wrong(format!("{attempts} attempts are too many, {MOST_ATTEMPTS} are allowed"));
    }
    if let Some(unknown) = codes.iter().find(|name| Code::from_name(name).name() != name.as_str()) {
        return wrong(format!("code '{unknown}' is unknown, it must be one such as UNAVAILABLE or INTERNAL"));
    }
    if spec.after.len() > MOST_AFTER {
        return wrong(format!("the job waits for {} others, {MOST_AFTER} are allowed", spec.after.len()));
    }
    if spec.labels.len() > MOST_LABELS {
        return wrong(format!("the job has {} labels, {MOST_LABELS} are allowed", spec.labels.len()));
    }
    let plain = |text: &str, most| text.len() <= most && !text.contains(char::is_control);
    let fits = |name: &str, value: &str| {
        !name.is_empty() && plain(name, LABEL_BYTES) && !name.contains('=') && plain(value, VALUE_BYTES)
    };
    match spec.labels.iter().find(|(name, value)| !fits(name, value)) {
        Some((name, value)) => {
            let shown = |text: &str| text.chars().take(LABEL_BYTES).collect::<String>();
            wrong(format!(
                "label '{}={}' is not valid, its name must have 1 to {LABEL_BYTES} bytes and no '=', its value {VALUE_BYTES} at most, \
                 both no control characters",
                shown(name),
                shown(value)
            ))
        }
        None => Ok(()),
    }
}
