//! Figures as people read them.

/// Bytes in binary units: `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A duration with three significant figures: `71.2 µs`, `1.20 ms`, `3.40 s`, then `5 min 2 s` and so on.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if !v.is_finite() || v < 0.0 => "-".into(),
        v if v < 999.5e-6 => format!("{} µs", three(v * 1e6)),
        v if v < 999.5e-3 => format!("{} ms", three(v * 1e3)),
        v if v < 60.0 => format!("{} s", three(v)),
        v => long(v.round() as u64),
    }
}

/// A time as RFC 3339 has it.
pub(crate) fn utc(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(chrono::DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{unix_ms} ms"), |time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

fn long(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Three significant figures at least, all digits before the point.
fn three(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// A measured rate in giga-units a second, or that it has not been measured: `385 GFLOP/s`.
pub(crate) fn giga_rate(per_second: f64, unit: &str) -> String {
    measured(per_second, |value| format!("{} G{unit}/s", three(value / 1e9)))
}

/// A link's measured rate in bits, from slow radio to fast fibre; or that it has not been measured.
pub(crate) fn bit_rate(bytes_per_second: f64) -> String {
    measured(bytes_per_second * 8.0, |bits| match bits {
        bits if bits >= 1e9 => format!("{} Gbit/s", three(bits / 1e9)),
        bits => format!("{} Mbit/s", three(bits / 1e6)),
    })
}

/// A measured duration, or that it has not been measured.
pub(crate) fn measured_seconds(value: f64) -> String {
    measured(value, seconds)
}

/// On the wire 0 stands for a figure that nobody has measured.
fn measured(value: f64, show: impl Fn(f64) -> String) -> String {
    if value.is_finite() && value > 0.0 { show(value) } else { "not measured yet".into() }
}

/// The same for JSON: `null` for what has not been measured.
pub(crate) fn known(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_carry_their_unit_and_round_without_overflowing_it() {
        let cases: [(u64, &str); 5] =
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), ((1 << 20) - 1, "1.0 MiB")];
        cases.iter().for_each(|(count, text)| assert_eq!(bytes(*count), *text));
        for (value, text) in [
            (0.0, "0.00 µs"),
            (71.23e-6, "71.2 µs"),
            (999.7e-6, "1.00 ms"),
            (0.25, "250 ms"),
            (3.4, "3.40 s"),
            (302.0, "5 min 2 s"),
            (7_260.0, "2 h 1 min"),
            (200_000.0, "2 d 7 h"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(giga_rate(385.2e9, "FLOP"), "385 GFLOP/s");
        assert_eq!(giga_rate(0.0, "B"), "not measured yet");
        assert_eq!((bit_rate(2.4e6), bit_rate(1.25e9)), ("19.2 Mbit/s".into(), "10.0 Gbit/s".into()));
    }
}
