//! What a worker is told at its start, from its flags.

use std::{collections::BTreeMap, path::Path};

use orion_proto::valid_name;
use orion_worker::{Options, Simulation};

use super::{arguments::NodeFlags, transfers::Transfers};
use crate::Failure;

/// A worker's hello is a small message.
const MOST_LABELS: usize = 32;

/// The worker's options; every mistake at once.
pub(super) fn options(
    name: &str,
    data_dir: &Path,
    transfers: Option<&Transfers>,
    flags: &NodeFlags,
) -> Result<Options, Failure> {
    let mut mistakes = Vec::new();
    let labels = labels(&flags.label, &mut mistakes);
    if let Some(zone) = flags.zone.as_deref().filter(|zone| !valid_name(zone)) {
        mistakes.push(format!("--zone '{zone}' must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"));
    }
    let simulation = flags.simulate.as_deref().map(Simulation::read).transpose().unwrap_or_else(|found| {
        mistakes.extend(found.into_iter().map(|mistake| format!("--simulate {mistake}")));
        None
    });
    if let Some(folder) = flags.datasets.as_deref().filter(|folder| !folder.is_dir()) {
        mistakes.push(format!("--datasets {} is not a folder", folder.display()));
    }
    if !mistakes.is_empty() {
        return Err(Failure::new(mistakes.join("\nerror: ")));
    }
    Ok(Options {
        name: name.to_owned(),
        data_dir: data_dir.to_owned(),
        peer_address: transfers.map(|transfers| transfers.address.clone()).unwrap_or_default(),
        role: flags.role.name().to_owned(),
        zone: flags.zone.clone().unwrap_or_default(),
        labels,
        simulation,
        datasets: flags.datasets.clone(),
        artifacts: transfers.map(|transfers| transfers.artifacts.clone()),
    })
}

fn labels(texts: &[String], mistakes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for text in texts {
        match text.split_once('=') {
            Some((key, value)) if valid_name(key) && valid_name(value) => {
                if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                    mistakes.push(format!("--label '{key}' is given twice, each key may have one value"));
                }
            }
            _ => mistakes.push(format!(
                "--label '{text}' must be KEY=VALUE, such as rack=a1, each 1 to 128 of the characters A-Z a-z 0-9 . _ -"
            )),
        }
    }
    if labels.len() > MOST_LABELS {
        mistakes.push(format!("--label is given {} times, at most {MOST_LABELS} are taken", labels.len()));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::arguments::Role;

    fn flags(labels: &[&str]) -> NodeFlags {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            node: NodeFlags,
        }
        let label = labels.iter().map(|label| (*label).to_owned()).collect();
        let flags: Flags = clap::Parser::parse_from(["worker"]);
        NodeFlags { label, zone: Some("eu-1".into()), role: Role::Gateway, ..flags.node }
    }

    #[test]
    fn flags_reach_the_worker() {
        let flags = flags(&["rack=a1", "tier=gold"]);
        let options = options("w", Path::new("data"), None, &flags).unwrap();
        assert_eq!((options.role.as_str(), options.zone.as_str()), ("gateway", "eu-1"));
        let labels: Vec<_> = options.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["rack=a1", "tier=gold"]);
        assert!(options.simulation.is_none() && options.peer_address.is_empty());
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("devices.toml");
        std::fs::write(&file, "[[device]]\nname = \"a\"\nmemory_bytes = 0\nslowdown = 0").unwrap();
        let zone = Some("a b".into());
        let flags = NodeFlags { zone, simulate: Some(file), ..flags(&["rack", "a b=c", "k=1", "k=2"]) };
        let message = options("w", Path::new("data"), None, &flags).unwrap_err().message;
        for words in [
            "--label 'rack' must be KEY=VALUE",
            "--label 'a b=c'",
            "--label 'k' is given twice",
            "--zone 'a b'",
            "devices.toml: device 1: memory_bytes is 0",
            "devices.toml: device 1: slowdown is 0",
        ] {
            assert!(message.contains(words), "{words:?} is not in {message}");
        }
        assert_eq!(message.matches("\nerror: ").count(), 5, "{message}");
    }
}
