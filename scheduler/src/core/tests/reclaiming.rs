//! Attempts at jobs go on under the scheduler that leads next: what runs is not run again.

use std::collections::BTreeMap;

use orion_net::WORK_LEASE;
use orion_proto::{JobAttempt, Parameters};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    failure::{drain, on},
    world::{Ask, Fate, Told, World},
    *,
};

/// Jobs as who leads them sees them, over several schedulers.
struct Jobs {
    world: World,
    /// Of those that have not ended: the attempt, and its request where it has one.
    open: BTreeMap<u64, (u32, Option<u64>)>,
    asked: BTreeMap<u64, JobAttempt>,
    /// How often a worker was lost that had some of it.
    losses: BTreeMap<u64, usize>,
    submitted: u64,
    /// Of the scheduler that leads.
    term: u64,
}

impl Jobs {
    fn new(workers: usize) -> Self {
        let (open, asked, losses) = <_>::default();
        Self { world: on(workers), open, asked, losses, submitted: 0, term: 0 }
    }

    fn name(&self, job: u64) -> JobAttempt {
        JobAttempt { job, attempt: self.open[&job].0 }
    }

    fn submit(&mut self) -> u64 {
        self.submitted += 1;
        self.open.insert(self.submitted, (1, None));
        self.ask(self.submitted);
        self.submitted
    }

    fn ask(&mut self, job: u64) {
        let name = self.name(job);
        let parameters = Parameters { job: Some(name), ..Parameters::default() };
        // A model that has no worker is waited for.
        if let Ok(ticket) = self.world.submit(Ask { parameters, ..Ask::of(0) }) {
            self.open.insert(job, (name.attempt, Some(ticket)));
            self.asked.insert(ticket, name);
        }
    }

    /// Another scheduler leads; these workers know of it already.
    fn takeover(&mut self, joined_before: &[usize]) {
        // What was answered is on disk.
        self.look();
        let workers = self.world.core.known_workers();
        self.world.next_scheduler();
        joined_before.iter().for_each(|at| assert!(self.world.join(*at)));
        self.lead(workers);
    }

    /// The scheduler loses its lead and has it again.
    fn flap(&mut self) {
        self.look();
        let workers = self.world.core.known_workers();
        self.world.core.hand_over(self.term);
        for (_, ticket) in self.open.values() {
            if let Some(key) = ticket.and_then(|ticket| self.world.sent[&ticket].key) {
                self.world.core.cancel(self.world.now, key);
            }
        }
        self.world.collect();
        self.lead(workers);
    }

    fn lead(&mut self, workers: std::collections::BTreeSet<String>) {
        let under_way: Vec<_> = self.open.keys().map(|job| self.name(*job)).collect();
        self.open.values_mut().for_each(|(_, ticket)| *ticket = None);
        self.term = self.world.core.expect(self.world.now, workers, under_way);
        self.world.collect();
    }

    /// What a runner does: takes outcomes, and looks for what was under way.
    fn look(&mut self) {
        for (job, (attempt, ticket)) in self.open.clone() {
            match ticket {
                Some(ticket) if self.world.outcome(ticket) == Some(Ok(())) => drop(self.open.remove(&job)),
                Some(_) => {}
                None => match self.world.core.reclaimed(JobAttempt { job, attempt }, "m") {
                    Reclaimed::Awaited => {}
                    Reclaimed::Held => self.ask(job),
                    Reclaimed::Lost => {
                        self.open.insert(job, (attempt + 1, None));
                        self.ask(job);
                    }
                },
            }
        }
    }

    fn lose(&mut self, at: usize) {
        for batch in &self.world.nodes[at].batches {
            for job in batch.attempts.iter().filter_map(|attempt| attempt.request.parameters.job) {
                *self.losses.entry(job.job).or_default() += 1;
            }
        }
    }

    fn runs(&self, job: u64) -> usize {
        let of = |ticket: &&u64| self.asked[*ticket].job == job;
        self.world.ran.iter().flat_map(|(_, _, tickets)| tickets).filter(of).count()
    }
}

#[test]
fn what_runs_goes_on_and_what_waited_is_given_out_anew() {
    for early in [false, true] {
        let mut jobs = Jobs::new(2);
        let all: Vec<u64> = (0..6).map(|_| jobs.submit()).collect();
        let running: Vec<u64> = all.iter().copied().filter(|job| jobs.runs(*job) == 1).collect();
        assert_eq!(running.len(), 2, "one on each worker");
        jobs.takeover(&[]);
        assert!(jobs.world.join(0));
        let awaited = |jobs: &Jobs, job| jobs.world.core.reclaimed(jobs.name(job), "m") == Reclaimed::Awaited;
        assert!(all.iter().filter(|job| awaited(&jobs, **job)).count() >= 5, "w1 may have them");
        assert!(jobs.world.join(1));
        assert!(all.iter().all(|job| !awaited(&jobs, *job)));
        if early {
            (0..2).for_each(|at| assert!(jobs.world.finish(at, Fate::Ok).is_some()));
        }
        jobs.look();
        drain(&mut jobs.world, Fate::Ok);
        jobs.look();
        assert_eq!(jobs.open, BTreeMap::new());
        assert!(all.iter().all(|job| jobs.runs(*job) == 1), "early {early}");
        assert!(running.iter().all(|job| !jobs.asked.values().any(|name| name.job == *job && name.attempt > 1)));
        assert_eq!(jobs.world.core.unsettled(), 0);
    }
}

#[test]
fn a_worker_that_does_not_come_back_is_awaited_for_its_lease() {
    let mut jobs = Jobs::new(1);
    let job = jobs.submit();
    jobs.takeover(&[]);
    let lease = nanos(WORK_LEASE);
    jobs.world.pass(lease - MS);
    assert_eq!(jobs.world.core.reclaimed(jobs.name(job), "m"), Reclaimed::Awaited);
    assert!(jobs.world.core.known_workers().contains("w0"), "or it would not be awaited by whoever leads next");
    jobs.world.pass(2 * MS);
    assert_eq!(jobs.world.core.reclaimed(jobs.name(job), "m"), Reclaimed::Lost);
    assert!(jobs.world.core.known_workers().is_empty());
    // What it has after all is called off.
    assert!(jobs.world.join(0));
    assert!(jobs.world.told.contains(&Told::Other("a cancellation")));
    jobs.look();
    drain(&mut jobs.world, Fate::Ok);
    jobs.look();
    assert_eq!((jobs.open.len(), jobs.runs(job)), (0, 2));
}

#[test]
fn a_lead_that_is_lost_and_won_again_runs_nothing_again() {
    let mut jobs = Jobs::new(2);
    let all: Vec<u64> = (0..2).map(|_| jobs.submit()).collect();
    jobs.flap();
    assert!(!jobs.world.told.contains(&Told::Other("a cancellation")), "{:?}", jobs.world.told);
    // One result comes before anybody asks.
    jobs.world.finish(0, Fate::Ok);
    jobs.look();
    drain(&mut jobs.world, Fate::Ok);
    jobs.look();
    assert_eq!(jobs.open, BTreeMap::new());
    assert!(all.iter().all(|job| jobs.runs(*job) == 1));
}

#[test]
fn of_an_attempt_in_several_batches_the_last_counts() {
    let mut jobs = Jobs::new(1);
    let job = jobs.submit();
    // It failed in a batch of before, and its worker has that result too.
    let mut failed = jobs.world.nodes[0].batches[0].clone();
    failed.batch -= 2;
    failed.attempts[0].attempt -= 2;
    jobs.world.nodes[0].batches.push_front(failed);
    jobs.takeover(&[]);
    assert!(jobs.world.join(0));
    jobs.world.told.clear();
    jobs.look();
    assert!(jobs.world.told.contains(&Told::Other("a cancellation")), "the one that failed is called off");
    jobs.world.nodes[0].batches.pop_front();
    assert_eq!(jobs.world.finish(0, Fate::Ok).map(|tickets| tickets.len()), Some(1));
    jobs.look();
    assert_eq!((jobs.open.len(), jobs.runs(job)), (0, 1));
    let next = jobs.submit();
    assert_eq!(jobs.runs(next), 1, "its device is free");
}

#[test]
fn what_is_cancelled_while_it_is_sought_frees_its_device() {
    let mut jobs = Jobs::new(1);
    let job = jobs.submit();
    jobs.takeover(&[]);
    assert!(jobs.world.join(0));
    let next = jobs.submit();
    assert_eq!(jobs.runs(next), 0, "the device has what is sought");
    jobs.world.core.unexpect(jobs.world.now, jobs.name(job));
    jobs.world.collect();
    assert!(jobs.world.told.contains(&Told::Other("a cancellation")));
    assert_eq!(jobs.runs(next), 1);
}

#[test]
fn an_old_term_hands_nothing_over() {
    let mut jobs = Jobs::new(1);
    let job = jobs.submit();
    let old = jobs.world.core.expect(jobs.world.now, ["w0".to_owned()], []);
    jobs.takeover(&[]);
    let newer = jobs.term;
    jobs.lead(["w0".to_owned()].into());
    assert!(jobs.term > newer && jobs.term > old);
    jobs.world.core.hand_over(newer);
    assert_eq!(jobs.world.core.reclaimed(jobs.name(job), "m"), Reclaimed::Awaited);
    jobs.world.core.hand_over(jobs.term);
    assert_eq!(jobs.world.core.reclaimed(jobs.name(job), "m"), Reclaimed::Lost);
}

/// Schedulers and workers come and go: each job ends, and runs again only where a worker was lost that had it.
fn history(seed: u64) -> usize {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut jobs = Jobs::new(3);
    let mut takeovers = 0;
    for _ in 0..300 {
        match random.random_range(0..20) {
            0..=7 => drop(jobs.submit()),
            8..=14 => drop(jobs.world.finish(random.random_range(0..3), Fate::Ok)),
            15 => {
                takeovers += 1;
                let before: Vec<usize> = (0..3).filter(|_| random.random_bool(0.3)).collect();
                jobs.takeover(&before);
                let lost = random.random_range(0..6);
                for at in (0..3).filter(|at| !before.contains(at)) {
                    if at == lost {
                        jobs.lose(at);
                        assert!(jobs.world.restart(at));
                    } else {
                        assert!(jobs.world.join(at));
                    }
                    // What one answers that has not joined would be lost on the way.
                    let at = random.random_range(0..3);
                    if jobs.world.nodes[at].link.is_some() && random.random_bool(0.5) {
                        jobs.world.finish(at, Fate::Ok);
                    }
                    if random.random_bool(0.5) {
                        jobs.look();
                    }
                }
            }
            16 => {
                jobs.flap();
                // Those that were asked what they hold say so.
                for at in 0..3 {
                    assert!(jobs.world.nodes[at].link.is_some() || jobs.world.join(at));
                }
            }
            // So little that no device seems to stand still.
            _ => jobs.world.pass(random.random_range(1..4) * MS),
        }
        jobs.look();
    }
    for _ in 0..1000 {
        (0..3).for_each(|at| drop(jobs.world.finish(at, Fate::Ok)));
        jobs.world.pass(30 * MS);
        jobs.look();
    }
    assert_eq!(jobs.open, BTreeMap::new(), "seed {seed}");
    for job in 1..=jobs.submitted {
        let (runs, losses) = (jobs.runs(job), jobs.losses.get(&job).copied().unwrap_or(0));
        assert!(runs <= 1 + losses, "seed {seed}: job {job} ran {runs} times, {losses} workers were lost that had it");
    }
    assert_eq!(jobs.world.core.unsettled(), 0, "seed {seed}");
    assert!(jobs.world.core.batches.is_empty(), "seed {seed}");
    takeovers
}

#[test]
fn whoever_comes_and_goes_no_job_runs_again_without_need() {
    let seeds = cases(50) as u64;
    let takeovers: usize = (0..seeds).map(history).sum();
    println!("{takeovers} takeovers, seeds 0 to {seeds}");
    assert!(takeovers > 50);
}
