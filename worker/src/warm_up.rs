//! Warm-up: which batches are run, and the curve through what they took.

use std::time::{Duration, Instant};

use orion_models::Generator;
use orion_proto::{Priority, Result, ServiceCurve};

/// Rows that are run whatever it takes, besides one row.
const MANY: usize = 8;
/// Times that a size is run: the first touches memory and fills caches, the fastest of the others counts.
const TIMES: usize = 3;
/// What larger or further batches may take together with those before them.
const BUDGET: Duration = Duration::from_secs(1);

/// Runs batches of growing size, up to `most_rows`, and gives their curve. `run` runs one of so many rows and says what it
/// took.
///
/// # Errors
/// That of the first batch that fails.
pub(crate) fn curve(most_rows: usize, mut run: impl FnMut(usize) -> Result<Duration>) -> Result<ServiceCurve> {
    let (mut points, mut spent, mut last) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    for rows in sizes(most_rows) {
        // A batch of twice the rows takes about twice the time.
        let required = points.len() < 2;
        if !required && spent + 2 * last > BUDGET {
            break;
        }
        let before = spent;
        let mut fastest = run(rows)?;
        spent += fastest;
        for time in 1..TIMES {
            if spent + fastest > BUDGET {
                break;
            }
            let taken = run(rows)?;
            spent += taken;
            fastest = if time == 1 { taken } else { fastest.min(taken) };
        }
        last = spent - before;
        points.push((rows, fastest.as_secs_f64()));
    }
    Ok(fit(&points))
}

/// Tokens of a typical prompt, and of a typical answer.
const PROMPT: usize = 32;
const ANSWER: usize = 64;
/// Tokens of the answer that are generated to know what one takes.
const TRIED: usize = 8;
const STEPS: usize = 10_000;

/// Runs a short generation; the seconds that a typical one takes, as those of one row.
///
/// # Errors
/// That of the generation.
pub(crate) fn generation(generator: &mut dyn Generator) -> Result<ServiceCurve> {
    let sample = generator.sample(PROMPT, TRIED);
    let mut fastest = f64::MAX;
    for _ in 0..TIMES {
        generator.add(0, Priority::default(), &sample)?;
        let (started, mut first) = (Instant::now(), None);
        // More steps than any short generation takes: one that never ends must not hold the device.
        'steps: for _ in 0..STEPS {
            for (_, delta) in generator.step() {
                let delta = delta?;
                first = first.or_else(|| (!delta.tokens.is_empty()).then(|| started.elapsed().as_secs_f64()));
                if delta.finish.is_some() {
                    break 'steps;
                }
            }
        }
        let (prefill, whole) = (first.unwrap_or_default(), started.elapsed().as_secs_f64());
        let token = (whole - prefill) / (TRIED - 1) as f64;
        fastest = fastest.min(prefill + token * (ANSWER - 1) as f64);
    }
    Ok(ServiceCurve { base_seconds: fastest, per_row_seconds: 0.0 })
}

/// One row, eight, then the other powers of two and the largest, each at most `most_rows`.
fn sizes(most_rows: usize) -> Vec<usize> {
    let most = most_rows.max(1);
    let mut sizes = vec![1, MANY.min(most)];
    let powers = std::iter::successors(Some(2usize), |size| size.checked_mul(2)).take_while(|size| *size < most);
    sizes.extend(powers.filter(|size| *size != MANY));
    sizes.push(most);
    let mut seen = std::collections::HashSet::new();
    sizes.retain(|size| seen.insert(*size));
    sizes
}

/// The line `base + per_row · rows` with the least squares of relative error (weights `1 / rows²`), neither term negative.
pub(crate) fn fit(points: &[(usize, f64)]) -> ServiceCurve {
    // Sums of w, w·n, w·n², w·t, w·n·t for w = 1/n².
    let (mut w, mut n, mut nn, mut t, mut nt) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &(rows, seconds) in points.iter().filter(|(rows, _)| *rows > 0) {
        let inverse = 1.0 / rows as f64;
        w += inverse * inverse;
        n += inverse;
        nn += 1.0;
        t += inverse * inverse * seconds;
        nt += inverse * seconds;
    }
    let ratio = |a: f64, b: f64| if b > 0.0 { (a / b).max(0.0) } else { 0.0 };
    let determinant = w * nn - n * n;
    let flat = ServiceCurve { base_seconds: ratio(t, w), per_row_seconds: 0.0 };
    // One size alone says nothing of rows.
    if determinant <= 1e-12 * w * nn {
        return flat;
    }
    let (base_seconds, per_row_seconds) = ((nn * t - n * nt) / determinant, (w * nt - n * t) / determinant);
    match (base_seconds < 0.0, per_row_seconds < 0.0) {
        (true, _) => ServiceCurve { base_seconds: 0.0, per_row_seconds: ratio(nt, nn) },
        (_, true) => flat,
        _ => ServiceCurve { base_seconds, per_row_seconds },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orion_proto::{Code, Error};
    use proptest::prelude::*;

    #[test]
    fn sizes_are_powers_of_two_and_the_largest() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(5), [1, 5, 2, 4]);
        assert_eq!(sizes(8), [1, 8, 2, 4]);
        assert_eq!(sizes(20), [1, 8, 2, 4, 16, 20]);
        assert_eq!(sizes(64), [1, 8, 2, 4, 16, 32, 64]);
    }

    #[test]
    fn slow_models_run_one_and_eight_rows_once() {
        let mut ran = Vec::new();
        let curve = curve(1 << 16, |rows| {
            ran.push(rows);
            Ok(Duration::from_secs(1 + rows as u64))
        });
        assert_eq!(ran, [1, 8]);
        let curve = curve.unwrap();
        assert!((curve.base_seconds - 1.0).abs() < 1e-9 && (curve.per_row_seconds - 1.0).abs() < 1e-9, "{curve:?}");
        assert!(super::curve(8, |_| Err(Error::new(Code::Internal, "no"))).is_err());
    }

    #[test]
    fn the_first_run_of_a_size_does_not_count() {
        let mut runs = std::collections::HashMap::new();
        let curve = curve(8, |rows| {
            let run = runs.entry(rows).or_insert(0);
            *run += 1;
            Ok(Duration::from_micros([1, 12, 10][*run - 1] * (1 + rows as u64)))
        });
        assert!(runs.values().all(|runs| *runs == TIMES));
        let curve = curve.unwrap();
        assert!(
            (curve.per_row_seconds - 10e-6).abs() < 1e-12 && (curve.base_seconds - 10e-6).abs() < 1e-12,
            "{curve:?}"
        );
    }

    /// Squares of relative error, which `fit` makes least.
    fn error(curve: ServiceCurve, points: &[(usize, f64)]) -> f64 {
        points.iter().map(|(rows, seconds)| ((curve.seconds(*rows) - seconds) / *rows as f64).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn a_line_is_found_and_nothing_near_fits_better(
            base in 0.0f64..1.0, per_row in 0.0f64..0.1, noise in prop::collection::vec(-0.5f64..0.5, 6),
        ) {
            let rows = [1usize, 2, 4, 8, 16, 32];
            let exact: Vec<(usize, f64)> = rows.map(|n| (n, base + per_row * n as f64)).to_vec();
            let found = fit(&exact);
            prop_assert!((found.base_seconds - base).abs() < 1e-9 && (found.per_row_seconds - per_row).abs() < 1e-9);
            let noisy: Vec<(usize, f64)> = exact.iter().zip(&noise).map(|((n, t), x)| (*n, t * (1.0 + x))).collect();
            let found = fit(&noisy);
            prop_assert!(found.base_seconds >= 0.0 && found.per_row_seconds >= 0.0);
            for (a, b) in [(1e-4, 0.0), (-1e-4, 0.0), (0.0, 1e-4), (0.0, -1e-4), (1e-4, -1e-4), (-1e-4, 1e-4)] {
                let near = ServiceCurve {
                    base_seconds: (found.base_seconds + a).max(0.0),
                    per_row_seconds: (found.per_row_seconds + b).max(0.0),
                };
                prop_assert!(error(found, &noisy) <= error(near, &noisy) + 1e-12, "{found:?} {near:?}");
            }
        }
    }
}
