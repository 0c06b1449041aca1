//! The strategies by name.

use std::{fmt, str::FromStr};

use orion_proto::{Code, Error};

use super::{
    Balancer,
    draws::{PowerOfTwo, Random},
    hash::ConsistentHash,
    least::{LeastConnections, PredictedCompletion},
    penalty::PenaltyPolicy,
    response::ResponseTime,
    turns::{RoundRobin, SmoothWeighted},
};

/// How a replica is chosen; written in kebab-case, as `predicted-completion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The one that would answer soonest.
    #[default]
    PredictedCompletion,
    /// One after the other. Blind: a replica that fails keeps its share.
    RoundRobin,
    /// In turns, in proportion to the weights. Blind as well.
    SmoothWeighted,
    /// The one with the fewest outstanding requests.
    LeastConnections,
    /// Any. Blind as well.
    Random,
    /// The one that the request's key belongs to, unless it has more than 1.25 times its share.
    ConsistentHash,
    /// The one whose recent response times, times its outstanding requests, are least.
    ResponseTime,
    /// Of two drawn at random, the one with fewer outstanding requests.
    PowerOfTwoChoices,
}

impl Strategy {
    /// All of them, the default first.
    pub const ALL: [Strategy; 8] = [
        Strategy::PredictedCompletion,
        Strategy::RoundRobin,
        Strategy::SmoothWeighted,
        Strategy::LeastConnections,
        Strategy::Random,
        Strategy::ConsistentHash,
        Strategy::ResponseTime,
        Strategy::PowerOfTwoChoices,
    ];

    /// The name, in kebab-case.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::PredictedCompletion => "predicted-completion",
            Strategy::RoundRobin => "round-robin",
            Strategy::SmoothWeighted => "smooth-weighted",
            Strategy::LeastConnections => "least-connections",
            Strategy::Random => "random",
            Strategy::ConsistentHash => "consistent-hash",
            Strategy::ResponseTime => "response-time",
            Strategy::PowerOfTwoChoices => "power-of-two",
        }
    }

    /// A balancer that works so; equal seeds draw alike. Consistent hashing takes no seed: its keys outlive a restart.
    pub fn balancer(self, seed: u64) -> Box<dyn Balancer> {
        self.balancer_with(seed, PenaltyPolicy::default())
    }

    /// As [`Strategy::balancer`], with penalties of this size.
    pub fn balancer_with(self, seed: u64, policy: PenaltyPolicy) -> Box<dyn Balancer> {
        match self {
            Strategy::PredictedCompletion => Box::new(PredictedCompletion::new(policy)),
            Strategy::RoundRobin => Box::new(RoundRobin::default()),
            Strategy::SmoothWeighted => Box::new(SmoothWeighted::default()),
            Strategy::LeastConnections => Box::new(LeastConnections::new(policy)),
            Strategy::Random => Box::new(Random::new(seed)),
            Strategy::ConsistentHash => Box::new(ConsistentHash::new(policy)),
            Strategy::ResponseTime => Box::new(ResponseTime::new(policy)),
            Strategy::PowerOfTwoChoices => Box::new(PowerOfTwo::new(seed, policy)),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Strategy {
    type Err = Error;

    /// INVALID_ARGUMENT, with the list of names, if `name` is none of them.
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            // The names come first in importance: a long wrong one must not push them out of the message.
            let wrong: String = name.chars().take(64).collect();
            Error::new(Code::InvalidArgument, format!("unknown balancing strategy {wrong:?}: it is one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_a_wrong_one_is_answered_with_the_list() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.to_string().parse::<Strategy>().unwrap(), strategy);
        }
        assert_eq!("power-of-two".parse::<Strategy>().unwrap(), Strategy::PowerOfTwoChoices);
        let message = "Round-Robin".parse::<Strategy>().unwrap_err().to_string();
        assert!(
            message.contains("Round-Robin") && Strategy::ALL.iter().all(|s| message.contains(s.name())),
            "{message}"
        );
    }
}
