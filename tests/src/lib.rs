//! Nothing: the tests of the crates together are in `mesh` (over real sockets) and `contract` (tower's contract, for every
//! service and every pair of neighbours).
