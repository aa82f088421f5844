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
