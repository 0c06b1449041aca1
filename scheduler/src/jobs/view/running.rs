//! What is known of running jobs by whoever runs them: what they wait for, and how trainings go.

use std::collections::HashMap;

use orion_proto::jobs::TrainingCourse;

use super::View;

impl View {
    /// What a running job waits for; none where it waits no longer.
    pub(in crate::jobs) fn waits(&self, id: u64, what: Option<String>) {
        if is_news(&mut self.waits.lock(), id, what) {
            self.tell(id);
        }
    }

    /// How a training goes; none where it runs here no longer.
    pub(in crate::jobs) fn trains(&self, id: u64, course: Option<TrainingCourse>) {
        if is_news(&mut self.trains.lock(), id, course) {
            self.tell(id);
        }
    }
}

/// Notes what is known of a job now, and says whether that is another thing than before.
fn is_news<T: PartialEq>(known: &mut HashMap<u64, T>, id: u64, now: Option<T>) -> bool {
    let is_new = now.as_ref() != known.get(&id);
    match now {
        Some(now) => known.insert(id, now),
        None => known.remove(&id),
    };
    is_new
}
