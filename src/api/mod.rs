//! Surfaces: thin codecs between wire messages and the models' canonical requests. No surface
//! calls another.
#![forbid(unsafe_code)]

pub mod json;
pub mod tfs_rest;
