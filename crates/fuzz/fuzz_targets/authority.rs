//! The fuzz target [`authority`](tower_mesh_fuzz::authority).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(authority);
