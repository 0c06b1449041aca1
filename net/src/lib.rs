//! The networking layer: carriers, frames, keep-alive, back-off.
