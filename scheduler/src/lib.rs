//! The scheduler: API shell, admission, queue, placement, dispatch.
//!
//! [`core`] decides, [`scheduler`] carries out, [`session`] talks to workers, [`api`] to clients through [`front`].

mod alarm_clock;
pub mod api;
pub mod core;
mod curve_file;
mod data_folder;
mod ensembles;
pub mod front;
pub mod jobs;
pub mod journal;
mod process;
pub mod repository;
mod response_format;
pub mod scheduler;
pub mod server;
pub mod session;
pub mod simulate;
mod training;
