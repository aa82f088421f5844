//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

use std::{env, io, path::PathBuf};

const ROOTS: &[&str] = &[
    "tensorflow/core/example/example.proto",
    "tensorflow/core/protobuf/saved_model.proto",
    "tensorflow/core/protobuf/saver.proto",
    "tensorflow/core/protobuf/tensor_bundle.proto",
    "tensorflow/core/protobuf/trackable_object_graph.proto",
    "tensorflow_serving/apis/model_service.proto",
    "tensorflow_serving/apis/prediction_log.proto",
    "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving/config/model_server_config.proto",
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let descriptors = protox::compile(ROOTS, ["proto"]).map_err(io::Error::other)?;
    prost_build::Config::new()
        .out_dir(&out)
        // Tensor contents and string elements are slices of the request body, not copies of it.
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)
}
