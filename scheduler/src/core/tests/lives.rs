//! Whole clusters, simulated: jobs on a disk whose power fails, the core, and workers that die. What was acknowledged ends, once,
//! as it does where nothing fails.

use std::collections::BTreeMap;

use orion_proto::{JobAttempt, Parameters};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    failure::on,
    world::{Ask, Fate, World},
    *,
};
use crate::{
    jobs::{
        Attempt,
        tests::life::{self, Heard, Life, Wish, result_of},
    },
    journal::power::Disk,
};

const WORKERS: usize = 3;
/// Attempts that are under way at once.
const PLACES: usize = 24;
/// Operations of the disk in a life, at most: of each round some twenty.
const LONGEST: u64 = 3000;

/// What outlives a scheduler.
struct Cluster {
    random: StdRng,
    world: World,
    now: u64,
    /// Keys that were acknowledged, with their job.
    acknowledged: BTreeMap<String, u64>,
    submitted: u64,
    /// Attempts that were given to workers, by their request.
    asked: BTreeMap<u64, JobAttempt>,
    kills: u64,
}

/// What a scheduler that lives knows.
struct Runner {
    life: Life,
    /// With its request, once it has one; true: it was under way before.
    attempts: BTreeMap<u64, (Attempt, Option<u64>, bool)>,
}

impl Runner {
    fn start(cluster: &mut Cluster, disk: &Disk) -> Option<Self> {
        let life = Life::start(disk, cluster.now, PLACES)?;
        cluster.world.next_scheduler();
        let (workers, under_way) = (life.workers(), life.under_way());
        cluster.world.core.expect(cluster.world.now, workers, under_way);
        cluster.world.collect();
        Some(Self { life, attempts: BTreeMap::new() })
    }

    /// Takes what it is told, looks for what was under way, and says what is to be written.
    fn look(&mut self, cluster: &mut Cluster) -> Vec<Wish> {
        for heard in self.life.heard() {
            match heard {
                Heard::Begin(attempt) => self.attempts.insert(attempt.job, (attempt, None, false)),
                Heard::Resume(attempt) => self.attempts.insert(attempt.job, (attempt, None, true)),
            };
        }
        let mut wishes = vec![Wish::Workers(cluster.world.core.known_workers())];
        for (job, (attempt, request, resumes)) in self.attempts.clone() {
            match request {
                Some(request) => match cluster.world.outcome(request) {
                    // What a model answers is the same wherever and whenever it runs.
                    Some(Ok(())) => wishes.push(Wish::Settle(attempt, result_of(job))),
                    // Too much fails at present: it is tried again.
                    Some(Err(_)) => wishes.push(Wish::Fail(attempt)),
                    None => continue,
                },
                None if resumes => match cluster.world.core.reclaimed(attempt.name(), "m") {
                    Reclaimed::Awaited => continue,
                    Reclaimed::Held => {
                        cluster.ask(attempt, &mut self.attempts);
                        continue;
                    }
                    Reclaimed::Lost => wishes.push(Wish::Release(attempt)),
                },
                None => {
                    cluster.ask(attempt, &mut self.attempts);
                    continue;
                }
            }
            self.attempts.remove(&job);
        }
        wishes
    }
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let (world, acknowledged, asked) = (on(WORKERS), BTreeMap::new(), BTreeMap::new());
        Self { random: StdRng::seed_from_u64(seed), world, now: 1, acknowledged, submitted: 0, asked, kills: 0 }
    }

    fn ask(&mut self, attempt: Attempt, attempts: &mut BTreeMap<u64, (Attempt, Option<u64>, bool)>) {
        let parameters = Parameters { job: Some(attempt.name()), ..Parameters::default() };
        // A model that has no worker yet is waited for.
        if let Ok(request) = self.world.submit(Ask { parameters, ..Ask::of(0) }) {
            attempts.insert(attempt.job, (attempt, Some(request), false));
            self.asked.insert(request, attempt.name());
        }
    }

    /// Things happen to workers.
    fn pass(&mut self) {
        for at in 0..WORKERS {
            if self.world.nodes[at].link.is_none() {
                if self.random.random_bool(0.3) {
                    self.world.join(at);
                }
            } else if self.random.random_bool(0.01) {
                // Its process dies: the scheduler sees that, and another begins.
                self.kills += 1;
                self.world.core.suspect(self.world.now, self.world.nodes[at].session, "reset", 1, true);
                self.world.collect();
                self.world.pass(MS);
                assert!(self.world.restart(at));
            } else if self.random.random_bool(0.5) {
                self.world.finish(at, Fate::Ok);
            }
        }
        self.world.pass(MS);
        self.now += 1;
    }

    /// One life of a scheduler, which the power ends; or one that lasts until all has ended, where it does not fail.
    fn live(&mut self, disk: &Disk, most: u64) {
        let Some(mut runner) = Runner::start(self, disk) else { return };
        for round in 0.. {
            let left = (0..self.submitted).filter(|key| !self.acknowledged.contains_key(&key.to_string()));
            let (open, attempts) = (runner.life.unfinished(), &runner.attempts);
            assert!(round < LONGEST, "{open} jobs do not end: {attempts:?}; unanswered {:?}", left.collect::<Vec<_>>());
            let mut wishes = runner.look(self);
            let keys: Vec<String> =
                (0..self.random.random_range(0..3)).map(|n| format!("{}", self.submitted + n)).collect();
            let keys = if self.submitted < most { keys } else { Vec::new() };
            self.submitted += keys.len() as u64;
            wishes.extend(keys.iter().map(|key| Wish::Submit(key.clone(), "m")));
            // Whoever was not answered asks again.
            let unanswered = |key: &u64| !self.acknowledged.contains_key(&key.to_string());
            let again = match self.submitted >= most {
                true => (0..self.submitted).find(unanswered).unwrap_or(0),
                false => self.random.random_range(0..self.submitted.max(1)),
            };
            wishes.push(Wish::Submit(again.to_string(), "m"));
            let submits: Vec<Option<String>> = wishes
                .iter()
                .map(|wish| match wish {
                    Wish::Submit(key, _) => Some(key.clone()),
                    _ => None,
                })
                .collect();
            let Some(answers) = runner.life.round(self.now, wishes) else { return };
            for (key, job) in submits.into_iter().zip(answers).filter_map(|(key, job)| Some((key?, job?))) {
                let known = *self.acknowledged.entry(key.clone()).or_insert(job);
                assert_eq!(known, job, "two jobs of key {key}");
            }
            // Where it failed during a read the journal goes on to refuse what it is asked.
            if disk.is_dead() {
                return;
            }
            self.pass();
            if self.submitted >= most
                && runner.life.unfinished() == 0
                && self.acknowledged.len() as u64 >= self.submitted
            {
                return;
            }
        }
    }
}

/// How many schedulers and workers died, and how many jobs were acknowledged.
fn history(seed: u64, lives: u32) -> (u64, usize) {
    println!("seed {seed}");
    let mut cluster = Cluster::new(seed);
    let mut disk = Disk::new(cluster.random.random_range(200..LONGEST), 0);
    for _ in 0..lives {
        cluster.live(&disk, u64::MAX);
        assert!(disk.is_dead(), "seed {seed}: a life ended though the power had not failed");
        cluster.kills += 1;
        disk = disk.after_loss(cluster.random.random(), cluster.random.random_range(200..LONGEST));
    }
    let disk = disk.after_loss(0, u64::MAX);
    let most = cluster.submitted;
    cluster.live(&disk, most);
    // The run without a fault gives each job this result, once.
    let found = life::found(&disk);
    for (job, result, ends) in &found {
        assert_eq!((result.as_deref(), *ends), (Some(&result_of(*job)[..]), 1), "seed {seed}: job {job}");
    }
    for (key, job) in &cluster.acknowledged {
        assert!(found.iter().any(|(found, ..)| found == job), "seed {seed}: job {job} of key {key} is lost");
    }
    assert_eq!(found.len(), cluster.acknowledged.len(), "seed {seed}: a key has two jobs");
    (cluster.kills, found.len())
}

#[test]
fn whoever_dies_each_acknowledged_job_ends_once() {
    let (seeds, lives) =
        if std::env::var("ORION_TEST_LONG").is_ok_and(|long| long == "1") { (400, 20) } else { (20, 6) };
    let all: Vec<(u64, usize)> = (0..seeds).map(|seed| history(seed, lives)).collect();
    let (kills, jobs) =
        (all.iter().map(|(kills, _)| kills).sum::<u64>(), all.iter().map(|(_, jobs)| jobs).sum::<usize>());
    println!("{kills} schedulers and workers died, {jobs} jobs, lost 0, twice 0, seeds 0 to {}", seeds - 1);
    assert!(kills > seeds * u64::from(lives) && jobs > 500);
}
