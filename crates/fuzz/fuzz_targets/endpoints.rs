//! The fuzz target [`endpoints`](tower_mesh_fuzz::endpoints).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(endpoints);
