//! What is known of running jobs by whoever runs them: what they wait for, and how trainings go.

use orion_proto::jobs::TrainingCourse;

use super::View;

impl View {
    /// What a running job waits for; none where it waits no longer.
    pub(in crate::jobs) fn waits(&self, id: u64, what: Option<String>) {
        let mut waits = self.waits.lock();
        let is_new = what != waits.get(&id).cloned();
        match what {
            Some(what) => waits.insert(id, what),
            None => waits.remove(&id),
        };
        drop(waits);
        if is_new {
            self.tell(id);
        }
    }

    /// How a training goes; none where it runs here no longer.
    pub(in crate::jobs) fn trains(&self, id: u64, course: Option<TrainingCourse>) {
        let mut trains = self.trains.lock();
        let is_new = course.as_ref() != trains.get(&id);
        match course {
            Some(course) => trains.insert(id, course),
            None => trains.remove(&id),
        };
        drop(trains);
        if is_new {
            self.tell(id);
        }
    }
}
