//! The worker: session agent, device inventory, residency, executors.
