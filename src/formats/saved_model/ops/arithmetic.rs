//! Functions that are made of a few others.

use super::{Outputs, one};
use crate::{
    formats::saved_model::import::{Import, Node},
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Reduce as R, Unary as U},
    ops::{
        binary::{Binary, Compare, Select},
        cast::Cast,
        generate::Range,
        reduce::Reduce,
        spectrum::{ComplexPart, FromComplex, ToComplex},
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

fn unary(i: &mut Import<'_, '_>, function: U, x: ValueId) -> ValueId {
    i.b.push(Unary(function), &[x])
}

fn binary(i: &mut Import<'_, '_>, function: B, x: ValueId, y: ValueId) -> ValueId {
    i.b.push(Binary(function), &[x, y])
}

fn compare(i: &mut Import<'_, '_>, function: C, x: ValueId, y: ValueId) -> ValueId {
    i.b.push(Compare(function), &[x, y])
}

/// A number of the node's type.
fn number(i: &mut Import<'_, '_>, n: &Node<'_>, value: f32) -> Result<ValueId, super::Stop> {
    let dtype = n.dtype("T")?;
    let value = i.b.scalar(value);
    Ok(if dtype == DType::F32 { value } else { i.b.push(Cast { to: dtype }, &[value]) })
}

/// Real and imaginary parts.
fn parts(i: &mut Import<'_, '_>, x: ValueId) -> [ValueId; 2] {
    [ComplexPart::Real, ComplexPart::Imaginary].map(|part| i.b.push(FromComplex { part }, &[x]))
}

fn is_complex(n: &Node<'_>) -> bool {
    n.attributes.dtype("T") == Some(DType::Complex64)
}

/// `(a + bi)(c + di) = ac - bd + (ad + bc) i` for complex numbers.
pub(super) fn multiply(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, y) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    if !is_complex(n) {
        return one(binary(i, B::Mul, x, y));
    }
    let ([a, b], [c, d]) = (parts(i, x), parts(i, y));
    let [ac, bd, ad, bc] = [(a, c), (b, d), (a, d), (b, c)].map(|(x, y)| binary(i, B::Mul, x, y));
    let (real, imaginary) = (binary(i, B::Sub, ac, bd), binary(i, B::Add, ad, bc));
    one(i.b.push(ToComplex, &[real, imaginary]))
}

/// `e^(a + bi) = e^a (cos b + i sin b)` for complex numbers.
pub(super) fn exponential(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = n.tensor(i, 0)?;
    if !is_complex(n) {
        return one(unary(i, U::Exp, x));
    }
    let [a, b] = parts(i, x);
    let (size, cosine, sine) = (unary(i, U::Exp, a), unary(i, U::Cos, b), unary(i, U::Sin, b));
    let (real, imaginary) = (binary(i, B::Mul, size, cosine), binary(i, B::Mul, size, sine));
    one(i.b.push(ToComplex, &[real, imaginary]))
}

/// 1 less the error function.
pub(super) fn erfc(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, one_) = (n.tensor(i, 0)?, number(i, n, 1.0)?);
    let erf = unary(i, U::Erf, x);
    one(binary(i, B::Sub, one_, erf))
}

/// NaN is what differs from itself.
pub(super) fn is_nan(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = n.tensor(i, 0)?;
    one(compare(i, C::NotEqual, x, x))
}

pub(super) fn is_inf(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, infinity) = (n.tensor(i, 0)?, number(i, n, f32::INFINITY)?);
    let size = unary(i, U::Abs, x);
    one(compare(i, C::Equal, size, infinity))
}

/// NaN is less than nothing.
pub(super) fn is_finite(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, infinity) = (n.tensor(i, 0)?, number(i, n, f32::INFINITY)?);
    let size = unary(i, U::Abs, x);
    one(compare(i, C::Less, size, infinity))
}

/// `x log y` or `x / y`, or with `swapped` `x y` where y decides: 0 where the deciding operand is 0,
/// whatever the other is.
pub(super) fn guarded(
    i: &mut Import<'_, '_>,
    n: &Node<'_>,
    inner: Option<U>,
    function: B,
    decides: usize,
) -> Outputs {
    let (x, y) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let zero = number(i, n, 0.0)?;
    let is_zero = compare(i, C::Equal, [x, y][decides], zero);
    let y = inner.map_or(y, |inner| unary(i, inner, y));
    let result = binary(i, function, x, y);
    one(i.b.push(Select, &[is_zero, zero, result]))
}

/// Half the sum of the squares.
pub(super) fn l2_loss(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, half) = (n.tensor(i, 0)?, number(i, n, 0.5)?);
    let sum = i.b.push(Reduce { kind: R::SumSquare, axes: None, keep_dims: false }, &[x]);
    one(binary(i, B::Mul, sum, half))
}

/// All bits turned: -1 less the number, for integers of either kind.
pub(super) fn invert(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let dtype = n.dtype("T")?;
    let x = n.tensor(i, 0)?;
    let ones = i.b.constant(Tensor::scalar(-1i64));
    let ones = i.b.push(Cast { to: dtype }, &[ones]);
    one(binary(i, B::BitwiseXor, x, ones))
}

/// `|x - y| < tolerance`
pub(super) fn approximately(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, y) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let tolerance = number(i, n, n.attributes.float("tolerance"))?;
    let difference = binary(i, B::Sub, x, y);
    let difference = unary(i, U::Abs, difference);
    one(compare(i, C::Less, difference, tolerance))
}

/// `start + (stop - start) / (num - 1) * [0, 1, .., num - 1]`
pub(super) fn line(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (start, stop) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let count = n.integer(i, 2)?;
    if count == 1 {
        let shape = i.b.integers(&[1]);
        return one(i.b.push(crate::ops::shape::Reshape { zero_copies: false }, &[start, shape]));
    }
    let dtype = n.dtype("T")?;
    let [first, limit, step] = [0, count, 1].map(|value| i.b.constant(Tensor::scalar(value)));
    let steps = i.b.push(Range, &[first, limit, step]);
    let steps = i.b.push(Cast { to: dtype }, &[steps]);
    let parts = number(i, n, (count - 1) as f32)?;
    let width = binary(i, B::Sub, stop, start);
    let width = binary(i, B::Div, width, parts);
    let offsets = binary(i, B::Mul, steps, width);
    one(binary(i, B::Add, start, offsets))
}

/// The square root of the sum of the squares.
pub(super) fn euclidean(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    super::arrays::reduce(i, n, R::L2)
}

/// Each channel's distance from its mean over the image, scaled.
pub(super) fn contrast(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, factor) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let mean = i.b.push(Reduce { kind: R::Mean, axes: Some(vec![-3, -2]), keep_dims: true }, &[x]);
    let distance = binary(i, B::Sub, x, mean);
    let distance = binary(i, B::Mul, distance, factor);
    one(binary(i, B::Add, distance, mean))
}

/// What quantisation-aware training leaves: values rounded to the steps between a lower and an upper
/// end that are moved so that 0 is a step (fake_quant_ops_functor.h).
pub(super) fn fake_quantise(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = n.tensor(i, 0)?;
    let (low, high): (Vec<f32>, Vec<f32>) = match n.inputs.len() {
        1 => (vec![n.attributes.float("min")], vec![n.attributes.float("max")]),
        _ => {
            let ends =
                |tensor: Tensor| tensor.as_slice::<f32>().map(<[f32]>::to_vec).map_err(|e| e.to_string());
            (ends(n.constant(i, 1)?)?, ends(n.constant(i, 2)?)?)
        }
    };
    let bits = u32::try_from(n.attributes.int("num_bits")).ok().filter(|bits| (2..=16).contains(bits));
    let bits = bits.ok_or("num_bits is not in 2 to 16")?;
    let least = if n.attributes.flag("narrow_range") { 1.0 } else { 0.0 };
    let most = ((1u32 << bits) - 1) as f32;
    let nudged = |(&low, &high): (&f32, &f32)| {
        let scale = (high - low) / (most - least);
        let zero = (least - low / scale).clamp(least, most).round();
        [(least - zero) * scale, (most - zero) * scale, scale]
    };
    let nudged: Vec<[f32; 3]> = low.iter().zip(&high).map(nudged).collect();
    let part = |i: &mut Import<'_, '_>, part: usize| -> Result<ValueId, super::Stop> {
        let values: Vec<f32> = nudged.iter().map(|nudged| nudged[part]).collect();
        let tensor = match n.inputs.first() {
            Some(_) if values.len() == 1 => Tensor::scalar(values[0]),
            _ => Tensor::from_slice([values.len()], &values).map_err(|error| error.to_string())?,
        };
        Ok(i.b.constant(tensor))
    };
    let (low, high, scale) = (part(i, 0)?, part(i, 1)?, part(i, 2)?);
    let half = i.b.scalar(0.5);
    let y = binary(i, B::Min, x, high);
    let y = binary(i, B::Max, y, low);
    let y = binary(i, B::Sub, y, low);
    let y = binary(i, B::Div, y, scale);
    let y = binary(i, B::Add, y, half);
    let y = unary(i, U::Floor, y);
    let y = binary(i, B::Mul, y, scale);
    one(binary(i, B::Add, y, low))
}
