//! Messages generated from `proto/` at build time. Names and field numbers are TensorFlow's and
//! TensorFlow Serving's; `bytes` fields are [`bytes::Bytes`], maps are ordered.
#![allow(missing_docs, unreachable_pub, clippy::all)]
#![forbid(unsafe_code)]

pub mod tensorflow {
    include!(concat!(env!("OUT_DIR"), "/tensorflow.rs"));

    pub mod error {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.error.rs"));
    }

    pub mod serving {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.rs"));
    }
}

/// ONNX model files.
pub mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub mod grpc {
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }

    /// Version 1; `v1alpha` differs in nothing but its package name.
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}

/// The serialized `google.protobuf.FileDescriptorSet` of all services and what they import.
pub static SERVED_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/served.bin"));
