//! Arithmetic, comparison and matrix products.

use super::{Outputs, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Logical as L, Unary as U},
    ops::{
        Op,
        binary::{Binary, Compare, Logical, Select},
        cast::Cast,
        cumulative::Cumulative,
        late::WithAxes,
        matmul::MatMul,
        shape::{ExpandDims, Squeeze},
        text::StringEqual,
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

/// A scalar of an element type.
pub(super) fn scalar(i: &mut Import<'_>, dtype: DType, value: f64) -> ValueId {
    let wide = i.b.constant(Tensor::scalar(value));
    if dtype == DType::F64 {
        return wide;
    }
    let narrow = i.b.push(Cast { to: dtype }, &[wide]);
    i.folded(narrow)
}

/// The two operands. Before version 7 broadcasting was asked for, and aligned at an axis.
fn operands<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Result<[ValueId; 2], Stop> {
    let (a, mut b) = (n.tensor(0)?, n.tensor(1)?);
    if n.opset < 7 && n.attributes.flag("broadcast") && n.attributes.has("axis") {
        let (rank, own) = (i.rank(a)? as i64, i.rank(b)? as i64);
        let axis = n.attributes.int("axis", -1);
        let first = if axis < 0 { axis + rank } else { axis };
        if !(0..=rank).contains(&first) {
            return Err(format!("axis {axis} is out of range for rank {rank}").into());
        }
        let new: Vec<i64> = (first.saturating_add(own)..rank).collect();
        if !new.is_empty() {
            let axes = new.iter().map(|axis| axis - first).collect();
            b = i.b.push(ExpandDims { axes }, &[b]);
        }
    }
    Ok([a, b])
}

pub(super) fn arithmetic<'a>(i: &mut Import<'a>, n: &Node<'a>, function: B) -> Outputs {
    let operands = operands(i, n)?;
    one(i.b.push(Binary(function), &operands))
}

pub(super) fn compare<'a>(i: &mut Import<'a>, n: &Node<'a>, function: C) -> Outputs {
    let operands = operands(i, n)?;
    let strings = i.dtype(operands[0]) == Some(DType::String);
    match function {
        C::Equal if strings => one(i.b.push(StringEqual { negate: false }, &operands)),
        _ => one(i.b.push(Compare(function), &operands)),
    }
}

pub(super) fn logical<'a>(i: &mut Import<'a>, n: &Node<'a>, function: L) -> Outputs {
    let operands = operands(i, n)?;
    one(i.b.push(Logical(function), &operands))
}

/// The exponent may have another type than the base, which is the result's.
pub(super) fn pow<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let [base, mut exponent] = operands(i, n)?;
    match (i.dtype(base), i.dtype(exponent)) {
        (Some(to), Some(from)) if to == from => {}
        // Integers to a fractional power are computed as floats.
        (Some(to), Some(from)) if to.is_integer() && from.is_float() => {
            let [base, exponent] = [base, exponent].map(|x| i.b.push(Cast { to: DType::F64 }, &[x]));
            let power = i.b.push(Binary(B::Pow), &[base, exponent]);
            return one(i.b.push(Cast { to }, &[power]));
        }
        (Some(to), Some(_)) => {
            exponent = i.b.push(Cast { to }, &[exponent]);
            exponent = i.folded(exponent);
        }
        _ => {}
    }
    one(i.b.push(Binary(B::Pow), &[base, exponent]))
}

/// All inputs joined by a function of two.
pub(super) fn variadic<'a>(i: &mut Import<'a>, n: &Node<'a>, function: B) -> Outputs {
    let terms = n.tensors(0)?;
    let (&first, rest) = terms.split_first().ok_or("there are no inputs")?;
    one(rest.iter().fold(first, |sum, &term| i.b.push(Binary(function), &[sum, term])))
}

pub(super) fn mean<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let terms = n.tensors(0)?;
    let (&first, rest) = terms.split_first().ok_or("there are no inputs")?;
    let sum = rest.iter().fold(first, |sum, &term| i.b.push(Binary(B::Add), &[sum, term]));
    let dtype = i.dtype(first).unwrap_or(DType::F32);
    let count = scalar(i, dtype, terms.len() as f64);
    one(i.b.push(Binary(B::Div), &[sum, count]))
}

/// The bounds are attributes before version 11 and optional inputs since.
pub(super) fn clip<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    if n.opset < 11 {
        let (min, max) = (n.attributes.float("min", f32::MIN), n.attributes.float("max", f32::MAX));
        return one(clamped(i, x, min, max));
    }
    let (min, max) = (n.optional(1)?, n.optional(2)?);
    let known = |i: &mut Import<'a>, bound: Option<ValueId>, default: f32| match bound {
        None => Some(default),
        Some(bound) => match i.known_value(bound)?.as_slice::<f32>() {
            Ok([bound]) => Some(*bound),
            _ => None,
        },
    };
    let bounds = (known(i, min, f32::NEG_INFINITY), known(i, max, f32::INFINITY));
    if let ((Some(min), Some(max)), Some(DType::F32)) = (bounds, i.dtype(x)) {
        return one(clamped(i, x, min, max));
    }
    // ONNX: the smaller of the upper bound and what the lower one leaves.
    let x = min.map_or(x, |min| i.b.push(Binary(B::Max), &[x, min]));
    one(max.map_or(x, |max| i.b.push(Binary(B::Min), &[x, max])))
}

fn clamped(i: &mut Import<'_>, x: ValueId, min: f32, max: f32) -> ValueId {
    let function = match (min, max) {
        (0.0, 6.0) => U::Relu6,
        (0.0, max) if max >= f32::MAX => U::Relu,
        // Bounds the wrong way round give the upper one.
        (min, max) => U::Clip { min: min.min(max), max },
    };
    i.b.push(Unary(function), &[x])
}

/// The operator's own factors are the usual ones; others are put together.
pub(super) fn selu<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (alpha, gamma) = (n.attributes.float("alpha", 1.673_263_2), n.attributes.float("gamma", 1.050_701));
    let x = n.tensor(0)?;
    if (alpha, gamma) == (1.673_263_2, 1.050_701) {
        return one(i.b.push(Unary(U::Selu), &[x]));
    }
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let curve = i.b.push(Unary(U::Elu(alpha)), &[x]);
    let gamma = scalar(i, dtype, f64::from(gamma));
    one(i.b.push(Binary(B::Mul), &[curve, gamma]))
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between.
pub(super) fn shrink<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let dtype = i.dtype(x).ok_or("the input's type is not known")?;
    let (bias, limit) = (n.attributes.float("bias", 0.0), n.attributes.float("lambd", 0.5));
    let [bias, above, below, zero] =
        [bias, limit, -limit, 0.0].map(|value| scalar(i, dtype, f64::from(value)));
    let less = i.b.push(Binary(B::Sub), &[x, bias]);
    let more = i.b.push(Binary(B::Add), &[x, bias]);
    let high = i.b.push(Compare(C::Greater), &[x, above]);
    let low = i.b.push(Compare(C::Less), &[x, below]);
    let upper = i.b.push(Select, &[high, less, zero]);
    one(i.b.push(Select, &[low, more, upper]))
}

/// `x * sigmoid(alpha * x)`
pub(super) fn swish<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, alpha) = (n.tensor(0)?, n.attributes.float("alpha", 1.0));
    if alpha == 1.0 {
        return one(i.b.push(Unary(U::Silu), &[x]));
    }
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let alpha = scalar(i, dtype, f64::from(alpha));
    let scaled = i.b.push(Binary(B::Mul), &[x, alpha]);
    let gate = i.b.push(Unary(U::Sigmoid), &[scaled]);
    one(i.b.push(Binary(B::Mul), &[x, gate]))
}

pub(super) fn mat_mul<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (a, b) = (n.tensor(0)?, n.tensor(1)?);
    one(product(i, a, b))
}

/// NumPy's rules: a vector on the left is a row, one on the right a column, which do not stay.
pub(super) fn product(i: &mut Import<'_>, mut a: ValueId, mut b: ValueId) -> ValueId {
    let vector = |i: &mut Import<'_>, x| i.dims(x).is_some_and(|dims| dims.len() == 1);
    let (row, column) = (vector(i, a), vector(i, b));
    if row {
        a = i.b.push(ExpandDims { axes: vec![0] }, &[a]);
    }
    if column {
        b = i.b.push(ExpandDims { axes: vec![1] }, &[b]);
        b = i.folded(b);
    }
    let y = i.b.push(MatMul::default(), &[a, b]);
    match (row, column) {
        (false, false) => y,
        (true, false) => i.b.push(Squeeze { axes: vec![-2] }, &[y]),
        (false, true) => i.b.push(Squeeze { axes: vec![-1] }, &[y]),
        (true, true) => i.b.push(Squeeze { axes: vec![-1, -2] }, &[y]),
    }
}

/// `alpha a b + beta c`
pub(super) fn gemm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (a, b) = (n.tensor(0)?, n.tensor(1)?);
    let (alpha, beta) = (n.attributes.float("alpha", 1.0), n.attributes.float("beta", 1.0));
    let op = MatMul {
        transpose_a: n.attributes.flag("transA"),
        transpose_b: n.attributes.flag("transB"),
        ..MatMul::default()
    };
    let y = i.b.push(op, &[a, b]);
    let y = scaled(i, y, alpha);
    match n.optional(2)?.filter(|_| beta != 0.0) {
        None => one(y),
        Some(c) => {
            let c = scaled(i, c, beta);
            let c = i.folded(c);
            one(i.b.push(Binary(B::Add), &[y, c]))
        }
    }
}

/// `factor x`
pub(super) fn scaled(i: &mut Import<'_>, x: ValueId, factor: f32) -> ValueId {
    if factor == 1.0 {
        return x;
    }
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let factor = scalar(i, dtype, f64::from(factor));
    i.b.push(Binary(B::Mul), &[x, factor])
}

/// Applies an operator that knows `float` only to another float type.
pub(super) fn in_float(i: &mut Import<'_>, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
    let dtype =
        inputs.first().and_then(|&x| i.dtype(x)).filter(|dtype| dtype.is_float() && *dtype != DType::F32);
    let Some(dtype) = dtype else { return i.b.push(op, inputs) };
    let wide: Vec<ValueId> = inputs
        .iter()
        .map(|&x| {
            let wide = i.b.push(Cast { to: DType::F32 }, &[x]);
            i.folded(wide)
        })
        .collect();
    let y = i.b.push(op, &wide);
    i.b.push(Cast { to: dtype }, &[y])
}

/// A number is not equal to itself when it is none.
pub(super) fn is_nan<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    one(i.b.push(Compare(C::NotEqual), &[x, x]))
}

pub(super) fn is_inf<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let dtype = i.dtype(x).ok_or("the input's type is not known")?;
    let (positive, negative) =
        (n.attributes.int("detect_positive", 1) != 0, n.attributes.int("detect_negative", 1) != 0);
    let infinite = |i: &mut Import<'a>, x: ValueId, value: f64| {
        let bound = scalar(i, dtype, value);
        i.b.push(Compare(C::Equal), &[x, bound])
    };
    one(match (positive, negative) {
        (true, true) => {
            let magnitude = i.b.push(Unary(U::Abs), &[x]);
            infinite(i, magnitude, f64::INFINITY)
        }
        (true, false) => infinite(i, x, f64::INFINITY),
        (false, true) => infinite(i, x, f64::NEG_INFINITY),
        (false, false) => {
            let (nan, own) = (scalar(i, dtype, f64::NAN), x);
            i.b.push(Compare(C::Equal), &[own, nan])
        }
    })
}

/// All bits the other way round.
pub(super) fn bitwise_not<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let dtype = i.dtype(x).filter(|dtype| dtype.is_integer()).ok_or("the input is no integer")?;
    let ones = i.b.constant(Tensor::scalar(-1i64));
    let ones = i.b.push(Cast { to: dtype }, &[ones]);
    let ones = i.folded(ones);
    one(i.b.push(Binary(B::BitwiseXor), &[x, ones]))
}

/// The axis is an input.
pub(super) fn cumulative<'a>(i: &mut Import<'a>, n: &Node<'a>, product: bool) -> Outputs {
    let op = Cumulative {
        axis: 0,
        exclusive: n.attributes.flag("exclusive"),
        reverse: n.attributes.flag("reverse"),
        product,
    };
    let (x, axis) = (n.tensor(0)?, n.tensor(1)?);
    match n.integers(i, 1) {
        Ok(Some(axes)) => match axes.as_slice() {
            &[axis] => one(i.b.push(Cumulative { axis, ..op }, &[x])),
            _ => Err("the axis is not one number".into()),
        },
        _ => one(i.b.push(WithAxes { of: Box::new(op.into()), none_keeps: false }, &[x, axis])),
    }
}
