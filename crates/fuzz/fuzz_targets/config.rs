//! The fuzz target [`config`](tower_mesh_fuzz::config).

#![cfg_attr(fuzzing, no_main)]

tower_mesh_fuzz::target!(config);
