//! The fuzz target [`address`](tower_mesh_fuzz::address).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(address);
