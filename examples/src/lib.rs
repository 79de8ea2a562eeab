//! One file per question; each is a program: `cargo run --release --example NAME`.
//!
//! | question | example |
//! |---|---|
//! | Does it keep my calls alive when a part of the fleet is broken? | `quickstart` |
//! | How does it live on Consul, when processes are killed, join and leave? | `consul` |
