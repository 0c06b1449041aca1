//! What was seen of the links to other nodes while chunks went over them.

use std::collections::VecDeque;

use super::window::Seen;

/// Nodes that are remembered: those that were sent to last.
const MOST: usize = 8;

/// The links that were seen last, of each node the newest figures.
#[derive(Debug, Default)]
pub(super) struct Links(VecDeque<(String, Seen)>);

impl Links {
    /// A link to the node at this address was used.
    pub(super) fn saw(&mut self, address: &str, seen: Seen) {
        if address.is_empty() || seen.bytes_per_second <= 0.0 {
            return;
        }
        self.0.retain(|(known, _)| known != address);
        self.0.push_front((address.to_owned(), seen));
        self.0.truncate(MOST);
    }

    /// The newest first.
    pub(super) fn all(&self) -> Vec<(String, Seen)> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_figures_of_the_last_nodes_are_kept() {
        let mut links = Links::default();
        let seen = |rate: f64| Seen { bytes_per_second: rate, ..Seen::default() };
        links.saw("", seen(1.0));
        links.saw("a", Seen::default());
        assert!(links.all().is_empty());
        (0..20).for_each(|number| links.saw(&format!("{}", number % 10), seen(f64::from(number))));
        let all = links.all();
        assert_eq!(
            (all.len(), all[0].clone(), all[7].clone()),
            (MOST, ("9".into(), seen(19.0)), ("2".into(), seen(12.0)))
        );
    }
}
