//! The lower floors of kinglet. See scripts/race-test.sh.

#![allow(dead_code, unused_imports, reason = "nothing above these floors is here to use them")]

#[path = "../../../src/graph/mod.rs"]
pub mod graph;
#[path = "../../../src/kernels/mod.rs"]
pub mod kernels;
#[path = "../../../src/maps.rs"]
pub mod maps;
#[path = "../../../src/ops/mod.rs"]
pub mod ops;
#[path = "../../../src/tensor/mod.rs"]
pub mod tensor;
