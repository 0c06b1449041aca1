//! The user's commands.
