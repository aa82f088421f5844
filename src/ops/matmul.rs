//! The matrix product over the last two dimensions.

use super::{
    Fact, Fused, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs, weights::packed_matrix,
};
use crate::{
    kernels::{BLayout, PackedBf16, PackedView, Products, pack_into, packed_len},
    tensor::{DType, Shape, buffer::Plain},
};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// `a [.., m, k] * b [.., k, n] (+ bias [n]) (+ residual)`, the dimensions before the last two
/// broadcast. Every numeric dtype; bias, residual and activation only for `F32`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MatMul {
    /// `a` is `[.., k, m]`.
    pub transpose_a: bool,
    /// `b` is `[.., n, k]`.
    pub transpose_b: bool,
    /// What follows the product.
    #[serde(flatten)]
    pub fused: Fused,
}

/// Sizes of one planned product.
#[derive(Clone)]
struct Sizes {
    m: usize,
    k: usize,
    n: usize,
    /// For each matrix of the output: the matrices of `a` and `b` that make it.
    batches: Vec<(usize, usize)>,
}

impl MatMul {
    fn sizes(&self, inputs: &[Fact]) -> Result<(Sizes, Shape), OpError> {
        let [a, b] = [&inputs[0], &inputs[1]];
        for (position, fact) in [a, b].into_iter().enumerate() {
            if fact.rank() < 2 {
                return Err(OpError::invalid(format!(
                    "In[{position}] is not a matrix. Instead it has shape {}",
                    fact.shape
                )));
            }
        }
        let last_two = |fact: &Fact, transposed: bool| {
            let [.., rows, columns] = *fact.dims() else { return (1, 1) };
            if transposed { (columns, rows) } else { (rows, columns) }
        };
        let (m, k) = last_two(a, self.transpose_a);
        let (b_rows, n) = last_two(b, self.transpose_b);
        if k != b_rows {
            return Err(OpError::invalid(format!(
                "Matrix size-incompatible: In[0]: {}, In[1]: {}",
                a.shape, b.shape
            )));
        }
        let outer = |fact: &Fact| Shape::from(&fact.dims()[..fact.rank() - 2]);
        let (mut shape, batches) = pair_batches(&outer(a), &outer(b)).ok_or_else(|| {
            OpError::invalid(format!(
                "In[0] and In[1] must have compatible batch dimensions: {} vs. {}",
                a.shape, b.shape
            ))
        })?;
        shape.push(m);
        shape.push(n);
        // One matrix for the whole batch of rows: a single product.
        let one_b = outer(b).elements() == 1 && !self.transpose_a && outer(a).elements() > 1;
        let sizes = match one_b {
            true => Sizes { m: m * outer(a).elements(), k, n, batches: vec![(0, 0)] },
            false => Sizes { m, k, n, batches },
        };
        Ok((sizes, shape))
    }

    fn lower_f32(&self, cx: &Lower<'_>, sizes: Sizes) -> Result<Step, OpError> {
        let Self { transpose_a, transpose_b, fused } = *self;
        let Sizes { m, k, n, batches } = sizes;
        let layout = if transpose_b { BLayout::RowMajorNxK } else { BLayout::RowMajorKxN };
        if !transpose_a
            && batches.len() == 1
            && let Some(step) = in_brain_floats(cx, fused, [m, k, n], layout)?
        {
            return Ok(step);
        }
        let a_scratch = if transpose_a { (m * k).next_multiple_of(16) } else { 0 };
        let matrices = batches.len();
        let weights = match (cx.value(1), matrices) {
            (Some(b), 1) => {
                let bias = fused.bias_input().map(|index| cx.value(index));
                if bias == Some(None) {
                    None
                } else {
                    let from: Vec<usize> = [1].into_iter().chain(fused.bias_input()).collect();
                    let kind = if transpose_b { "matmul b, transposed" } else { "matmul b" };
                    Some(cx.packed(kind, &from, || {
                        let bias = bias.flatten().map(|bias| bias.as_slice::<f32>()).transpose()?;
                        packed_matrix(cx, [k, n], b, layout, bias)
                    })?)
                }
            }
            _ => None,
        };
        let b_scratch = if weights.is_some() { 0 } else { packed_len(cx.kernels, k, n)? };
        let run = move |io: &mut Io<'_>| {
            let context = io.context();
            let (a, out) = (io.input::<f32>(0)?, io.next_output::<f32>()?);
            let residual = fused.residual_input().map(|index| io.input::<f32>(index)).transpose()?;
            let (a_space, b_space) = match a_scratch + b_scratch {
                0 => (&mut [][..], &mut [][..]),
                _ => io.scratch::<f32>()?.split_at_mut(a_scratch),
            };
            let mut packed_from = usize::MAX;
            for (index, &(from_a, from_b)) in batches.iter().enumerate() {
                let mut rows = part(a, from_a, m * k)?;
                if transpose_a {
                    transpose(rows, k, m, a_space);
                    rows = &a_space[..m * k];
                }
                let out = part_mut(out, index, m * n)?;
                let mut epilogue = fused.epilogue();
                epilogue.residual = residual.map(|all| part(all, index, m * n)).transpose()?;
                if let Some(weights) = &weights {
                    context.kernels.gemm(rows, k, m, weights, out, n, &epilogue, context.threads)?;
                    continue;
                }
                if packed_from != from_b {
                    let b = part(io.input::<f32>(1)?, from_b, k * n)?;
                    pack_into(context.kernels, k, n, b, layout, b_space)?;
                    packed_from = from_b;
                }
                let packed = PackedView::new(context.kernels, k, n, b_space)?;
                match fused.bias_input() {
                    None => {
                        context.kernels.gemm_view(rows, k, m, packed, out, n, &epilogue, context.threads)?
                    }
                    Some(bias) => {
                        let bias = io.input::<f32>(bias)?;
                        let threads = context.threads;
                        let plain = crate::kernels::Epilogue::default();
                        context.kernels.gemm_view(rows, k, m, packed, out, n, &plain, threads)?;
                        add_bias(out, bias, epilogue.residual);
                        fused.finish(out, context);
                    }
                }
            }
            Ok(())
        };
        Ok(Step::arena(run).with_scratch((a_scratch + b_scratch) * size_of::<f32>()))
    }
}

/// The product of input 0 and the known weights of input 1, both rounded to brain floats, where that was asked for.
pub(super) fn in_brain_floats(
    cx: &Lower<'_>,
    fused: Fused,
    [m, k, n]: [usize; 3],
    layout: BLayout,
) -> Result<Option<Step>, OpError> {
    let bias = fused.bias_input().map(|index| cx.value(index));
    let (Products::Bf16, Some(b), false) = (cx.kernels.products, cx.value(1), bias == Some(None)) else {
        return Ok(None);
    };
    let from: Vec<usize> = [1].into_iter().chain(fused.bias_input()).collect();
    let turned = layout == BLayout::RowMajorNxK;
    let weights = cx.packed(if turned { "bf16, transposed" } else { "bf16" }, &from, || {
        let bias = bias.flatten().map(|bias| bias.as_slice::<f32>()).transpose()?;
        Ok(PackedBf16::pack(k, n, b.as_slice()?, layout, bias)?)
    })?;
    let scratch = weights.scratch(m).and_then(|pairs| pairs.checked_mul(size_of::<u32>()));
    let scratch = scratch.ok_or_else(|| OpError::invalid("the product is larger than memory"))?;
    let run = move |io: &mut Io<'_>| {
        let (a, out) = (io.input::<f32>(0)?, io.next_output::<f32>()?);
        let mut epilogue = fused.epilogue();
        epilogue.residual = fused.residual_input().map(|index| io.input::<f32>(index)).transpose()?;
        let (space, context) = (io.scratch::<u32>()?, io.context());
        Ok(context.kernels.gemm_bf16(a, m, &weights, out, &epilogue, space, context.threads)?)
    };
    Ok(Some(Step::arena(run).with_scratch(scratch)))
}

impl Operator for MatMul {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, self.fused.inputs()..=self.fused.inputs())?;
        let [a, b] = [&inputs[0], &inputs[1]];
        if a.dtype != b.dtype {
            return Err(OpError::invalid(format!(
                "a matrix of {} cannot be multiplied by one of {}",
                a.dtype, b.dtype
            )));
        }
        if !(a.dtype.is_float() || a.dtype.is_integer())
            || (self.fused != Fused::default() && a.dtype != DType::F32)
        {
            return Err(OpError::unsupported(format!("MatMul of {} is not supported", a.dtype)));
        }
        let (_, shape) = self.sizes(inputs)?;
        let output = Fact::new(a.dtype, shape);
        self.fused.check(inputs, &output)?;
        Ok(Inferred::Facts(vec![output]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (sizes, _) = self.sizes(cx.inputs)?;
        let transposed = [self.transpose_a, self.transpose_b];
        macro_rules! scalar {
            ($t:ty, $zero:expr, $mul_add:expr, $store:expr) => {
                Step::arena(move |io| {
                    scalar_product::<$t, _>(io, &sizes, transposed, $zero, $mul_add, $store)
                })
            };
        }
        Ok(match cx.inputs[0].dtype {
            DType::F32 => return self.lower_f32(cx, sizes),
            DType::F64 => scalar!(f64, 0.0, |sum, a, b| sum + a * b, |sum| sum),
            DType::F16 => scalar!(f16, 0.0f32, |sum, a, b| sum + a.to_f32() * b.to_f32(), f16::from_f32),
            DType::BF16 => scalar!(bf16, 0.0f32, |sum, a, b| sum + a.to_f32() * b.to_f32(), bf16::from_f32),
            DType::U8 => scalar!(u8, 0u8, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::I8 => scalar!(i8, 0i8, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::U16 => scalar!(u16, 0u16, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::I16 => scalar!(i16, 0i16, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::U32 => scalar!(u32, 0u32, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::I32 => scalar!(i32, 0i32, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::U64 => scalar!(u64, 0u64, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            DType::I64 => scalar!(i64, 0i64, |sum, a, b| sum.wrapping_add(a.wrapping_mul(b)), |sum| sum),
            other => return Err(OpError::unsupported(format!("MatMul of {other} is not supported"))),
        })
    }
}

fn scalar_product<T: Plain + 'static, Sum: Copy>(
    io: &mut Io<'_>,
    sizes: &Sizes,
    [transpose_a, transpose_b]: [bool; 2],
    zero: Sum,
    mul_add: impl Fn(Sum, T, T) -> Sum,
    store: impl Fn(Sum) -> T,
) -> Result<(), OpError> {
    let &Sizes { m, k, n, .. } = sizes;
    let (a, b, out) = (io.input::<T>(0)?, io.input::<T>(1)?, io.next_output::<T>()?);
    for (index, &(from_a, from_b)) in sizes.batches.iter().enumerate() {
        let (a, b) = (part(a, from_a, m * k)?, part(b, from_b, k * n)?);
        let out = part_mut(out, index, m * n)?;
        for row in 0..m {
            for column in 0..n {
                let sum = (0..k).fold(zero, |sum, depth| {
                    let a = a[if transpose_a { depth * m + row } else { row * k + depth }];
                    let b = b[if transpose_b { column * k + depth } else { depth * n + column }];
                    mul_add(sum, a, b)
                });
                out[row * n + column] = store(sum);
            }
        }
    }
    Ok(())
}

/// The broadcast shape of two batch shapes, and for each matrix of it those of both operands.
fn pair_batches(a: &Shape, b: &Shape) -> Option<(Shape, Vec<(usize, usize)>)> {
    let rank = a.len().max(b.len());
    let dim = |shape: &Shape, axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |position| shape[position])
    };
    let mut shape = Shape::scalar();
    for axis in 0..rank {
        match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y || y == 1 => shape.push(x),
            (1, y) => shape.push(y),
            _ => return None,
        }
    }
    let mut pairs = vec![(0, 0)];
    for (axis, &size) in shape.iter().enumerate() {
        let (in_a, in_b) = (dim(a, axis), dim(b, axis));
        let next = pairs.iter().flat_map(|&(x, y)| {
            (0..size).map(move |index| {
                let at = |base: usize, dim: usize| base * dim + if dim == 1 { 0 } else { index };
                (at(x, in_a), at(y, in_b))
            })
        });
        pairs = next.collect();
    }
    Some((shape, pairs))
}

fn part<T>(all: &[T], index: usize, len: usize) -> Result<&[T], OpError> {
    all.get(index * len..(index + 1) * len).ok_or(OpError::Memory("a matrix"))
}

fn part_mut<T>(all: &mut [T], index: usize, len: usize) -> Result<&mut [T], OpError> {
    all.get_mut(index * len..(index + 1) * len).ok_or(OpError::Memory("a matrix"))
}

/// `from [rows, columns]` into `to [columns, rows]`.
fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    for row in 0..rows {
        for column in 0..columns {
            to[column * rows + row] = from[row * columns + column];
        }
    }
}

fn add_bias(out: &mut [f32], bias: &[f32], residual: Option<&[f32]>) {
    for row in out.chunks_exact_mut(bias.len().max(1)) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
    for (value, residual) in out.iter_mut().zip(residual.unwrap_or_default()) {
        *value += residual;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, kernels, tensor::Tensor};

    fn ramp(shape: &[usize], from: f32) -> Tensor {
        let values: Vec<f32> =
            (0..shape.iter().product::<usize>()).map(|i| from + (i % 7) as f32 * 0.5).collect();
        Tensor::from_slice(shape, &values).unwrap()
    }

    #[test]
    fn two_by_two() {
        let a = Tensor::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let b = Tensor::from_slice([2, 2], &[5.0f32, 6.0, 7.0, 8.0]).unwrap();
        let run = |transpose_a, transpose_b| {
            let op = MatMul { transpose_a, transpose_b, ..MatMul::default() };
            run_op(op, &[a.clone(), b.clone()]).unwrap()[0].as_slice::<f32>().unwrap().to_vec()
        };
        assert_eq!(run(false, false), [19.0, 22.0, 43.0, 50.0]);
        assert_eq!(run(true, false), [26.0, 30.0, 38.0, 44.0]);
        assert_eq!(run(false, true), [17.0, 23.0, 39.0, 53.0]);
        assert_eq!(run(true, true), [23.0, 31.0, 34.0, 46.0]);
    }

    #[test]
    fn batches_broadcast_in_every_dtype() {
        let (a, b) = (ramp(&[2, 1, 3, 4], -1.0), ramp(&[5, 4, 2], 0.5));
        let wide = |t: &Tensor| {
            let values: Vec<f64> = t.as_slice::<f32>().unwrap().iter().map(|&v| f64::from(v)).collect();
            Tensor::from_slice(t.shape().clone(), &values).unwrap()
        };
        let fast = run_op(MatMul::default(), &[a.clone(), b.clone()]).unwrap();
        let naive = run_op(MatMul::default(), &[wide(&a), wide(&b)]).unwrap();
        assert_eq!(fast[0].shape().to_vec(), [2, 5, 3, 2]);
        let pairs = fast[0].as_slice::<f32>().unwrap().iter().zip(naive[0].as_slice::<f64>().unwrap());
        for (&fast, &naive) in pairs {
            assert!((f64::from(fast) - naive).abs() < 1e-5, "{fast} {naive}");
        }
        // By hand: a[1,0,2,:] = ramp from element 20, b[4,:,1] = elements 33, 35, 37, 39.
        let value = |i: usize, from: f64| from + (i % 7) as f64 * 0.5;
        let by_hand: f64 = (0..4).map(|d| value(20 + d, -1.0) * value(32 + 2 * d + 1, 0.5)).sum();
        assert_eq!(naive[0].as_slice::<f64>().unwrap()[9 * 6 + 5], by_hand);
    }

    #[test]
    fn bias_residual_and_activation() {
        let a = Tensor::from_slice([2, 1], &[1.0f32, -1.0]).unwrap();
        let b = Tensor::from_slice([1, 3], &[1.0f32, 2.0, 3.0]).unwrap();
        let bias = Tensor::from_slice([3], &[0.5f32, 0.0, -10.0]).unwrap();
        let residual = Tensor::from_slice([2, 3], &[0.0f32, 1.0, 0.0, 5.0, 0.0, 20.0]).unwrap();
        let fused =
            Fused { bias: true, residual: true, activation: Some(kernels::Unary::Relu6), ..Fused::default() };
        let y = run_op(MatMul { fused, ..MatMul::default() }, &[a, b, bias, residual]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.5, 3.0, 0.0, 4.5, 0.0, 6.0]);
    }

    #[test]
    fn misfits_are_named() {
        let error = run_op(MatMul::default(), &[ramp(&[1, 3], 0.0), ramp(&[4, 3], 0.0)]).unwrap_err();
        assert!(error.to_string().starts_with("Matrix size-incompatible: In[0]: [1,3], In[1]: [4,3]"));
        assert!(run_op(MatMul::default(), &[ramp(&[3], 0.0), ramp(&[3, 3], 0.0)]).is_err());
        assert!(run_op(MatMul::default(), &[ramp(&[2, 3, 3], 0.0), ramp(&[3, 3, 3], 0.0)]).is_err());
        let empty = run_op(MatMul::default(), &[ramp(&[0, 3], 0.0), ramp(&[3, 2], 0.0)]).unwrap();
        assert_eq!(empty[0].shape().to_vec(), [0, 2]);
    }
}
