//! How long a client waits, as its protocol's header says it.

use std::time::Duration;

use orion_proto::{Error, Result};

use super::shown;

/// gRPC's own metadata.
pub(super) const GRPC: &str = "grpc-timeout";
/// The HTTP header.
pub(super) const HTTP: &str = "x-request-timeout-seconds";
/// Longest time that [`HTTP`] may name.
const LONGEST_SECONDS: f64 = 86_400.0;
/// The gRPC library has a clock of its own for [`GRPC`] and answers CANCELLED when it ends. This much earlier, the
/// scheduler says DEADLINE_EXCEEDED, and counts the request as failed and not as given up.
pub(super) const BEFORE_THE_LIBRARY: Duration = Duration::from_millis(1);

/// Decimal seconds, above 0 and at most a day.
///
/// # Errors
/// INVALID_ARGUMENT for anything else.
pub(super) fn of_http(text: &str) -> Result<Duration> {
    let decimal = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = text.parse().ok().filter(|seconds| decimal && *seconds > 0.0 && *seconds <= LONGEST_SECONDS);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        let shown = shown(text);
        Error::invalid(format!(
            "header '{HTTP}' is '{shown}', it must be decimal seconds above 0 and at most {LONGEST_SECONDS}, such as 2.5"
        ))
    })
}

/// One to eight digits and a unit, as in gRPC over HTTP/2; 0 is a deadline that has passed.
///
/// # Errors
/// INVALID_ARGUMENT for anything else.
pub(super) fn of_grpc(text: &str) -> Result<Duration> {
    let timeout = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(digits, unit)| {
        let in_form = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let count: u64 = digits.parse().ok().filter(|_| in_form)?;
        // Eight digits of hours are far from overflow.
        Some(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    });
    timeout.ok_or_else(|| {
        let shown = shown(text);
        Error::invalid(format!("metadata '{GRPC}' is '{shown}', it must be 1 to 8 digits and H, M, S, m, u or n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_takes_decimal_seconds_up_to_a_day() {
        for (text, milliseconds) in [("2.5", 2500), ("1", 1000), ("0.001", 1), (".5", 500), ("86400", 86_400_000)] {
            assert_eq!(of_http(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "0", "0.0", "-1", "+1", "1e3", "inf", "NaN", "86400.001", "1,5", "1s", " 1", ".", "٣"] {
            let error = of_http(text).unwrap_err();
            assert!(error.message.contains(HTTP) && error.message.contains("86400"), "{text}: {error}");
        }
    }

    #[test]
    fn grpc_takes_digits_and_a_unit() {
        for (text, milliseconds) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("40m", 40), ("5000u", 5), ("99999999n", 99), ("0S", 0)]
        {
            assert_eq!(of_grpc(text).unwrap().as_millis(), milliseconds, "{text}");
        }
        assert_eq!(of_grpc("99999999H").unwrap().as_secs(), 99_999_999 * 3600);
        for text in ["", "S", "5", "5s", "123456789S", "-1S", "+1S", "1.5S", "1 S", "1Sm", "1µ"] {
            assert!(of_grpc(text).is_err_and(|error| error.message.contains(GRPC)), "{text}");
        }
    }
}
