//! The fuzz target [`memory`](tower_mesh_fuzz::memory).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(memory);
