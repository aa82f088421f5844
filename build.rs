//! Compiles `proto/` with protox, so that no `protoc` has to be installed, and keeps the
//! descriptors of the served part for gRPC server reflection.

use protox::prost_reflect::{prost::Message, prost_types::FileDescriptorSet};
use std::{env, fs, io, path::PathBuf, process::Command};

/// Files whose services are on the wire.
const SERVED: &[&str] = &[
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
    "tensorflow_serving/apis/model_service.proto",
    "tensorflow_serving/apis/prediction_service.proto",
];

/// Further files that the program reads and writes.
const STORED: &[&str] = &[
    "onnx/onnx.proto",
    "tensorflow/core/example/example.proto",
    "tensorflow/core/protobuf/saved_model.proto",
    "tensorflow/core/protobuf/saver.proto",
    "tensorflow/core/protobuf/tensor_bundle.proto",
    "tensorflow/core/protobuf/trackable_object_graph.proto",
    "tensorflow_serving/apis/prediction_log.proto",
    "tensorflow_serving/config/model_server_config.proto",
];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && links_with_lld() {
        // Functions that came out alike are kept once.
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
        // Addresses that only the load address changes take two bits instead of 24 bytes.
        println!("cargo:rustc-link-arg-bins=-Wl,--pack-dyn-relocs=relr");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let served = protox::compile(SERVED, ["proto"]).map_err(io::Error::other)?;
    fs::write(out.join("served.bin"), without_comments(served).encode_to_vec())?;
    let descriptors = protox::compile(SERVED.iter().chain(STORED), ["proto"]).map_err(io::Error::other)?;
    prost_build::Config::new()
        .out_dir(&out)
        // Tensor contents and string elements are slices of the request body, not copies of it.
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)
}

/// Whether the linker knows lld's options: on x86-64 it is the toolchain's own lld, elsewhere a configured one may be.
fn links_with_lld() -> bool {
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let Some(linker) = env::var_os("RUSTC_LINKER") else {
        return env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|name| name == "x86_64");
    };
    let said = Command::new(linker).args(["-Wl,--version"]).output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("LLD"))
}

/// Positions and comments in the sources are half of a descriptor and of no use to clients.
fn without_comments(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    descriptors
}
