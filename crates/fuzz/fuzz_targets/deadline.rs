//! The fuzz target [`deadline`](tower_mesh_fuzz::deadline).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(deadline);
