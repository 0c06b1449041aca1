//! Random histories of clients and workers: every admitted request settles exactly once, whatever happens.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// One step of a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Submit,
    Cancel,
    Finish(usize),
    FailForWorker(usize),
    Silence(usize),
    Reset(usize),
    Hear(usize),
    Rejoin(usize, bool),
    Drain(usize),
    Unload,
    Load,
    Expire,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Submit),
        1 => Just(Step::Cancel),
        4 => (0usize..3).prop_map(Step::Finish),
        1 => (0usize..3).prop_map(Step::FailForWorker),
        1 => (0usize..3).prop_map(Step::Silence),
        1 => (0usize..3).prop_map(Step::Reset),
        1 => (0usize..3).prop_map(Step::Hear),
        2 => ((0usize..3), any::<bool>()).prop_map(|(w, same)| Step::Rejoin(w, same)),
        1 => (0usize..3).prop_map(Step::Drain),
        1 => Just(Step::Unload),
        2 => Just(Step::Load),
        1 => Just(Step::Expire),
        2 => (1u64..400).prop_map(Step::Wait),
    ]
}

/// The workers' side of a random history: what each holds.
struct World {
    core: TestCore,
    sessions: Vec<u64>,
    incarnations: Vec<u64>,
    held: Vec<Vec<Batch>>,
    settled: HashMap<u64, u32>,
    cancelled: Vec<u64>,
    keys: Vec<(u64, RequestKey)>,
    now: Nanos,
    tickets: u64,
}

impl World {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Submit => {
                self.tickets += 1;
                match submit(&mut self.core, self.now, self.tickets) {
                    Ok(key) => self.keys.push((self.tickets, key)),
                    Err(_) => self.tickets -= 1,
                }
            }
            Step::Cancel => {
                if let Some((ticket, key)) = self.keys.pop()
                    && self.core.request(key).is_some()
                {
                    self.core.cancel(key);
                    self.cancelled.push(ticket);
                }
            }
            Step::Finish(w) => self.finish(w, || Ok(InferAnswer::default())),
            Step::FailForWorker(w) => self.finish(w, || Err(Error::new(Code::Unavailable, "lost"))),
            Step::Silence(w) => self.core.suspect(self.now, self.sessions[w], "silent", 350 * MS, false),
            Step::Reset(w) => self.core.suspect(self.now, self.sessions[w], "reset", 350 * MS, true),
            Step::Hear(w) => self.core.alive(self.now, self.sessions[w]),
            Step::Rejoin(w, same) => self.rejoin(w, same),
            Step::Drain(w) => self.core.worker_drains(self.now, self.sessions[w]),
            Step::Unload => self.core.unwant(self.now, "m").unwrap(),
            Step::Load => {
                self.core.want(self.now, &ModelName::new("m").unwrap(), "/m".into(), false);
                for w in 0..3 {
                    ready(&mut self.core, self.now, self.sessions[w]);
                }
            }
            Step::Expire => {
                if let Some((_, key)) = self.keys.pop() {
                    self.core.expire(self.now, key);
                }
            }
            Step::Wait(ms) => {
                self.now += ms * MS;
                self.core.tick(self.now);
            }
        }
        self.collect();
    }

    fn finish(&mut self, w: usize, outcome: impl Fn() -> Result<InferAnswer>) {
        if !self.held[w].is_empty() {
            let batch = self.held[w].remove(0);
            self.core.result(self.now, self.sessions[w], answer(&batch, outcome));
        }
    }

    fn rejoin(&mut self, w: usize, same: bool) {
        if !same {
            self.incarnations[w] += 1;
            self.held[w].clear();
        }
        let name = ["a", "b", "c"][w];
        let mut hello = hello(name, self.incarnations[w]);
        hello.holding = self.held[w].iter().map(|batch| batch.batch).collect();
        if let Ok(joined) = self.core.join(self.now, hello, "grpc", w as u64) {
            self.sessions[w] = joined.session;
            self.core.start(self.now, joined.session);
            ready(&mut self.core, self.now, joined.session);
        } else if !same {
            self.incarnations[w] -= 1;
        }
    }

    fn collect(&mut self) {
        for command in self.core.take_commands() {
            match command {
                Command::Run { link, batch } => self.held[link as usize].push(batch),
                Command::Settle { ticket, .. } => *self.settled.entry(ticket).or_default() += 1,
                _ => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn every_admitted_request_settles_exactly_once(steps in prop::collection::vec(step(), 1..120)) {
        let (core, sessions) = core_with(&["a", "b", "c"]);
        let mut world = World {
            core, sessions, incarnations: vec![1; 3], held: vec![vec![]; 3], settled: HashMap::new(),
            cancelled: vec![], keys: vec![], now: 0, tickets: 0,
        };
        steps.into_iter().for_each(|step| world.apply(step));
        // The end of every history: the workers come back as new processes and finish what they are given.
        world.apply(Step::Load);
        for _ in 0..200 {
            for w in 0..3 {
                world.apply(Step::Reset(w));
                world.apply(Step::Rejoin(w, false));
                for _ in 0..8 {
                    world.apply(Step::Finish(w));
                }
            }
            world.apply(Step::Wait(100));
            if world.core.unsettled() == 0 {
                break;
            }
        }
        prop_assert_eq!(world.core.unsettled(), 0);
        prop_assert_eq!(world.core.request_bytes, 0);
        prop_assert!(world.core.batches.is_empty());
        for ticket in 1..=world.tickets {
            let expected = u32::from(!world.cancelled.contains(&ticket));
            prop_assert_eq!(world.settled.get(&ticket).copied().unwrap_or(0), expected, "ticket {}", ticket);
        }
    }
}
