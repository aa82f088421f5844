//! The kernels with their own unit tests, the thread pool's among them. See scripts/race-test.sh.

#![allow(dead_code, unused_imports, reason = "nothing above the kernels is here to use them")]

#[path = "../../../src/kernels/mod.rs"]
mod kernels;
#[path = "../../../src/tensor/mod.rs"]
mod tensor;
