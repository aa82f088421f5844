//! What planning knows of a value before it is computed.

use crate::tensor::{DType, Shape, Tensor};

/// Dtype, concrete shape, and the value itself where it is known while planning (constants, and
/// whatever is computed from shapes and constants alone).
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Shape,
    /// The value, where known.
    pub value: Option<Tensor>,
}

impl Fact {
    /// A value to be computed.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Self { dtype, shape: shape.into(), value: None }
    }

    /// A known value.
    pub fn known(value: Tensor) -> Self {
        Self { dtype: value.dtype(), shape: value.shape().clone(), value: Some(value) }
    }

    /// Dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// Rank of the shape.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }
}

/// The answer of [`super::Operator::infer`].
#[derive(Clone, Debug, PartialEq)]
pub enum Inferred {
    /// The outputs' facts.
    Facts(Vec<Fact>),
    /// The shapes depend on the value of this input, which is not known yet. Planning stops before
    /// the operator and goes on when the value has been computed.
    NeedsValue(usize),
    /// The shapes are known only once the operator has run; it must lower to
    /// [`super::Run::Tensors`].
    AtRun,
}

impl Inferred {
    /// One output to be computed.
    pub fn one(dtype: DType, shape: impl Into<Shape>) -> Self {
        Self::Facts(vec![Fact::new(dtype, shape)])
    }

    /// One output whose value is known.
    pub fn known(value: Tensor) -> Self {
        Self::Facts(vec![Fact::known(value)])
    }
}
