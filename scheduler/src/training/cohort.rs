//! Who trains together. Workers come, leave and die; each change makes another generation, which goes on from where the one
//! that is furthest is. What is decided here needs no clock and no link.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use orion_proto::{
    Code, Error, Result,
    session::{
        EndTraining, Gather, Gathered, Go, PauseTraining, Trained, TrainingFault, TrainingMember, TrainingOrder,
        TrainingProgress, TrainingReport, training_order, training_report::Report,
    },
};

/// A worker that comes is taken in when the cohort has worked for so long: each change costs it a moment.
const SETTLED: Duration = Duration::from_secs(2);
/// Who is not ready so long after another is left out: one that fetches its data, or hangs, must not hold up all.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The first pause after a generation that broke, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Generations that may break one after the other without a step between them.
const MOST_BROKEN: u32 = 30;

/// A worker that may take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    /// Where others reach it; empty: nowhere.
    pub(crate) address: String,
    /// Of its session: what was said in an earlier one may be lost.
    pub(crate) session: u64,
    /// Whether it was heard of just now; one that was not may still come back.
    pub(crate) ready: bool,
}

/// What a worker is to be told.
pub(crate) type Told = (String, TrainingOrder);

/// What all members are told of the training.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) job: u64,
    /// The generations of this attempt are above this.
    pub(crate) base: u64,
    pub(crate) plan: String,
    pub(crate) train_path: String,
    pub(crate) test_path: String,
    pub(crate) version: String,
    /// When the job was submitted.
    pub(crate) submitted_unix_ms: u64,
    /// Workers that it needs, and that it takes at most.
    pub(crate) least: usize,
    pub(crate) most: usize,
}

#[derive(Debug, PartialEq)]
enum State {
    /// There are too few.
    Few,
    /// It broke, and is tried again then.
    Broken(Duration),
    /// Since then; and these have said how far they are.
    Gathering(Duration, BTreeMap<String, Gathered>),
    /// Since then.
    Working(Duration),
    /// One has had the result since then; and these have it, or will not.
    Done(Duration, BTreeSet<String>),
}

/// A training's workers.
#[derive(Debug)]
pub(crate) struct Cohort {
    terms: Terms,
    state: State,
    members: Vec<Candidate>,
    /// Where those can be reached that were there.
    peers: Vec<String>,
    /// Who was ever told of it: they are told of its end.
    told: BTreeSet<String>,
    generations: u32,
    broken: u32,
    /// Who cannot do it in this session, and why.
    unfit: BTreeMap<String, (u64, Error)>,
    trained: Option<Trained>,
    progress: TrainingProgress,
}

impl Cohort {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: State::Few,
            members: Vec::new(),
            peers: Vec::new(),
            told: BTreeSet::new(),
            generations: 0,
            broken: 0,
            unfit: BTreeMap::new(),
            trained: None,
            progress: TrainingProgress::default(),
        }
    }

    /// Names of those who take part, by rank.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// How many cohorts there were.
    pub(crate) fn generations(&self) -> u32 {
        self.generations
    }

    /// The last that was told of its progress.
    pub(crate) fn progress(&self) -> &TrainingProgress {
        &self.progress
    }

    /// What it waits for; none while it works.
    pub(crate) fn waits(&self) -> Option<String> {
        let unfit = |text: String| match self.unfit.iter().next() {
            None => text,
            Some((worker, (_, error))) => format!("{text}; worker '{worker}' cannot: {}", error.message),
        };
        match &self.state {
            State::Few if self.terms.least == 1 => Some(unfit("waits for a worker that can train".into())),
            State::Few => Some(unfit(format!("waits for {} workers that can train", self.terms.least))),
            State::Broken(_) => Some("its workers are brought together again".into()),
            State::Gathering(_, ready) => {
                let missing: Vec<&str> = self.members().filter(|name| !ready.contains_key(*name)).collect();
                Some(format!("waits for {} to be ready", missing.join(", ")))
            }
            State::Working(_) | State::Done(..) => None,
        }
    }

    /// Looks at who is there. What is to be told; an error where it has broken too often, or nobody who is there can do it.
    pub(crate) fn look(&mut self, now: Duration, candidates: &[Candidate]) -> Result<Vec<Told>> {
        let here = |name: &str| candidates.iter().find(|candidate| candidate.name == name);
        let is_same = |now: &Candidate, was: &Candidate| now.address == was.address && now.session == was.session;
        let lost = self.members.iter().any(|member| here(&member.name).is_none_or(|now| !is_same(now, member)));
        match &self.state {
            State::Few => Ok(self.gather(now, candidates)),
            State::Broken(until) if *until > now => Ok(Vec::new()),
            State::Broken(_) if self.broken > MOST_BROKEN => {
                let text = format!("its workers could not work together, {MOST_BROKEN} times one after the other");
                Err(Error::new(Code::Unavailable, text))
            }
            State::Broken(_) => Ok(self.gather(now, candidates)),
            State::Gathering(..) | State::Working(_) if lost => Ok(self.gather(now, candidates)),
            State::Gathering(since, ready) if !ready.is_empty() && now.saturating_sub(*since) >= READY_WITHIN => {
                let late: Vec<String> =
                    self.members().filter(|name| !ready.contains_key(*name)).map(str::to_owned).collect();
                let why = format!("it was not ready within {} s of another", READY_WITHIN.as_secs());
                late.into_iter().for_each(|name| self.leave_out(&name, Error::new(Code::Unavailable, why.clone())));
                Ok(self.gather(now, candidates))
            }
            State::Working(since) if now.saturating_sub(*since) >= SETTLED => {
                let others = self.chosen(candidates, self.terms.most);
                match others.len() > self.members.len() {
                    true => Ok(self.gather(now, candidates)),
                    false => Ok(Vec::new()),
                }
            }
            State::Gathering(..) | State::Working(_) | State::Done(..) => Ok(Vec::new()),
        }
    }

    /// Who takes part of those that are there: first those that did, since they hold the state.
    fn chosen(&self, candidates: &[Candidate], most: usize) -> Vec<Candidate> {
        let unfit = |one: &Candidate| self.unfit.get(&one.name).is_some_and(|(session, _)| *session == one.session);
        let fit = |candidate: &&Candidate| candidate.ready && !unfit(candidate);
        let holds = |candidate: &Candidate| self.members.iter().any(|member| member.name == candidate.name);
        let mut chosen: Vec<Candidate> = candidates.iter().filter(fit).cloned().collect();
        chosen.sort_by_key(|candidate| !holds(candidate));
        if chosen.len() > 1 {
            let first = chosen[0].clone();
            chosen.retain(|candidate| !candidate.address.is_empty());
            // One that nobody reaches trains alone, also where it alone holds the state.
            if chosen.is_empty() || (holds(&first) && !chosen.iter().any(holds)) {
                chosen = vec![first];
            }
        }
        chosen.truncate(most);
        chosen
    }

    fn gather(&mut self, now: Duration, candidates: &[Candidate]) -> Vec<Told> {
        // Where it is not known who holds the state, all say how far they are before some are left out.
        let most = if self.members.is_empty() { usize::MAX } else { self.terms.most };
        let members = self.chosen(candidates, most);
        if members.len() < self.terms.least {
            if self.members.is_empty() {
                return Vec::new();
            }
            // They keep what they hold.
            self.generations += 1;
            let pause = self.order(training_order::Order::Pause(PauseTraining {}));
            let told = self.members().map(|name| (name.to_owned(), pause.clone())).collect();
            self.state = State::Few;
            self.members.clear();
            return told;
        }
        self.peers = candidates.iter().map(|other| other.address.clone()).filter(|at| !at.is_empty()).collect();
        self.bring_together(now, members)
    }

    /// Another generation, of these.
    fn bring_together(&mut self, now: Duration, members: Vec<Candidate>) -> Vec<Told> {
        self.generations += 1;
        self.members = members;
        self.state = State::Gathering(now, BTreeMap::new());
        self.told.extend(self.members.iter().map(|member| member.name.clone()));
        let all: Vec<TrainingMember> = self
            .members
            .iter()
            .map(|member| TrainingMember { worker: member.name.clone(), address: member.address.clone() })
            .collect();
        let order = |(rank, member): (usize, &Candidate)| {
            let gather = Gather {
                plan: self.terms.plan.clone(),
                train_path: self.terms.train_path.clone(),
                test_path: self.terms.test_path.clone(),
                peers: self.peers.iter().filter(|peer| **peer != member.address).take(16).cloned().collect(),
                members: all.clone(),
                rank: rank as u32,
                version: self.terms.version.clone(),
                submitted_unix_ms: self.terms.submitted_unix_ms,
            };
            (member.name.clone(), self.order(training_order::Order::Gather(gather)))
        };
        self.members.iter().enumerate().map(order).collect()
    }

    fn order(&self, order: training_order::Order) -> TrainingOrder {
        TrainingOrder { job: self.terms.job, generation: self.generation(), order: Some(order) }
    }

    fn generation(&self) -> u64 {
        self.terms.base + u64::from(self.generations)
    }

    /// What was trained, once every member that is here has it.
    pub(crate) fn trained(&self, now: Duration, candidates: &[Candidate]) -> Option<&Trained> {
        let State::Done(since, told) = &self.state else { return None };
        let is_due = |name: &str| candidates.iter().any(|here| here.name == name) && !told.contains(name);
        let waits = now.saturating_sub(*since) < READY_WITHIN && self.members().any(is_due);
        self.trained.as_ref().filter(|_| !waits)
    }

    /// A worker says something. What is to be told; an error where it cannot be trained.
    pub(crate) fn heard(&mut self, now: Duration, worker: &str, report: TrainingReport) -> Result<Vec<Told>> {
        let is_current = report.generation == self.generation() && self.members().any(|name| name == worker);
        // What was trained is the same whoever was there.
        let counts = is_current || (matches!(report.report, Some(Report::Trained(_))) && self.told.contains(worker));
        let Some(said) = report.report.filter(|_| counts) else { return Ok(Vec::new()) };
        match said {
            Report::Trained(trained) => self.done(now, worker, trained),
            said if matches!(self.state, State::Done(..)) => {
                // It could not keep it, or not fetch it in time.
                if let (Report::Broken(_) | Report::Failed(_), State::Done(_, told)) = (said, &mut self.state) {
                    told.insert(worker.into());
                }
            }
            Report::Gathered(gathered) => {
                let State::Gathering(_, ready) = &mut self.state else { return Ok(Vec::new()) };
                ready.insert(worker.into(), gathered);
                return Ok(self.go(now));
            }
            Report::Progress(progress) => {
                self.broken = 0;
                self.progress = progress;
            }
            Report::Broken(fault) => self.breaks(now, &error_of(fault)),
            Report::Failed(fault) => self.fails(now, worker, error_of(fault))?,
        }
        Ok(Vec::new())
    }

    fn done(&mut self, now: Duration, worker: &str, trained: Trained) {
        match &mut self.state {
            State::Done(_, told) => drop(told.insert(worker.into())),
            state => *state = State::Done(now, BTreeSet::from([worker.to_owned()])),
        }
        self.trained.get_or_insert(trained);
    }

    fn fails(&mut self, now: Duration, worker: &str, error: Error) -> Result<()> {
        // What was computed is wrong everywhere; what a worker lacks, others may have.
        let computed = matches!(self.state, State::Working(_)) && error.code == Code::FailedPrecondition;
        if computed || error.code == Code::InvalidArgument {
            return Err(error);
        }
        self.leave_out(worker, error.clone());
        self.members.retain(|member| member.name != worker);
        self.state = State::Broken(now);
        match self.members.is_empty() {
            true => Err(Error::new(error.code, format!("worker '{worker}': {}", error.message))),
            false => Ok(()),
        }
    }

    /// It takes no part for as long as it is the same.
    fn leave_out(&mut self, worker: &str, error: Error) {
        if let Some(member) = self.members.iter().find(|member| member.name == worker) {
            self.unfit.insert(worker.to_owned(), (member.session, error));
        }
    }

    fn breaks(&mut self, now: Duration, error: &Error) {
        tracing::info!(job = self.terms.job, generation = self.generation(), %error, "cohort_broken");
        let pause = PAUSE.saturating_mul(1 << self.broken.min(8)).min(LONGEST_PAUSE);
        self.broken += 1;
        self.state = State::Broken(now.saturating_add(pause));
    }

    /// Once all have said how far they are, they go on from whoever is furthest.
    fn go(&mut self, now: Duration) -> Vec<Told> {
        let State::Gathering(_, ready) = &self.state else { return Vec::new() };
        let gathered: Option<Vec<Gathered>> = self.members().map(|name| ready.get(name).cloned()).collect();
        let Some(gathered) = gathered else { return Vec::new() };
        if let Some(others) = self.others(&gathered) {
            others.into_iter().for_each(|(name, error)| {
                self.leave_out(&name, error);
                self.members.retain(|member| member.name != name);
            });
            self.state = State::Broken(now);
            return Vec::new();
        }
        let rounds: Vec<u64> = gathered.iter().map(|gathered| gathered.round).collect();
        if self.members.len() > self.terms.most {
            let mut order: Vec<usize> = (0..rounds.len()).collect();
            order.sort_by_key(|rank| std::cmp::Reverse(rounds[*rank]));
            let furthest = order.into_iter().take(self.terms.most).map(|rank| self.members[rank].clone());
            let furthest = furthest.collect();
            return self.bring_together(now, furthest);
        }
        let furthest = rounds.iter().copied().max().unwrap_or(0);
        let source = rounds.iter().position(|round| *round == furthest).unwrap_or(0);
        // As far and yet unlike: they were apart, and what a round comes to may depend on who was there.
        let is_behind = |one: &Gathered| one.round < furthest || one.state != gathered[source].state;
        let behind = (0u32..).zip(&gathered).filter(|(_, one)| is_behind(one)).map(|(rank, _)| rank);
        let go = Go { source: source as u32, behind: behind.collect() };
        self.state = State::Working(now);
        let order = self.order(training_order::Order::Go(go));
        self.members().map(|name| (name.to_owned(), order.clone())).collect()
    }

    /// Who has other examples than whoever is furthest, or than most where none has begun.
    fn others(&self, gathered: &[Gathered]) -> Option<Vec<(String, Error)>> {
        let with = |data: &[u8]| gathered.iter().filter(|other| other.data == data).count();
        let leads = (0..gathered.len())
            .max_by_key(|rank| (gathered[*rank].round, with(&gathered[*rank].data), std::cmp::Reverse(*rank)))?;
        let (data, leader) = (&self.terms.train_path, &self.members[leads].name);
        let text = format!("its examples of '{data}' are unlike those of worker '{leader}'");
        let is_other = |(other, _): &(&Gathered, &Candidate)| other.data != gathered[leads].data;
        let named = |(_, member): (&Gathered, &Candidate)| {
            (member.name.clone(), Error::new(Code::FailedPrecondition, text.clone()))
        };
        let others: Vec<_> = gathered.iter().zip(&self.members).filter(is_other).map(named).collect();
        (!others.is_empty()).then_some(others)
    }

    /// What all are told when it is over; `keep`: another attempt may go on from their checkpoints.
    pub(crate) fn end(&self, keep: bool) -> Vec<Told> {
        let order = self.order(training_order::Order::End(EndTraining { keep }));
        self.told.iter().map(|name| (name.clone(), order.clone())).collect()
    }
}

fn error_of(fault: TrainingFault) -> Error {
    Error::new(Code::from_name(&fault.code), fault.message)
}

#[cfg(test)]
#[path = "cohort_tests.rs"]
mod tests;
