//! Functions element by element. Integers beyond candle's arithmetic go through `f64`, which is exact to 2^53.

use super::step::{Known, Step, lacking, one};
use crate::{
    kernels::{Binary as B, Compare, Logical, Unary as U},
    ops::OpError,
    tensor::DType,
};
use candle_core::{self as candle, DType as There, Tensor};

/// Constants of Selu (Klambauer et al., 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_GAMMA: f64 = 1.050_700_987_355_480_5;

pub(super) fn unary(function: U, known: &Known<'_>) -> Result<Step, OpError> {
    let integer = known.inputs.first().is_some_and(|fact| fact.dtype.is_integer());
    one(move |x| {
        let x = x.at(0)?;
        match integer {
            true => apply(function, &x.to_dtype(There::F64)?)?.to_dtype(x.dtype()),
            false => apply(function, &x),
        }
    })
}

/// The function of floats.
pub(super) fn apply(function: U, x: &Tensor) -> candle::Result<Tensor> {
    let softplus = |x: &Tensor| x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    match function {
        U::Identity => Ok(x.clone()),
        U::Abs => x.abs(),
        U::Neg => x.neg(),
        U::Exp => x.exp(),
        U::Log => x.log(),
        U::Log1p => (x + 1.0)?.log(),
        U::Expm1 => x.exp()? - 1.0,
        U::Sqrt => x.sqrt(),
        U::Rsqrt => x.sqrt()?.recip(),
        U::Reciprocal => x.recip(),
        U::Square => x.sqr(),
        U::Sigmoid => candle_nn::ops::sigmoid(x),
        U::Tanh => x.tanh(),
        U::Erf => x.erf(),
        U::Gelu => x.gelu_erf(),
        U::GeluTanh => x.gelu(),
        U::Silu => x.silu(),
        U::Relu => x.relu(),
        U::Relu6 => x.clamp(0.0, 6.0),
        U::LeakyRelu(slope) => x.relu()? - (x.neg()?.relu()? * f64::from(slope))?,
        U::Elu(alpha) => x.elu(f64::from(alpha)),
        U::Selu => x.elu(SELU_ALPHA)? * SELU_GAMMA,
        U::Celu(alpha) => {
            let alpha = f64::from(alpha);
            x.relu()? + (((x.minimum(0.0)? / alpha)?.exp()? - 1.0)? * alpha)?
        }
        U::Softplus => softplus(x),
        U::Softsign => x / (x.abs()? + 1.0)?,
        U::Affine { scale, shift } => x.affine(f64::from(scale), f64::from(shift)),
        U::HardSigmoid { alpha, beta } => x.affine(f64::from(alpha), f64::from(beta))?.clamp(0.0, 1.0),
        U::HardSwish => x * x.affine(1.0 / 6.0, 0.5)?.clamp(0.0, 1.0)?,
        U::Mish => x * softplus(x)?.tanh()?,
        U::Floor => x.floor(),
        U::Ceil => x.ceil(),
        U::Round => {
            // candle rounds halves away from zero; of halves the even neighbour is twice a rounded half.
            let half = (x - truncated(x)?)?.abs()?.eq(0.5)?;
            half.where_cond(&((x * 0.5)?.round()? * 2.0)?, &x.round()?)
        }
        U::Trunc => truncated(x),
        U::Sign => x.sign(),
        U::Clip { min, max } => x.clamp(f64::from(min), f64::from(max)),
        U::ThresholdedRelu(threshold) => x * x.gt(f64::from(threshold))?.to_dtype(x.dtype())?,
        U::Sin => x.sin(),
        U::Cos => x.cos(),
        U::Tan => x.sin()? / x.cos()?,
        U::Sinh => (x.exp()? - x.neg()?.exp()?)? * 0.5,
        U::Cosh => (x.exp()? + x.neg()?.exp()?)? * 0.5,
        U::Asinh => x.sign()? * (x.abs()? + (x.sqr()? + 1.0)?.sqrt()?)?.log()?,
        U::Acosh => (x + (x.sqr()? - 1.0)?.sqrt()?)?.log(),
        U::Atanh => ((x + 1.0)? / x.affine(-1.0, 1.0)?)?.log()? * 0.5,
        U::Asin | U::Acos | U::Atan => Err(candle::Error::Msg(format!("candle has no {function:?}"))),
    }
}

fn truncated(x: &Tensor) -> candle::Result<Tensor> {
    x.sign()? * x.abs()?.floor()?
}

pub(super) fn binary(function: B, known: &Known<'_>) -> Result<Step, OpError> {
    let integer = known.inputs.first().is_some_and(|fact| fact.dtype.is_integer());
    let direct = matches!(function, B::Add | B::Sub | B::Mul | B::Max | B::Min);
    one(move |x| {
        let (a, b) = (x.at(0)?, x.at(1)?);
        match integer && !direct {
            true => {
                let wide = [&a, &b].map(|x| x.to_dtype(There::F64));
                let [wide_a, wide_b] = wide;
                let y = pair(function, &wide_a?, &wide_b?)?;
                // Quotients and powers of integers are truncated; a power made of logarithms may be a little short.
                let y = if function == B::Pow { (y * (1.0 + 1e-12))? } else { y };
                truncated(&y)?.to_dtype(a.dtype())
            }
            false => pair(function, &a, &b),
        }
    })
}

fn pair(function: B, a: &Tensor, b: &Tensor) -> candle::Result<Tensor> {
    match function {
        B::Add => a.broadcast_add(b),
        B::Sub => a.broadcast_sub(b),
        B::Mul => a.broadcast_mul(b),
        B::Div => a.broadcast_div(b),
        B::DivNoNan => {
            let quotient = a.broadcast_div(b)?;
            let zero = b.eq(0.0)?.broadcast_as(quotient.shape())?;
            zero.where_cond(&quotient.zeros_like()?, &quotient)
        }
        B::Max => a.broadcast_maximum(b),
        B::Min => a.broadcast_minimum(b),
        B::Pow => power(a, b),
        B::SquaredDifference => a.broadcast_sub(b)?.sqr(),
        B::FloorDiv => a.broadcast_div(b)?.floor(),
        B::FloorMod => a.broadcast_sub(&b.broadcast_mul(&a.broadcast_div(b)?.floor()?)?),
        B::TruncMod => a.broadcast_sub(&b.broadcast_mul(&truncated(&a.broadcast_div(b)?)?)?),
        B::Prelu => a.relu()?.broadcast_sub(&a.neg()?.relu()?.broadcast_mul(b)?),
        other => Err(candle::Error::Msg(format!("candle has no {other:?}"))),
    }
}

/// `a ^ b`. candle's own takes the logarithm of `a`, which negative numbers have not.
fn power(a: &Tensor, b: &Tensor) -> candle::Result<Tensor> {
    let magnitude = a.abs()?.broadcast_pow(b)?;
    let odd = (b - ((b * 0.5)?.floor()? * 2.0)?)?.eq(1.0)?.to_dtype(a.dtype())?;
    let negative = a.lt(0.0)?.to_dtype(a.dtype())?;
    // 1, and -1 where a negative number has an odd power.
    let sign = negative.broadcast_mul(&odd)?.affine(-2.0, 1.0)?;
    let sign = sign.broadcast_as(magnitude.shape())?;
    magnitude * sign
}

pub(super) fn compare(function: Compare) -> Result<Step, OpError> {
    one(move |x| {
        let (a, b) = (x.at(0)?, x.at(1)?);
        match function {
            Compare::Equal => a.broadcast_eq(&b),
            Compare::NotEqual => a.broadcast_ne(&b),
            Compare::Less => a.broadcast_lt(&b),
            Compare::LessEqual => a.broadcast_le(&b),
            Compare::Greater => a.broadcast_gt(&b),
            Compare::GreaterEqual => a.broadcast_ge(&b),
        }
    })
}

pub(super) fn logical(function: Logical) -> Result<Step, OpError> {
    one(move |x| {
        let (a, b) = (x.at(0)?, x.at(1)?);
        match function {
            Logical::And => a.broadcast_mul(&b),
            Logical::Or => a.broadcast_maximum(&b),
            Logical::Xor => a.broadcast_ne(&b),
        }
    })
}

pub(super) fn select(known: &Known<'_>) -> Result<Step, OpError> {
    let dims = known.dims();
    one(move |x| {
        let dims = dims.as_slice();
        let condition = x.at(0)?.broadcast_as(dims)?;
        condition.where_cond(&x.at(1)?.broadcast_as(dims)?, &x.at(2)?.broadcast_as(dims)?)
    })
}

pub(super) fn cast(to: DType, known: &Known<'_>) -> Result<Step, OpError> {
    let from = known.inputs.first().map(|fact| fact.dtype);
    let there = super::convert::type_of(to)?;
    let narrow = to.is_integer() && !matches!(to, DType::I32 | DType::I64);
    if narrow && from != Some(DType::Bool) && from != Some(to) {
        return Err(lacking(&format!("conversion to {to}")));
    }
    one(move |x| match to {
        DType::Bool => x.at(0)?.ne(0.0),
        _ => x.at(0)?.to_dtype(there),
    })
}
