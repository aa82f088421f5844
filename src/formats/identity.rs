//! Which memory a tensor is: signatures share constants, which are to be counted and written once.

use crate::tensor::{Buffer, DType, Shape, Tensor};

/// Equal for tensors that are the same elements in the same place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    address: usize,
    dtype: DType,
    dims: Vec<usize>,
}

impl Identity {
    /// Holds while the tensor is alive.
    pub(super) fn of(tensor: &Tensor) -> Self {
        let address = match tensor.as_strings() {
            Ok(strings) => strings.as_ptr().addr(),
            Err(_) => tensor.buffer().map_or(0, Buffer::address),
        };
        let shape: &Shape = tensor.shape();
        Self { address, dtype: tensor.dtype(), dims: shape.to_vec() }
    }
}
