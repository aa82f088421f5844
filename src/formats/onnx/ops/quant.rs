//! Narrow integers with a scale and a zero point.
//!
//! Products of integers are computed as integers, or as floats of integers without their scales, so
//! that nothing is rounded before the sum is complete.

use super::{Outputs, convolution, many, math, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::{Binary as B, Reduce as R, Unary as U},
    ops::{
        Fused,
        binary::Binary,
        cast::Cast,
        conv::Conv,
        join::Concat,
        matmul::MatMul,
        quant::{Dequantize, Quantize},
        quantized::{QuantizedConv, QuantizedMatMul, Requantize},
        reduce::Reduce,
        shape::{ExpandDims, Reshape},
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

/// The result has the zero point's type, else that of an attribute, else `uint8`.
pub(super) fn quantize<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, scale, zero) = (n.tensor(0)?, n.tensor(1)?, n.optional(2)?);
    let dtype = match zero {
        Some(zero) => i.dtype(zero).ok_or("the type of the zero point cannot be told")?,
        None => n.dtype("output_dtype")?.unwrap_or(DType::U8),
    };
    let (x, scale) = (as_float(i, x), as_float(i, scale));
    one(quantized(i, x, scale, zero, dtype, n.attributes.int("axis", 1)))
}

/// A scale or zero point as a constant, where it is one.
fn constant(i: &mut Import<'_>, x: ValueId) -> Option<Tensor> {
    i.known_value(x)
}

fn quantized(
    i: &mut Import<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    dtype: DType,
    axis: i64,
) -> ValueId {
    let inputs: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
    i.b.push(Quantize { axis, dtype }, &inputs)
}

fn dequantized(i: &mut Import<'_>, x: ValueId, scale: ValueId, zero: Option<ValueId>, axis: i64) -> ValueId {
    let inputs: Vec<ValueId> = [x, scale].into_iter().chain(zero).collect();
    i.b.push(Dequantize { axis }, &inputs)
}

pub(super) fn dequantize<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, scale, zero) = (n.tensor(0)?, n.tensor(1)?, n.optional(2)?);
    let to = match n.dtype("output_dtype")? {
        Some(dtype) => Some(dtype),
        None => i.dtype(scale),
    };
    let scale = as_float(i, scale);
    let y = dequantized(i, x, scale, zero, n.attributes.int("axis", 1));
    one(match to {
        Some(to) if to != DType::F32 => i.b.push(Cast { to }, &[y]),
        _ => y,
    })
}

fn cast(i: &mut Import<'_>, x: ValueId, to: DType) -> ValueId {
    let y = i.b.push(Cast { to }, &[x]);
    if i.b.constant_value(x).is_some() { i.folded(y) } else { y }
}

fn as_float(i: &mut Import<'_>, x: ValueId) -> ValueId {
    if i.dtype(x) == Some(DType::F32) { x } else { cast(i, x, DType::F32) }
}

/// `x - zero` in another type; a vector of zero points goes along `axis` of `rank` axes.
fn centred(
    i: &mut Import<'_>,
    x: ValueId,
    zero: Option<ValueId>,
    to: DType,
    shape: Option<&[i64]>,
) -> ValueId {
    let constant = i.b.constant_value(x).is_some();
    let x = cast(i, x, to);
    let Some(zero) = zero else { return x };
    let mut zero = cast(i, zero, to);
    if let Some(shape) = shape
        && i.dims(zero).is_some_and(|dims| dims.len() == 1)
    {
        let shape = i.b.integers(shape);
        zero = i.b.push(Reshape { zero_copies: false }, &[zero, shape]);
        zero = i.folded(zero);
    }
    let y = i.b.push(Binary(B::Sub), &[x, zero]);
    if constant { i.folded(y) } else { y }
}

/// The exact product as `int32`. Zero points of `a` may go by row, those of `b` by column.
fn integer_product(
    i: &mut Import<'_>,
    (a, a_zero): (ValueId, Option<ValueId>),
    (b, b_zero): (ValueId, Option<ValueId>),
) -> ValueId {
    if let Some(product) = byte_product(i, (a, a_zero), (b, b_zero)) {
        return product;
    }
    let a = centred(i, a, a_zero, DType::I32, Some(&[-1, 1]));
    let b = centred(i, b, b_zero, DType::I32, None);
    math::product(i, a, b)
}

/// The same by the kernel for bytes: weights known and around 0, one zero point for all of `a`, which may be known to a run
/// only. What it adds to the sums is then taken away: it times the sum of each column.
fn byte_product(
    i: &mut Import<'_>,
    (a, a_zero): (ValueId, Option<ValueId>),
    (b, b_zero): (ValueId, Option<ValueId>),
) -> Option<ValueId> {
    if !matches!(i.dtype(a), Some(DType::U8 | DType::I8)) {
        return None;
    }
    let zeros = match b_zero {
        Some(zero) => constant(i, zero)?.to_i64_vec().ok()?,
        None => vec![0],
    };
    let weights = signed_weights(constant(i, b)?, &zeros)?;
    let &[rows, columns] = &weights.shape()[..] else { return None };
    if rows > MAX_DEPTH || rows == 0 {
        return None;
    }
    let (known, later) = match a_zero {
        None => (0, None),
        Some(zero) => match constant(i, zero).map(|zero| zero.to_i64_vec()) {
            Some(Ok(zero)) => match zero.as_slice() {
                &[zero] => (i32::try_from(zero).ok()?, None),
                _ => return None,
            },
            Some(Err(_)) => return None,
            None => {
                let one = i.dims(zero)?.iter().all(|dim| *dim == Some(1));
                (0, one.then_some(zero).map(Some)?)
            }
        },
    };
    let mut sums = vec![0i32; columns];
    for row in weights.as_slice::<i8>().ok()?.chunks_exact(columns.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, &weight)| *sum += i32::from(weight));
    }
    let sums = Tensor::from_slice([columns], &sums).ok()?;
    let (weights, factors) = (i.b.constant(weights), Tensor::from_slice([1], &[1.0f32]).ok()?);
    let factors = i.b.constant(factors);
    let requantize = Requantize { x_zero: known, output: DType::I32, y_zero: 0, bounds: None };
    let y = i.b.push(QuantizedMatMul { bias: false, requantize }, &[a, weights, factors]);
    let Some(zero) = later else { return Some(y) };
    let (zero, sums) = (cast(i, zero, DType::I32), i.b.constant(sums));
    let zero = i.b.push(Binary(B::Mul), &[zero, sums]);
    Some(i.b.push(Binary(B::Sub), &[y, zero]))
}

/// Weights around 0; those around 128 are signed ones around 0.
fn signed_weights(weights: Tensor, zeros: &[i64]) -> Option<Tensor> {
    match weights.dtype() {
        DType::I8 if zeros.iter().all(|&zero| zero == 0) => Some(weights),
        DType::U8 if zeros.iter().all(|&zero| zero == 128) => {
            let signed = weights.as_slice::<u8>().ok()?.iter().map(|&w| (w ^ 0x80) as i8);
            Tensor::from_slice(weights.shape().clone(), &signed.collect::<Vec<_>>()).ok()
        }
        _ => None,
    }
}

pub(super) fn mat_mul_integer<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (a, b) = ((n.tensor(0)?, n.optional(2)?), (n.tensor(1)?, n.optional(3)?));
    one(integer_product(i, a, b))
}

pub(super) fn q_linear_mat_mul<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (a, a_scale, a_zero) = (n.tensor(0)?, n.tensor(1)?, n.tensor(2)?);
    let (b, b_scale, b_zero) = (n.tensor(3)?, n.tensor(4)?, n.tensor(5)?);
    let (scale, zero) = (n.tensor(6)?, n.tensor(7)?);
    let dtype = i.dtype(zero).ok_or("the type of the zero point cannot be told")?;
    let given = Quantised {
        x: a,
        x_scale: a_scale,
        x_zero: a_zero,
        w: b,
        w_scale: b_scale,
        w_zero: b_zero,
        scale,
        zero,
        bias: None,
    };
    if i.dims(b).is_some_and(|dims| dims.len() == 2)
        && let Some(parts) = given.parts(i)
    {
        let op = QuantizedMatMul { bias: false, requantize: parts.requantize };
        return one(i.b.push(op, &[a, parts.weights, parts.factors]));
    }
    let sum = integer_product(i, (a, Some(a_zero)), (b, Some(b_zero)));
    let sum = cast(i, sum, DType::F32);
    let (a_scale, b_scale, scale) = (as_float(i, a_scale), as_float(i, b_scale), as_float(i, scale));
    // Scales of rows stand in a column.
    let a_scale = match i.dims(a_scale).map(|dims| dims.len()) {
        Some(1) => {
            let column = i.b.push(ExpandDims { axes: vec![1] }, &[a_scale]);
            i.folded(column)
        }
        _ => a_scale,
    };
    let factor = i.b.push(Binary(B::Mul), &[a_scale, b_scale]);
    let factor = i.folded(factor);
    let y = i.b.push(Binary(B::Mul), &[sum, factor]);
    one(quantized(i, y, scale, Some(zero), dtype, -1))
}

/// Rows of weights, at most: their sums must fit into 32 bits.
const MAX_DEPTH: usize = 1 << 16;

/// The operands of a product of integers, as ONNX has them.
struct Quantised {
    x: ValueId,
    x_scale: ValueId,
    x_zero: ValueId,
    w: ValueId,
    w_scale: ValueId,
    w_zero: ValueId,
    scale: ValueId,
    zero: ValueId,
    bias: Option<ValueId>,
}

/// The same for the kernels that stay in integers.
struct Parts {
    weights: ValueId,
    factors: ValueId,
    bias: Option<ValueId>,
    requantize: Requantize,
}

impl Quantised {
    /// `None` where something is not known while loading, or has no kernel.
    fn parts(&self, i: &mut Import<'_>) -> Option<Parts> {
        let byte = |dtype: Option<DType>| matches!(dtype, Some(DType::U8 | DType::I8));
        let (zero, x_zero) = (constant(i, self.zero)?, constant(i, self.x_zero)?);
        let fits =
            byte(i.dtype(self.x)) && byte(Some(zero.dtype())) && i.dtype(self.x) == Some(x_zero.dtype());
        let one = |tensor: &Tensor| match tensor.to_i64_vec().ok()?.as_slice() {
            &[value] => i32::try_from(value).ok(),
            _ => None,
        };
        let (x_scale, w_scale) = (constant(i, self.x_scale)?, constant(i, self.w_scale)?);
        let scale = constant(i, self.scale)?;
        let (&[x_scale], &[scale]) = (x_scale.as_slice::<f32>().ok()?, scale.as_slice::<f32>().ok()?) else {
            return None;
        };
        let factors: Vec<f32> = w_scale.as_slice::<f32>().ok()?.iter().map(|w| x_scale * w / scale).collect();
        let (weights, w_zero) = (constant(i, self.w)?, constant(i, self.w_zero)?.to_i64_vec().ok()?);
        let weights = signed_weights(weights, &w_zero)?;
        let bias = match self.bias {
            Some(bias) => Some(constant(i, bias).filter(|bias| bias.dtype() == DType::I32)?),
            None => None,
        };
        let (x_zero, y_zero, output) = (one(&x_zero)?, one(&zero)?, zero.dtype());
        let factors = Tensor::from_slice([factors.len()], &factors).ok()?;
        fits.then(|| Parts {
            weights: i.b.constant(weights),
            factors: i.b.constant(factors),
            bias: bias.map(|bias| i.b.constant(bias)),
            requantize: Requantize { x_zero, output, y_zero, bounds: None },
        })
    }
}

/// The convolution of integers as floats: `x - zero` and `w - zero` without their scales.
fn integer_conv<'a>(
    i: &mut Import<'a>,
    n: &Node<'a>,
    (x, x_zero): (ValueId, Option<ValueId>),
    (w, w_zero): (ValueId, Option<ValueId>),
    finish: impl FnOnce(&mut Import<'a>, ValueId) -> ValueId,
) -> Result<ValueId, Stop> {
    let rank = convolution::image_rank(i, n, Some(w))?;
    if rank < 3 {
        return Err(format!("a convolution of rank {rank}").into());
    }
    let groups = usize::try_from(n.attributes.int("group", 1)).ok().filter(|&groups| groups > 0);
    let op = Conv {
        strides: convolution::steps(n, "strides")?,
        dilations: convolution::steps(n, "dilations")?,
        padding: convolution::padding(n, rank - 2)?,
        groups: groups.ok_or("group is not positive")?,
        fused: Fused::default(),
    };
    let w = centred(i, w, w_zero, DType::F32, Some(&[vec![-1], vec![1; rank - 1]].concat()));
    let w = convolution::transposed(i, w, (2..rank).chain([1, 0]).collect());
    // A scalar zero point of x may be a vector of one element.
    let x = centred(i, x, x_zero, DType::F32, Some(&[]));
    convolution::channels_last(i, x, rank, |i, x| {
        let y = i.b.push(op, &[x, w]);
        Ok(finish(i, y))
    })
}

pub(super) fn conv_integer<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, w) = ((n.tensor(0)?, n.optional(2)?), (n.tensor(1)?, n.optional(3)?));
    one(integer_conv(i, n, x, w, |i, y| {
        let y = i.b.push(Unary(U::Round), &[y]);
        i.b.push(Cast { to: DType::I32 }, &[y])
    })?)
}

pub(super) fn q_linear_conv<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, x_scale, x_zero) = (n.tensor(0)?, n.tensor(1)?, n.tensor(2)?);
    let (w, w_scale, w_zero) = (n.tensor(3)?, n.tensor(4)?, n.tensor(5)?);
    let (scale, zero, bias) = (n.tensor(6)?, n.tensor(7)?, n.optional(8)?);
    let dtype = i.dtype(zero).ok_or("the type of the zero point cannot be told")?;
    let rank = convolution::image_rank(i, n, Some(w))?;
    let given = Quantised { x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, bias };
    if let 3 | 4 = rank
        && let Some(parts) = given.parts(i)
    {
        let groups = usize::try_from(n.attributes.int("group", 1)).ok().filter(|&groups| groups > 0);
        let op = QuantizedConv {
            strides: convolution::steps(n, "strides")?,
            dilations: convolution::steps(n, "dilations")?,
            padding: convolution::padding(n, rank - 2)?,
            groups: groups.ok_or("group is not positive")?,
            bias: parts.bias.is_some(),
            requantize: parts.requantize,
        };
        let w = convolution::transposed(i, parts.weights, (2..rank).chain([1, 0]).collect());
        return one(convolution::channels_last(i, x, rank, |i, x| {
            let inputs: Vec<ValueId> = [x, w, parts.factors].into_iter().chain(parts.bias).collect();
            Ok(i.b.push(op, &inputs))
        })?);
    }
    one(integer_conv(i, n, (x, Some(x_zero)), (w, Some(w_zero)), |i, mut y| {
        if let Some(bias) = bias {
            let bias = cast(i, bias, DType::F32);
            y = i.b.push(Binary(B::Add), &[y, bias]);
        }
        let factor = i.b.push(Binary(B::Mul), &[x_scale, w_scale]);
        let factor = i.folded(factor);
        let y = i.b.push(Binary(B::Mul), &[y, factor]);
        quantized(i, y, scale, Some(zero), dtype, -1)
    })?)
}

/// Scale and zero point from the range of the input, 0 included.
pub(super) fn dynamic_quantize<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let [none, steps] = [0.0, 255.0].map(|value| i.b.scalar(value));
    let bound = |i: &mut Import<'a>, kind: R, function: B| {
        let bound = i.b.push(Reduce { kind, axes: None, keep_dims: false }, &[x]);
        i.b.push(Binary(function), &[bound, none])
    };
    let (max, min) = (bound(i, R::Max, B::Max), bound(i, R::Min, B::Min));
    let range = i.b.push(Binary(B::Sub), &[max, min]);
    let scale = i.b.push(Binary(B::Div), &[range, steps]);
    // Of zeros only: any scale will do, but 0.
    let one_value = i.b.scalar(1.0);
    let flat = i.b.push(crate::ops::binary::Compare(crate::kernels::Compare::Equal), &[scale, none]);
    let safe = i.b.push(crate::ops::binary::Select, &[flat, one_value, scale]);
    let negated = i.b.push(Unary(U::Neg), &[min]);
    let zero = i.b.push(Binary(B::Div), &[negated, safe]);
    let zero = i.b.push(Unary(U::Round), &[zero]);
    let zero = i.b.push(Unary(U::Clip { min: 0.0, max: 255.0 }), &[zero]);
    let zero = i.b.push(Cast { to: DType::U8 }, &[zero]);
    let y = quantized(i, x, safe, Some(zero), DType::U8, 0);
    many([y, scale, zero])
}

/// `com.microsoft`: a float function of dequantised inputs, `x, scale, zero` each, quantised again.
pub(super) fn q_linear<'a>(
    i: &mut Import<'a>,
    n: &Node<'a>,
    inputs: usize,
    function: impl FnOnce(&mut Import<'a>, &[ValueId]) -> Result<ValueId, Stop>,
) -> Outputs {
    let mut wide = Vec::with_capacity(inputs);
    for input in 0..inputs {
        let (x, scale, zero) = (n.tensor(3 * input)?, n.tensor(3 * input + 1)?, n.optional(3 * input + 2)?);
        wide.push(dequantized(i, x, scale, zero, 0));
    }
    let (scale, zero) = (n.tensor(3 * inputs)?, n.optional(3 * inputs + 1)?);
    let dtype = match zero {
        Some(zero) => i.dtype(zero),
        None => i.dtype(n.tensor(0)?),
    };
    let y = function(i, &wide)?;
    let dtype = dtype.ok_or("the type of the result cannot be told")?;
    one(quantized(i, y, scale, zero, dtype, 0))
}

/// `com.microsoft`: a product of dequantised matrices plus a bias of the products' scale, quantised where an output scale
/// is given.
pub(super) fn q_gemm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    if n.attributes.float("alpha", 1.0) != 1.0 {
        return Err("alpha other than 1 is not supported".into());
    }
    let (a_scale, b_scale) = (n.tensor(1)?, n.tensor(4)?);
    let (a, b, a_zero, b_zero) = (n.tensor(0)?, n.tensor(3)?, n.optional(2)?, n.optional(5)?);
    let transpose_b = n.attributes.flag("transB");
    let x = dequantized(i, a, a_scale, a_zero, 0);
    let w = dequantized(i, b, b_scale, b_zero, if transpose_b { 0 } else { 1 });
    let op = MatMul { transpose_a: n.attributes.flag("transA"), transpose_b, ..MatMul::default() };
    let mut y = i.b.push(op, &[x, w]);
    if let Some(bias) = n.optional(6)? {
        let factor = i.b.push(Binary(B::Mul), &[a_scale, b_scale]);
        let factor = i.folded(factor);
        let bias = dequantized(i, bias, factor, None, -1);
        y = i.b.push(Binary(B::Add), &[y, bias]);
    }
    let Some(scale) = n.optional(7)? else { return one(y) };
    let zero = n.optional(8)?;
    let dtype = zero.or(Some(a)).and_then(|zero| i.dtype(zero));
    let dtype = dtype.ok_or("the type of the result cannot be told")?;
    one(quantized(i, y, scale, zero, dtype, 0))
}

/// `com.microsoft`: parts with scale and zero point each; those of the result come first.
pub(super) fn q_concat<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (scale, zero) = (n.tensor(0)?, n.tensor(1)?);
    let dtype = i.dtype(zero).ok_or("the type of the zero point cannot be told")?;
    let mut parts = Vec::new();
    for part in (2..n.inputs.len()).step_by(3) {
        let (x, scale, zero) = (n.tensor(part)?, n.tensor(part + 1)?, n.optional(part + 2)?);
        parts.push(dequantized(i, x, scale, zero, 0));
    }
    let y = i.b.push(Concat { axis: n.attributes.int("axis", 0) }, &parts);
    one(quantized(i, y, scale, Some(zero), dtype, 0))
}

/// `com.microsoft`: the product of integers times the scales, plus a bias.
pub(super) fn mat_mul_integer_to_float<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (a, b) = ((n.tensor(0)?, n.optional(4)?), (n.tensor(1)?, n.optional(5)?));
    let (a_scale, b_scale) = (n.tensor(2)?, n.tensor(3)?);
    let sum = integer_product(i, a, b);
    one(scaled_sum(i, sum, a_scale, b_scale, n.optional(6)?))
}

fn scaled_sum(
    i: &mut Import<'_>,
    sum: ValueId,
    a_scale: ValueId,
    b_scale: ValueId,
    bias: Option<ValueId>,
) -> ValueId {
    let sum = cast(i, sum, DType::F32);
    let factor = i.b.push(Binary(B::Mul), &[a_scale, b_scale]);
    let factor = i.folded(factor);
    let y = i.b.push(Binary(B::Mul), &[sum, factor]);
    bias.map_or(y, |bias| i.b.push(Binary(B::Add), &[y, bias]))
}

/// `com.microsoft`: the input is quantised by its range first.
pub(super) fn dynamic_quantize_mat_mul<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    use crate::formats::onnx::node::Value;
    let Ok([Value::Tensor(a), Value::Tensor(a_scale), Value::Tensor(a_zero)]) =
        <[Value; 3]>::try_from(dynamic_quantize(i, n)?)
    else {
        return Err("no quantised input".into());
    };
    let (b, b_scale, b_zero, bias) = (n.tensor(1)?, n.tensor(2)?, n.optional(3)?, n.optional(4)?);
    let sum = integer_product(i, (a, Some(a_zero)), (b, b_zero));
    one(scaled_sum(i, sum, a_scale, b_scale, bias))
}

/// `com.microsoft`: `alpha a b` with either transposed.
pub(super) fn fused_mat_mul<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    if n.attributes.flag("transBatchA") || n.attributes.flag("transBatchB") {
        return Err("transposed batches are not supported".into());
    }
    let op = MatMul {
        transpose_a: n.attributes.flag("transA"),
        transpose_b: n.attributes.flag("transB"),
        ..MatMul::default()
    };
    let inputs = [n.tensor(0)?, n.tensor(1)?];
    let y = i.b.push(op, &inputs);
    one(math::scaled(i, y, n.attributes.float("alpha", 1.0)))
}
