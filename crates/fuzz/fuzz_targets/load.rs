//! The fuzz target [`load`](tower_mesh_fuzz::load).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(load);
