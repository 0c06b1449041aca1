//! Files in the histories: jobs are submitted with them, and their lines taken up.

use std::collections::BTreeSet;

use orion_proto::{
    Code, Error,
    files::File,
    jobs::{FileCalls, HttpAnswer, HttpCall, JobResult, JobSpec, job_result::Outcome, job_spec::Work},
};
use prost::Message;
use rand::{RngExt, rngs::StdRng};
use tokio::sync::oneshot::{self, Receiver};

use super::{Ask, Machine, Table, Told, load};
use crate::{
    jobs::{
        answers::Answers, decide::ReadLines, files::Announced, lines::Line, shown::answer_ids, snapshot::submission,
        view::row_term,
    },
    journal::{Journal, NOWHERE, Staged, power::Disk},
};

/// Bytes that each file is said to have.
const BYTES: u64 = NOWHERE as u64;

pub(super) fn work(random: &mut StdRng, files: &[String]) -> Option<Work> {
    let file_id = files[random.random_range(0..files.len())].clone();
    let (path, format) = ("/v1/embeddings".into(), "jsonl".into());
    Some(Work::File(FileCalls { file_id, path, format, model: String::new() }))
}

fn line(random: &mut StdRng, number: u64) -> Line {
    let call = match random.random_bool(0.8) {
        true => Ok(HttpCall { path: "/v1/embeddings".into(), body: "{}".into(), model: "half".into() }),
        false => Err(Error::invalid("it is none")),
    };
    Line { number, custom_id: format!("line {number}"), call, from: 0, bytes: 0 }
}

impl Machine {
    /// Asks for some lines of each file that is read; with some luck a file is kept, and one is dropped.
    pub(super) fn files(
        &mut self,
        random: &mut StdRng,
        asks: &mut Vec<Ask>,
    ) -> Option<Receiver<orion_proto::Result<File>>> {
        let view = self.view.clone();
        self.reading.retain(|(attempt, _)| {
            view.unfinished(attempt.job)
                .and_then(|job| job.progress)
                .is_some_and(|progress| progress.read_bytes < BYTES)
        });
        for (attempt, spec) in &self.reading {
            let Some(progress) = self.view.unfinished(attempt.job).and_then(|job| job.progress) else { continue };
            let numbers = progress.lines + 1..=progress.lines + random.random_range(0..4);
            let count = numbers.clone().last().unwrap_or(progress.lines);
            let lines = numbers.map(|number| line(random, number)).collect();
            let bytes = (progress.read_bytes + random.random_range(20..60)).min(BYTES);
            let read = ReadLines { lines, bytes, count, large: None };
            asks.push(Ask::Expand(*attempt, Box::new(spec.clone()), read, None, oneshot::channel().0));
        }
        if random.random_bool(0.05) {
            asks.push(Ask::NoFile(random.random_range(0..200), oneshot::channel().0));
        }
        random.random_bool(0.2).then(|| {
            let (reply, answer) = oneshot::channel();
            let keep = random.random_range(1..200_000);
            let file = Announced { name: "f".into(), purpose: String::new(), keep };
            // Some are the same as others.
            let same = random.random_range(0..4);
            let kept = self.writer.journal().stage().and_then(|mut staging| {
                staging.write(&[same; BYTES as usize])?;
                staging.finish()
            });
            // The disk of a simulation holds none.
            let staged = kept.unwrap_or_else(|_| Staged::nowhere(same));
            asks.push(Ask::File(file, staged, reply));
            answer
        })
    }
}

/// Contents are kept for those that need them, and for no others; lines, for as long as their file's job. Whether there were any
/// of each.
pub(super) fn is_kept_while_needed(journal: &dyn Journal, table: &Table) -> bool {
    let files = journal.found("f:", u64::MAX, 10_000).unwrap();
    let listed = journal.found("", u64::MAX, 10_000).unwrap();
    let jobs = listed.iter().filter(|job| !submission(journal, **job).unwrap().unwrap().address.is_empty());
    let needed: BTreeSet<u64> = files.iter().chain(jobs).copied().collect();
    assert_eq!(journal.keepers().unwrap(), needed);
    let of = |job: &&u64| !journal.found(&format!("r:{job}"), u64::MAX, 1).unwrap().is_empty();
    let forgotten: Vec<u64> = (0..table.next()).filter(|job| !listed.contains(job)).collect();
    assert_eq!(forgotten.iter().filter(of).count(), 0, "lines outlive their job");
    !files.is_empty() && needed.len() > files.len() && listed.iter().filter(of).count() > 0
}

/// A file that has been taken up, and waits for its lines alone, leaves its place to the next.
#[test]
fn files_that_were_read_take_no_place() {
    let mut machine = Machine::start(&Disk::new(u64::MAX, 0), 1).unwrap();
    let (reply, mut kept) = oneshot::channel();
    let file = Announced { name: "f".into(), purpose: String::new(), keep: 1 << 40 };
    machine.writer.round(1, [Ask::File(file, Staged::nowhere(7), reply)]);
    let file_id = kept.try_recv().unwrap().unwrap().id;
    let (path, format) = ("/v1/embeddings".into(), "jsonl".into());
    let work = Some(Work::File(FileCalls { file_id, path, format, model: String::new() }));
    let spec = JobSpec { work, ..JobSpec::default() };
    let submit = || Ask::Submit(Box::new(spec.clone()), None, None, oneshot::channel().0);
    machine.writer.round(2, (0..600).map(|_| submit()));
    let mut begun = Vec::new();
    let mut told = |machine: &mut Machine| {
        while let Ok(told) = machine.told.try_recv() {
            if let Told::Begin(attempt, task) = told
                && matches!(task.spec.work, Some(Work::File(_)))
            {
                begun.push(attempt);
            }
        }
        begun.clone()
    };
    let first = told(&mut machine);
    assert_eq!(first.len(), 512);
    let call = Ok(HttpCall { path: "/v1/embeddings".into(), body: "{}".into(), model: "half".into() });
    let line = Line { number: 1, custom_id: String::new(), call, from: 0, bytes: 0 };
    let read = ReadLines { lines: vec![line], bytes: BYTES, count: 1, large: None };
    machine.writer.round(3, [Ask::Expand(first[0], Box::new(spec.clone()), read, None, oneshot::channel().0)]);
    assert_eq!(told(&mut machine).len(), 513);
    assert!(machine.view.unfinished(first[0].job).is_some());
    let again: Table = load(machine.writer.journal()).unwrap();
    assert_eq!(&again, machine.writer.table());
}

/// A machine with a file of which this was read, its job, and its specification, which is kept for a moment.
fn with_lines(lines: Vec<Line>) -> (Machine, u64) {
    let mut machine = Machine::start(&Disk::new(u64::MAX, 0), 1).unwrap();
    let (reply, mut kept) = oneshot::channel();
    let file = Announced { name: "f".into(), purpose: String::new(), keep: 1 << 40 };
    machine.writer.round(1, [Ask::File(file, Staged::nowhere(7), reply)]);
    let file_id = kept.try_recv().unwrap().unwrap().id;
    let (path, format) = ("/v1/embeddings".into(), "jsonl".into());
    let work = Some(Work::File(FileCalls { file_id, path, format, model: String::new() }));
    let spec = JobSpec { work, keep_ms: 1, ..JobSpec::default() };
    machine.writer.round(2, [Ask::Submit(Box::new(spec.clone()), None, None, oneshot::channel().0)]);
    let Ok(Told::Begin(of_file, _)) = machine.told.try_recv() else { panic!("the file was not begun") };
    let read = ReadLines { count: lines.len() as u64, lines, bytes: BYTES, large: None };
    machine.writer.round(3, [Ask::Expand(of_file, Box::new(spec), read, None, oneshot::channel().0)]);
    (machine, of_file.job)
}

/// Who reads what came of a file while that is forgotten is told, and does not take what is left for all of it.
#[test]
fn what_is_forgotten_while_it_is_read_is_an_error() {
    let line =
        |number| Line { number, custom_id: String::new(), call: Err(Error::invalid("it is none")), from: 0, bytes: 0 };
    let (mut machine, job) = with_lines((1..=1500).map(line).collect());
    assert_eq!(machine.view.get(job).unwrap().state, "succeeded");
    let (_, errors) = answer_ids(job);
    let open = |machine: &Machine| Answers::open(&machine.view, &errors).map(Option::unwrap);
    let mut whole = open(&machine).unwrap();
    let pieces = std::iter::from_fn(|| whole.next().unwrap());
    assert_eq!(pieces.map(|piece| piece.iter().filter(|byte| **byte == b'\n').count()).sum::<usize>(), 1500);
    let mut reading = open(&machine).unwrap();
    let left = |machine: &Machine| machine.writer.journal().found(&row_term(job), u64::MAX, 2000).unwrap().len();
    // A thousand at once, and the others at once after: nobody waits for them, and no round is long.
    machine.writer.round(100_000, [Ask::Tick]);
    assert_eq!((left(&machine), machine.view.get(job).is_ok()), (500, true));
    assert_eq!(reading.next().unwrap_err().code, Code::NotFound);
    assert_eq!(open(&machine).err().unwrap().code, Code::NotFound);
    machine.writer.round(100_001, [Ask::Tick]);
    assert_eq!((left(&machine), machine.view.get(job).is_ok()), (0, false));
}

#[test]
fn a_line_s_answer_is_read_when_it_has_ended() {
    let call = Ok(HttpCall { path: "/v1/embeddings".into(), body: "{}".into(), model: "half".into() });
    let (mut machine, job) = with_lines(vec![Line { number: 1, custom_id: String::new(), call, from: 0, bytes: 0 }]);
    let (output, errors) = answer_ids(job);
    let read = |machine: &Machine, id: &str| Answers::open(&machine.view, id).unwrap().unwrap().next().unwrap();
    assert!(read(&machine, &output).is_none() && read(&machine, &errors).is_none());
    let Ok(Told::Begin(of_line, task)) = machine.told.try_recv() else { panic!("its line was not begun") };
    assert_eq!(task.spec.priority, "low", "a file goes after all others, and its lines with it");
    let answer = HttpAnswer { status: 200, body: "{}".into(), ..HttpAnswer::default() };
    let result = JobResult { outcome: Some(Outcome::Call(answer)) }.encode_to_vec();
    machine.writer.round(
        4,
        [Ask::Settle(
            of_line,
            Ok(crate::jobs::ask::Outcome { row: result.into(), ..Default::default() }),
            oneshot::channel().0,
        )],
    );
    assert_eq!(machine.view.get(job).unwrap().state, "succeeded");
    assert!(read(&machine, &output).unwrap().starts_with(b"{") && read(&machine, &errors).is_none());
}
