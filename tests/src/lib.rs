//! What the tests of the crates together share. The tests are in `tests/mesh`, one binary.
