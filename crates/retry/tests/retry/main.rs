//! What a call through `RetryLayer` does, by story.

mod allocation;
mod attempts;
mod budget;
mod cancel;
mod errors;
mod script;
mod waits;
