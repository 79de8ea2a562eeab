//! The fuzz target [`verdict`](tower_mesh_fuzz::verdict).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(verdict);
