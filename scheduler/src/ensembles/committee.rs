//! Who of a committee has answered, and whether that is enough. Pure.

use std::time::Duration;

use orion_proto::{Code, Error, Result, Tensor};

use super::Committee;

/// The answers to one request.
pub(crate) struct Ballot<'a> {
    committee: &'a Committee,
    answers: Vec<Option<Result<Tensor>>>,
}

impl<'a> Ballot<'a> {
    pub(crate) fn new(committee: &'a Committee) -> Self {
        Self { committee, answers: vec![None; committee.members.len()] }
    }

    /// A member has answered.
    pub(crate) fn says(&mut self, member: usize, answer: Result<Tensor>) {
        self.answers[member] = Some(answer);
    }

    fn given(&self) -> usize {
        self.answers.iter().filter(|answer| matches!(answer, Some(Ok(_)))).count()
    }

    /// Whether as many have answered as are enough.
    pub(crate) fn has_quorum(&self) -> bool {
        self.given() >= self.committee.quorum
    }

    /// Whether nothing more can come, or too many have failed.
    pub(crate) fn is_over(&self) -> bool {
        let open = self.answers.iter().filter(|answer| answer.is_none()).count();
        open == 0 || self.given() + open < self.committee.quorum
    }

    /// What came, with the members' weights.
    ///
    /// # Errors
    /// That of the first member that failed, where too few answered; DEADLINE_EXCEEDED where the others were too slow.
    pub(crate) fn close(&self) -> Result<Vec<(&Tensor, f32)>> {
        let members = || self.answers.iter().zip(&self.committee.members);
        if self.has_quorum() {
            let given = members().filter_map(|(answer, member)| Some((answer.as_ref()?.as_ref().ok()?, member.weight)));
            return Ok(given.collect());
        }
        let (given, quorum, count) = (self.given(), self.committee.quorum, self.committee.members.len());
        let few = format!("{given} of {count} members answered, the quorum is {quorum}");
        let failed = members().find_map(|(answer, member)| Some((answer.as_ref()?.as_ref().err()?, member)));
        Err(match failed {
            Some((error, member)) => {
                let message = format!("{few}; member '{}': {}", member.model, error.message);
                Error { message, ..error.clone() }
            }
            None => Error::new(Code::DeadlineExceeded, few),
        })
    }
}

/// Of a request's time members have so much: the rest is for putting their answers together and for the way back.
pub(crate) fn members_time(left: Duration) -> Duration {
    left.saturating_sub((left / 50).clamp(Duration::from_millis(1), Duration::from_millis(50)))
}

#[cfg(test)]
mod tests {
    use super::super::{Combine, Member, numbers::fp32};
    use super::*;

    #[test]
    fn enough_answers_are_an_answer_and_too_few_say_why() {
        let member = |name: &str| Member { model: orion_proto::ModelName::new(name).unwrap(), weight: 1.0 };
        let members = ["a", "b", "c"].map(member).to_vec();
        let committee =
            Committee { members, combine: Combine::Mean, output: String::new(), quorum: 2, wait: Duration::ZERO };
        let mut ballot = Ballot::new(&committee);
        ballot.says(1, Ok(fp32("y", vec![1], &[1.0])));
        assert!(!ballot.has_quorum() && !ballot.is_over());
        assert!(ballot.close().is_err_and(|error| error.code == Code::DeadlineExceeded));
        ballot.says(0, Err(Error::new(Code::Unavailable, "gone")));
        assert!(!ballot.is_over());
        let error = ballot.close().unwrap_err();
        assert_eq!(error.message, "1 of 3 members answered, the quorum is 2; member 'a': gone");
        let mut other = Ballot::new(&committee);
        (0..2).for_each(|member| other.says(member, Err(Error::new(Code::Unavailable, "gone"))));
        assert!(other.is_over());
        ballot.says(2, Ok(fp32("y", vec![1], &[2.0])));
        assert!(ballot.has_quorum() && ballot.is_over());
        assert_eq!(ballot.close().unwrap().len(), 2);
    }
}
