//! The file that lists emulated devices.

use std::time::Instant;

use orion_models::{Episode, Pace};
use serde::{Deserialize, de::DeserializeOwned};

use super::{SimulatedDevice, Simulation};

/// Devices of one worker: their telemetry travels in a control message.
const MOST_DEVICES: usize = 64;
/// A device so many times slower or faster than its models say is a mistake in the unit.
const SLOWDOWN: std::ops::RangeInclusive<f64> = 0.001..=1000.0;
const FACTOR: std::ops::RangeInclusive<f64> = 1.0..=1000.0;
/// Before its number in the name of each device of an entry with a count.
const PREFIX: &str = "sim";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    device: Vec<toml::Value>,
    episode: Vec<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: Option<String>,
    count: Option<usize>,
    memory_bytes: u64,
    #[serde(default = "one")]
    slowdown: f64,
    copy_bytes_per_second: Option<f64>,
    #[serde(default)]
    seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EpisodeEntry {
    device: String,
    start_seconds: f64,
    end_seconds: f64,
    factor: f64,
}

fn one() -> f64 {
    1.0
}

pub(super) fn parse(text: &str) -> Result<Simulation, Vec<String>> {
    let file: File = toml::from_str(text).map_err(|error| vec![located(text, &error)])?;
    let mut mistakes = Vec::new();
    let mut devices = Vec::new();
    for (number, entry) in entries::<DeviceEntry>("device", file.device, &mut mistakes) {
        let before = mistakes.len();
        entry.check(&format!("device {number}"), &mut mistakes);
        if mistakes.len() == before {
            devices.extend(entry.devices());
        }
    }
    // Not when one is only mistaken: the rest would be mistakes of that mistake.
    let all_devices_known = mistakes.is_empty();
    if all_devices_known {
        check_all(&devices, &mut mistakes);
    }
    for (number, entry) in entries::<EpisodeEntry>("episode", file.episode, &mut mistakes) {
        let before = mistakes.len();
        let what = format!("episode {number}");
        entry.check(&what, &mut mistakes);
        match devices.iter_mut().find(|device| device.name == entry.device) {
            Some(device) if mistakes.len() == before => device.pace.episodes.push(entry.episode()),
            None if all_devices_known => {
                mistakes.push(format!("{what}: device is \"{}\", it must be the name of a device", entry.device));
            }
            _ => {}
        }
    }
    for device in &mut devices {
        in_order(device, &mut mistakes);
    }
    if mistakes.is_empty() { Ok(Simulation { devices }) } else { Err(mistakes) }
}

fn located(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', ", "))
}

/// The entries that can be read, each with its number, from 1.
fn entries<T: DeserializeOwned>(what: &str, values: Vec<toml::Value>, mistakes: &mut Vec<String>) -> Vec<(usize, T)> {
    let mut read = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        match value.try_into() {
            Ok(entry) => read.push((index + 1, entry)),
            Err(error) => mistakes.push(format!("{what} {}: {}", index + 1, error.message().replace('\n', ", "))),
        }
    }
    read
}

impl DeviceEntry {
    fn check(&self, what: &str, mistakes: &mut Vec<String>) {
        let mut wrong = |text: String| mistakes.push(format!("{what}: {text}"));
        match (&self.name, self.count) {
            (None, None) => wrong("name is missing, it must have a name or a count".into()),
            (Some(name), _) if !orion_proto::valid_name(name) => {
                wrong(format!("name is \"{name}\", it must be 1 to 128 of the characters A-Z a-z 0-9 . _ -"));
            }
            _ => {}
        }
        if let Some(count) = self.count.filter(|count| !(1..=MOST_DEVICES).contains(count)) {
            wrong(format!("count is {count}, it must be 1 to {MOST_DEVICES}"));
        }
        if self.memory_bytes == 0 {
            wrong("memory_bytes is 0, it must be 1 or more".into());
        }
        if !SLOWDOWN.contains(&self.slowdown) {
            wrong(format!("slowdown is {}, it must be {} to {}", self.slowdown, SLOWDOWN.start(), SLOWDOWN.end()));
        }
        if let Some(rate) = self.copy_bytes_per_second.filter(|rate| !(*rate >= 1.0 && rate.is_finite())) {
            wrong(format!("copy_bytes_per_second is {rate}, it must be 1 or more"));
        }
    }

    fn devices(&self) -> Vec<SimulatedDevice> {
        let name = self.name.as_deref().unwrap_or(PREFIX);
        let device = |name: String, index: u64| SimulatedDevice {
            name,
            memory_bytes: self.memory_bytes,
            pace: Pace {
                slowdown: self.slowdown,
                copy_bytes_per_second: self.copy_bytes_per_second,
                seed: self.seed.wrapping_add(index),
                episodes: Vec::new(),
                start: Instant::now(),
            },
        };
        match self.count {
            None => vec![device(name.to_owned(), 0)],
            Some(count) => (0..count).map(|index| device(format!("{name}{index}"), index as u64)).collect(),
        }
    }
}

fn check_all(devices: &[SimulatedDevice], mistakes: &mut Vec<String>) {
    if !(1..=MOST_DEVICES).contains(&devices.len()) {
        mistakes.push(format!("the file has {} devices, it must have 1 to {MOST_DEVICES}", devices.len()));
    }
    for (index, device) in devices.iter().enumerate() {
        if devices[..index].iter().any(|earlier| earlier.name == device.name) {
            mistakes.push(format!("device \"{}\" is there twice, each name must be its own", device.name));
        }
    }
}

impl EpisodeEntry {
    fn check(&self, what: &str, mistakes: &mut Vec<String>) {
        let Self { start_seconds: start, end_seconds: end, factor, .. } = self;
        if !(*start >= 0.0 && start.is_finite()) {
            mistakes.push(format!("{what}: start_seconds is {start}, it must be 0 or more"));
        }
        if !(end > start && end.is_finite()) {
            mistakes.push(format!("{what}: end_seconds is {end}, it must be more than start_seconds, {start}"));
        }
        if !FACTOR.contains(factor) {
            mistakes.push(format!("{what}: factor is {factor}, it must be {} to {}", FACTOR.start(), FACTOR.end()));
        }
    }

    fn episode(&self) -> Episode {
        let Self { start_seconds, end_seconds, factor, .. } = *self;
        Episode { start_seconds, end_seconds, factor }
    }
}

/// Sorts a device's episodes.
fn in_order(device: &mut SimulatedDevice, mistakes: &mut Vec<String>) {
    let episodes = &mut device.pace.episodes;
    episodes.sort_by(|a, b| a.start_seconds.total_cmp(&b.start_seconds));
    for pair in episodes.windows(2) {
        let (end, start) = (pair[0].end_seconds, pair[1].start_seconds);
        if start < end {
            mistakes.push(format!(
                "device \"{}\" has an episode from {start} s before the earlier one ends at {end} s, they must not overlap",
                device.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_devices_with_their_episodes() {
        let simulation = parse(
            r#"
            [[device]]
            name = "fast"
            memory_bytes = 100
            [[device]]
            name = "slow"
            count = 2
            memory_bytes = 200
            slowdown = 2
            copy_bytes_per_second = 50
            seed = 7
            [[device]]
            count = 1
            memory_bytes = 1
            [[episode]]
            device = "slow1"
            start_seconds = 9
            end_seconds = 10
            factor = 3
            [[episode]]
            device = "slow1"
            start_seconds = 0.5
            end_seconds = 9
            factor = 2"#,
        )
        .unwrap();
        let shown: Vec<_> = simulation
            .devices
            .iter()
            .map(|d| (d.name.as_str(), d.memory_bytes, d.pace.slowdown, d.pace.copy_bytes_per_second, d.pace.seed))
            .collect();
        let slow = |name, seed| (name, 200, 2.0, Some(50.0), seed);
        let expected = [("fast", 100, 1.0, None, 0), slow("slow0", 7), slow("slow1", 8), ("sim0", 1, 1.0, None, 0)];
        assert_eq!(shown, expected);
        let episodes: Vec<_> =
            simulation.devices[2].pace.episodes.iter().map(|e| (e.start_seconds, e.factor)).collect();
        assert_eq!(episodes, [(0.5, 2.0), (9.0, 3.0)]);
        assert!(simulation.devices.iter().filter(|device| device.name != "slow1").all(|d| d.pace.episodes.is_empty()));
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let mistakes = parse(
            r#"
            [[device]]
            memory_bytes = 0
            slowdown = 0
            [[device]]
            name = "a b"
            count = 65
            memory_bytes = 1
            copy_bytes_per_second = -1
            [[device]]
            name = "c"
            memory_bytes = -1
            [[device]]
            name = "d"
            memory_bytes = 1
            speed = 3
            [[episode]]
            device = "c"
            start_seconds = -1
            end_seconds = -2
            factor = 0.5"#,
        )
        .unwrap_err();
        for words in [
            ["device 1: name is missing", "a count"],
            ["device 1: memory_bytes is 0", "1 or more"],
            ["device 1: slowdown is 0", "0.001 to 1000"],
            ["device 2: name is \"a b\"", "1 to 128"],
            ["device 2: count is 65", "1 to 64"],
            ["device 2: copy_bytes_per_second is -1", "1 or more"],
            ["device 3: ", "-1"],
            ["device 4: ", "speed"],
            ["episode 1: start_seconds is -1", "0 or more"],
            ["episode 1: end_seconds is -2", "more than start_seconds, -1"],
            ["episode 1: factor is 0.5", "1 to 1000"],
        ] {
            let named = mistakes.iter().any(|mistake| words.iter().all(|word| mistake.contains(word)));
            assert!(named, "{words:?} is not in {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), 11, "{mistakes:#?}");
    }

    #[test]
    fn devices_and_episodes_must_agree() {
        let device = "[[device]]\nname = \"a\"\nmemory_bytes = 1\n";
        let episode = |of: &str, start: u32, end: u32| {
            format!("[[episode]]\ndevice = \"{of}\"\nstart_seconds = {start}\nend_seconds = {end}\nfactor = 2\n")
        };
        for (text, words) in [
            (String::new(), "the file has 0 devices, it must have 1 to 64"),
            (format!("{device}{device}"), "device \"a\" is there twice"),
            (format!("{device}{}", episode("b", 0, 1)), "episode 1: device is \"b\""),
            (
                format!("{device}{}{}", episode("a", 5, 9), episode("a", 0, 6)),
                "from 5 s before the earlier one ends at 6 s",
            ),
            (
                "[[device]]\ncount = 40\nmemory_bytes = 1\n".repeat(2).replacen("count", "name = \"b\"\ncount", 1),
                "has 80 devices",
            ),
            ("[[device]\n".into(), "line 1"),
            ("devices = 1".into(), "line 1"),
        ] {
            let mistakes = parse(&text).unwrap_err();
            assert!(mistakes.len() == 1 && mistakes[0].contains(words), "{text}: {mistakes:?}");
        }
    }
}
