//! The fuzz target [`consul`](tower_mesh_fuzz::consul).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(consul);
