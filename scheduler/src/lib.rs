//! The scheduler: API shell, admission, queue, placement, dispatch.

pub mod api;
pub mod core;
pub mod front;
