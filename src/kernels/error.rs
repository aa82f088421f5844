//! The one error type of the kernels floor: a descriptor or a length that does not fit.

/// Why a kernel refused to run. Nothing was written when one is returned, except by
/// [`KernelError::DivisionByZero`], which leaves the output partly written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A slice does not have the length that its descriptor implies.
    #[error("{kernel}: {argument} holds {actual} elements, expected {expected}")]
    Length {
        /// The kernel that was called.
        kernel: &'static str,
        /// The argument that does not fit.
        argument: &'static str,
        /// Elements the descriptor asks for.
        expected: usize,
        /// Elements that are there.
        actual: usize,
    },
    /// A descriptor contradicts itself or describes more than can be addressed.
    #[error("{kernel}: {argument} {problem}")]
    Descriptor {
        /// The kernel that was called.
        kernel: &'static str,
        /// The field of the descriptor.
        argument: &'static str,
        /// What is wrong with it, as the end of a sentence.
        problem: &'static str,
    },
    /// Two shapes that NumPy's broadcasting rules do not join.
    #[error("shapes {left:?} and {right:?} do not broadcast")]
    Broadcast {
        /// Shape of the first operand.
        left: Vec<usize>,
        /// Shape of the second operand.
        right: Vec<usize>,
    },
    /// An integer was divided by zero.
    #[error("integer division by zero")]
    DivisionByZero,
    /// The operation has no meaning for this element type.
    #[error("{operation} is not defined for {element}")]
    Unsupported {
        /// Name of the operation.
        operation: &'static str,
        /// Name of the element type.
        element: &'static str,
    },
}

/// Fails unless `actual == expected`.
pub(crate) fn expect_length(
    kernel: &'static str,
    argument: &'static str,
    expected: usize,
    actual: usize,
) -> Result<(), KernelError> {
    if actual == expected { Ok(()) } else { Err(KernelError::Length { kernel, argument, expected, actual }) }
}

/// The product of `sizes`, or an error that names `argument` when it does not fit `isize` bytes of f32.
pub(crate) fn product(
    kernel: &'static str,
    argument: &'static str,
    sizes: &[usize],
) -> Result<usize, KernelError> {
    let mut total = 1usize;
    // A zero anywhere makes the product zero, whatever the other sizes are.
    if sizes.contains(&0) {
        return Ok(0);
    }
    for &size in sizes {
        total = total.checked_mul(size).filter(|&total| total <= isize::MAX as usize / 16).ok_or(
            KernelError::Descriptor { kernel, argument, problem: "describes more than can be addressed" },
        )?;
    }
    Ok(total)
}
