//! How fast matrices are multiplied, by the code that multiplies them when a model runs (candle's).

use std::time::Duration;

use candle_core::{DType, Device, Result, Tensor};

use super::gate::Gate;
use super::pool::Pool;

/// Sides of the squares that are tried, in this order.
const SIDES: [usize; 11] = [128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096];

/// Floating-point operations a second of a square product in `dtype`, all cores together; `None` when it could not be
/// measured. A type without a kernel of its own counts with its conversions, as it would in a model.
pub(super) fn rate(pool: &Pool, gate: &Gate<'_>, dtype: DType, budget: Duration) -> Option<f64> {
    measured(pool, gate, dtype, budget).unwrap_or_else(|error| {
        tracing::warn!(%error, ?dtype, "matrix products of this type do not run here");
        None
    })
}

fn measured(pool: &Pool, gate: &Gate<'_>, dtype: DType, budget: Duration) -> Result<Option<f64>> {
    let until = pool.cpu() + budget;
    let Some((side, square)) = largest_that_fits(pool, gate, dtype, budget)? else { return Ok(None) };
    let operations = 2.0 * (side as f64).powi(3);
    // The first product proved that the type is supported.
    Ok(pool.median_rate(gate, until, operations, || drop(square.matmul(&square))))
}

/// The largest product that a slice has time for: a larger one is nearer to what the cores can do.
fn largest_that_fits(pool: &Pool, gate: &Gate<'_>, dtype: DType, budget: Duration) -> Result<Option<(usize, Tensor)>> {
    let limit = pool.slice_limit(budget).as_secs_f64();
    let mut fitting = None;
    for (index, &side) in SIDES.iter().enumerate() {
        let square = Tensor::full(0.5f32, (side, side), &Device::Cpu)?.to_dtype(dtype)?;
        // The better of two: the first one also pays for what is set up once.
        let mut best = f64::INFINITY;
        for _ in 0..2 {
            if !gate.pass() {
                return Ok(None);
            }
            let mut product = Ok(());
            best = best.min(pool.run(|| product = square.matmul(&square).map(drop)).wall.as_secs_f64());
            product?;
        }
        fitting = Some((side, square));
        let Some(&next) = SIDES.get(index + 1) else { break };
        if best * (next as f64 / side as f64).powi(3) > limit {
            break;
        }
    }
    Ok(fitting)
}
