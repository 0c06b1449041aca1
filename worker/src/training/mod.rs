//! Trainings that this worker takes part in: each has a thread, which computes on the device when nobody waits for that, and
//! makes sums with the other members of its cohort.

pub(crate) mod checkpoint;
mod course;
mod data;
mod publish;

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
};

use orion_proto::session::{
    EndTraining, TrainingFault, TrainingOrder, TrainingReport, to_scheduler::Message, training_order::Order,
    training_report::Report,
};
use orion_proto::{Code, Error};
use parking_lot::Mutex;

use crate::worker::Worker;
use course::Course;

/// What ends the waiting of a course, whatever it waits for, once there are newer orders.
#[derive(Default)]
struct Interrupter {
    /// The newest generation that was ordered.
    newest: u64,
    /// The one that the course has joined, and what ends its waiting.
    joined: Option<(u64, Box<dyn Fn() + Send>)>,
}

impl Interrupter {
    /// There is an order of this generation.
    fn ordered(&mut self, generation: u64) {
        // After an end another attempt may begin.
        self.newest = generation;
        self.interrupt();
    }

    /// The course has joined this generation: orders may be newer already.
    fn joined(&mut self, generation: u64, interrupt: Box<dyn Fn() + Send>) {
        self.joined = Some((generation, interrupt));
        self.interrupt();
    }

    fn interrupt(&self) {
        if let Some((_, interrupt)) = self.joined.as_ref().filter(|(joined, _)| *joined < self.newest) {
            interrupt();
        }
    }
}

/// The trainings of a worker, by job.
#[derive(Default)]
pub(crate) struct Trainings(Mutex<HashMap<u64, Handle>>);

struct Handle {
    orders: mpsc::Sender<(u64, Order)>,
    interrupter: Arc<Mutex<Interrupter>>,
}

impl Trainings {
    /// Tells a scheduler that is joined which trainings there are here: one that has ended meanwhile is ended here too.
    pub(crate) fn tell_all(&self, worker: &Worker) {
        let courses: Vec<(u64, u64)> =
            self.0.lock().iter().map(|(job, handle)| (*job, handle.interrupter.lock().newest)).collect();
        // Not under the lock: in one process the scheduler may answer with a call back.
        for (job, generation) in courses {
            worker.tell(Message::Training(TrainingReport { job, generation, report: None }));
        }
    }

    /// Does what the scheduler says.
    pub(crate) fn order(&self, worker: &Arc<Worker>, order: TrainingOrder) {
        let TrainingOrder { job, generation, order: Some(order) } = order else { return };
        let ends = matches!(order, Order::End(_));
        let newest = if ends { u64::MAX } else { generation };
        let mut courses = self.0.lock();
        if let Some(handle) = courses.get(&job) {
            // One that has ended just now takes nothing.
            match handle.orders.send((generation, order.clone())) {
                Ok(()) => return handle.interrupter.lock().ordered(newest),
                Err(_) => drop(courses.remove(&job)),
            }
        }
        if !matches!(order, Order::Gather(_)) {
            if let Order::End(EndTraining { keep: false }) = order {
                checkpoint::forget(&worker.options().data_dir, job);
            }
            return;
        }
        let (orders, given) = mpsc::channel();
        let interrupter = Arc::<Mutex<Interrupter>>::default();
        let course = Course::new(worker.clone(), job, interrupter.clone());
        // The receiver is here.
        let _ = orders.send((generation, order));
        courses.insert(job, Handle { orders, interrupter });
        drop(courses);
        let run = move || course.run(&given);
        if let Err(error) = std::thread::Builder::new().name("orion-training".into()).spawn(run) {
            let error = Error::new(Code::Internal, format!("no thread for the training: {error}"));
            report(worker, job, generation, Report::Failed(fault(&error)));
        }
    }
}

fn fault(error: &Error) -> TrainingFault {
    // A control message is short.
    TrainingFault { code: error.code.name().into(), message: error.message.chars().take(800).collect() }
}

fn report(worker: &Worker, job: u64, generation: u64, report: Report) {
    worker.tell(Message::Training(TrainingReport { job, generation, report: Some(report) }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_than_the_orders_is_interrupted() {
        let mut interrupter = Interrupter::default();
        let (told, interrupted) = mpsc::channel();
        let join = |interrupter: &mut Interrupter, generation| {
            let told = told.clone();
            interrupter.joined(generation, Box::new(move || told.send(generation).unwrap()));
        };
        interrupter.ordered(1);
        join(&mut interrupter, 1);
        // The course is quicker than whoever orders: it has joined before it is to be interrupted.
        join(&mut interrupter, 2);
        interrupter.ordered(2);
        assert_eq!(interrupted.try_iter().count(), 0);
        interrupter.ordered(4);
        assert_eq!(interrupted.try_iter().collect::<Vec<_>>(), [2]);
        // It is slower: what it joins is over already.
        join(&mut interrupter, 3);
        assert_eq!(interrupted.try_iter().collect::<Vec<_>>(), [3]);
        join(&mut interrupter, 4);
        interrupter.ordered(u64::MAX);
        assert_eq!(interrupted.try_iter().collect::<Vec<_>>(), [4]);
    }
}
