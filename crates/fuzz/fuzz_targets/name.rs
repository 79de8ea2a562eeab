//! The fuzz target [`name`](tower_mesh_fuzz::name).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(name);
