//! The tensor library's own threads, which wait for work beside our pool.

/// How often they look for work before they sleep, where the user has not said it otherwise.
const SPINS: (&str, &str) = ("CANDLE_BARRIER_POOL_SPIN_LIMIT", "100");

/// Has the tensor library's threads sleep soon when they have nothing to do. They look 25,000 times otherwise, and hold a
/// processor for a millisecond that our own pool needs: small ONNX graphs took a third longer.
///
/// # Safety
/// No other thread of the process runs: the library can be told by the environment alone.
pub unsafe fn let_tensor_threads_rest() {
    if std::env::var_os(SPINS.0).is_none() {
        // SAFETY: by the caller's word.
        unsafe { std::env::set_var(SPINS.0, SPINS.1) };
    }
}
