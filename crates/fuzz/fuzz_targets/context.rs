//! The fuzz target [`context`](tower_mesh_fuzz::context).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(context);
