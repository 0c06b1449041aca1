//! What becomes of the batches that workers were given.

use orion_net::{AttemptResult, Batch, BatchResult};

use super::*;

impl World {
    /// A worker answers the batch that it was given first.
    pub(in crate::core::tests) fn finish(&mut self, at: usize, fate: Fate) -> Option<Vec<u64>> {
        let batch = self.nodes[at].batches.pop_front()?;
        Some(self.answer(at, batch, fate))
    }

    /// A worker answers the batch that it was given last.
    pub(in crate::core::tests) fn finish_last(&mut self, at: usize) {
        let batch = self.nodes[at].batches.pop_back().expect("a batch runs");
        self.answer(at, batch, Fate::Ok);
    }

    /// A worker finishes its oldest batch of a model.
    pub(in crate::core::tests) fn finish_of(&mut self, at: usize, model: usize) {
        let name = self.specs[model].name.clone();
        let place = self.nodes[at].batches.iter().position(|batch| *batch.model == *name.as_str());
        let batch = self.nodes[at].batches.remove(place.expect("a batch of the model runs")).unwrap();
        self.answer(at, batch, Fate::Ok);
    }

    pub(in crate::core::tests) fn answer(&mut self, at: usize, batch: Batch, fate: Fate) -> Vec<u64> {
        let tickets: Vec<u64> = batch.attempts.iter().map(ticket).collect();
        if self.nodes[at].link.is_none() {
            return tickets;
        }
        let poisoned = batch.attempts.iter().any(|attempt| attempt.request.parameters.routing_key == Some(13));
        let fate = if fate == Fate::Poison && poisoned { Fate::All(Code::Internal) } else { fate };
        let fate = self.in_memory(at, &batch, fate);
        let place = (at, self.nodes[at].life, device_number(&batch.device));
        let several = batch.attempts.len() > 1;
        // What was taken away from a worker is dropped, whatever becomes of it there.
        let wanted = self.core.batches.get(&batch.batch).map_or(&[][..], |running| &running.attempts);
        let wanted: Vec<u64> = wanted.iter().map(|(attempt, _)| *attempt).collect();
        let results = batch.attempts.iter().enumerate().map(|(index, attempt)| {
            let sent = self.sent.get_mut(&ticket(attempt)).unwrap();
            let code = match fate {
                Fate::Ok | Fate::Poison => None,
                Fate::First => (index == 0).then_some(Code::InvalidArgument),
                Fate::All(code) => Some(code),
            };
            match code {
                _ if !wanted.contains(&attempt.attempt) => {}
                Some(Code::Unavailable) => sent.failed_on.push(place),
                Some(Code::ResourceExhausted) if !several => sent.failed_on.push(place),
                Some(Code::Internal | Code::ResourceExhausted) if several => sent.runs -= 1,
                _ => {}
            }
            let outcome = code.map_or(Ok(InferAnswer::default()), |code| Err(Error::new(code, "told to fail")));
            AttemptResult { attempt: attempt.attempt, outcome, not_started: false }
        });
        let results: Vec<_> = results.collect();
        let (rows, model) = (self.rows_of(&batch), self.number(&batch.model));
        let curve = self.curves[model];
        let result = BatchResult {
            batch: batch.batch,
            epoch: batch.epoch,
            service_seconds: curve.seconds(rows),
            rows: rows as u64,
            waited_seconds: WAITED,
            peak_bytes: self.batch_peak(model, rows, fate),
            results,
        };
        self.core.result(self.now, self.nodes[at].session, result);
        self.collect();
        tickets
    }

    pub(in crate::core::tests) fn outcome(&self, ticket: u64) -> Option<std::result::Result<(), Code>> {
        self.sent[&ticket].answers.first().copied()
    }
}
