//! Attention as one operator, so that the matrix of all scores is never stored.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::{self, HeadStrides},
    tensor::{DType, Shape},
};
use serde::{Deserialize, Serialize};

/// `softmax(scale q k^T + mask) v` for every head. Inputs: `q` `[batch, heads, queries, depth]`, `k`
/// `[batch, heads, keys, depth]`, `v` `[batch, heads, keys, width]`, and, when there is a mask, a tensor that can be
/// broadcast to `[batch, heads, queries, keys]`, whose last dimension is `keys`. All are `F32`. One tensor can stand for the
/// first three (see [`Attention::packed`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Factor of the products.
    pub scale: f32,
    /// The last input is added to the scores.
    #[serde(default)]
    pub mask: bool,
    /// `q`, `k`, `v` and the output that have the axes `[batch, rows, heads, depth]`.
    #[serde(default)]
    pub rows_first: [bool; 4],
    /// Weights that are not a number count as 0: a row that sees no key is 0.
    #[serde(default)]
    pub zero_for_nan: bool,
    /// Not 0: input 0 is `[batch, rows, ..]`, and each row is made of its query, its key and its value, each of so many heads.
    #[serde(default)]
    pub packed: usize,
}

/// Sizes of one tensor of rows.
#[derive(Clone, Copy)]
struct Rows {
    batch: usize,
    heads: usize,
    rows: usize,
    depth: usize,
    strides: HeadStrides,
}

impl Attention {
    fn rows(&self, inputs: &[Fact], index: usize) -> Result<Rows, OpError> {
        let fact = &inputs[index];
        let &[batch, a, b, depth] = fact.dims() else {
            return Err(OpError::invalid(format!("attention needs four dimensions, but has {}", fact.shape)));
        };
        Ok(match self.rows_first[index] {
            true => Rows { batch, rows: a, heads: b, depth, strides: HeadStrides::rows_first(b, a, depth) },
            false => Rows { batch, heads: a, rows: b, depth, strides: HeadStrides::heads_first(a, b, depth) },
        })
    }

    /// The thirds of the rows of a packed input.
    fn packed_rows(&self, input: &Fact) -> Result<Rows, OpError> {
        let misfit =
            || OpError::invalid(format!("{} is not three times {} heads a row", input.shape, self.packed));
        let &[batch, rows, ref rest @ ..] = input.dims() else { return Err(misfit()) };
        let row = rest.iter().try_fold(1usize, |row, &size| row.checked_mul(size)).ok_or_else(misfit)?;
        let depth = row / 3 / self.packed;
        if depth * 3 * self.packed != row {
            return Err(misfit());
        }
        let strides = HeadStrides { batch: rows.saturating_mul(row), head: depth, row };
        Ok(Rows { batch, rows, heads: self.packed, depth, strides })
    }

    /// Inputs before the mask.
    fn factors(&self) -> usize {
        if self.packed > 0 { 1 } else { 3 }
    }

    fn plan(&self, inputs: &[Fact]) -> Result<(kernels::Attention, Shape), OpError> {
        let count = self.factors() + usize::from(self.mask);
        expect_inputs(inputs, count..=count)?;
        if let Some(other) = inputs.iter().find(|fact| fact.dtype != DType::F32) {
            return Err(OpError::unsupported(format!("attention of {} is not supported", other.dtype)));
        }
        let [q, k, v] = match self.packed {
            0 => [self.rows(inputs, 0)?, self.rows(inputs, 1)?, self.rows(inputs, 2)?],
            _ => [self.packed_rows(&inputs[0])?; 3],
        };
        let same = |size: fn(&Rows) -> usize| size(&q) == size(&k) && size(&q) == size(&v);
        if !same(|rows| rows.batch) || !same(|rows| rows.heads) || q.depth != k.depth || k.rows != v.rows {
            let shapes: Vec<String> = inputs.iter().take(3).map(|fact| fact.shape.to_string()).collect();
            return Err(OpError::invalid(format!(
                "queries, keys and values {} do not fit together",
                shapes.join(", ")
            )));
        }
        let mask = if self.mask { Some(mask_strides(&inputs[count - 1], &q, k.rows)?) } else { None };
        let (shape, out) = match self.rows_first[3] {
            true => {
                let strides = HeadStrides::rows_first(q.heads, q.rows, v.depth);
                (Shape::from([q.batch, q.rows, q.heads, v.depth]), strides)
            }
            false => {
                let strides = HeadStrides::heads_first(q.heads, q.rows, v.depth);
                (Shape::from([q.batch, q.heads, q.rows, v.depth]), strides)
            }
        };
        let plan = kernels::Attention {
            batch: q.batch,
            heads: q.heads,
            kv_heads: q.heads,
            queries: q.rows,
            keys: k.rows,
            depth: q.depth,
            value_depth: v.depth,
            scale: self.scale,
            causal: None,
            q: q.strides,
            k: k.strides,
            v: v.strides,
            out,
            mask,
            zero_for_nan: self.zero_for_nan,
        };
        plan.check()?;
        Ok((plan, shape))
    }
}

/// Where the rows of a mask lie; 0 for an axis along which it is repeated.
fn mask_strides(mask: &Fact, q: &Rows, keys: usize) -> Result<HeadStrides, OpError> {
    let misfit = || {
        OpError::invalid(format!(
            "a mask of shape {} does not fit scores [{},{},{},{keys}]",
            mask.shape, q.batch, q.heads, q.rows
        ))
    };
    let missing = 4usize.checked_sub(mask.rank()).ok_or_else(misfit)?;
    let dim = |axis: usize| axis.checked_sub(missing).map_or(1, |axis| mask.dims()[axis]);
    if dim(3) != keys {
        return Err(misfit());
    }
    let mut step = keys;
    let mut stride = |axis: usize, full: usize| match dim(axis) {
        1 => Ok(0),
        size if size == full => {
            let stride = step;
            step = step.saturating_mul(size);
            Ok(stride)
        }
        _ => Err(misfit()),
    };
    let (row, head) = (stride(2, q.rows)?, stride(1, q.heads)?);
    Ok(HeadStrides { batch: stride(0, q.batch)?, head, row })
}

impl Operator for Attention {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let (_, shape) = self.plan(inputs)?;
        Ok(Inferred::one(DType::F32, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (plan, _) = self.plan(cx.inputs)?;
        let (masked, packed, factors) = (self.mask, self.packed > 0, self.factors());
        let third = plan.heads * plan.depth;
        let scratch = plan.scratch(cx.kernels)?.saturating_mul(size_of::<f32>());
        let step = Step::arena(move |io| {
            let (q, k, v) = match packed {
                true => {
                    let rows: &[f32] = io.input(0)?;
                    let from = |third: usize| rows.get(third..).unwrap_or_default();
                    (rows, from(third), from(2 * third))
                }
                false => (io.input(0)?, io.input(1)?, io.input(2)?),
            };
            let mask = if masked { Some(io.input(factors)?) } else { None };
            let (out, scratch, cx) = (io.next_output()?, io.scratch()?, io.context());
            Ok(cx.kernels.attention(&plan, q, k, v, mask, out, scratch, cx.threads)?)
        });
        Ok(step.with_scratch(scratch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn wave(shape: &[usize], seed: usize) -> Tensor {
        let elements: usize = shape.iter().product();
        let values: Vec<f32> = (0..elements).map(|i| ((i * 31 + seed) % 17) as f32 / 8.0 - 1.0).collect();
        Tensor::from_slice(shape, &values).unwrap()
    }

    /// By the definition, element by element; all tensors heads first.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, mask: impl Fn([usize; 4]) -> f32) -> Vec<f32> {
        let (&[batch, heads, queries, depth], &[.., keys, width]) = (&q.shape()[..], &v.shape()[..]) else {
            panic!()
        };
        let [q, k, v] = [q, k, v].map(|tensor| tensor.as_slice::<f32>().unwrap());
        let mut out = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                let at = b * heads + h;
                for i in 0..queries {
                    let scores: Vec<f32> = (0..keys)
                        .map(|j| {
                            let product: f32 = (0..depth)
                                .map(|d| q[(at * queries + i) * depth + d] * k[(at * keys + j) * depth + d])
                                .sum();
                            0.5 * product + mask([b, h, i, j])
                        })
                        .collect();
                    let total: f32 = scores.iter().map(|score| score.exp()).sum();
                    for d in 0..width {
                        let sum: f32 =
                            (0..keys).map(|j| scores[j].exp() * v[(at * keys + j) * width + d]).sum();
                        out.push(sum / total);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn the_definition() {
        let (q, k, v) = (wave(&[2, 3, 5, 4], 1), wave(&[2, 3, 7, 4], 2), wave(&[2, 3, 7, 6], 3));
        let op = Attention { scale: 0.5, ..Attention::default() };
        let y = run_op(op.clone(), &[q.clone(), k.clone(), v.clone()]).unwrap().remove(0);
        assert_eq!(y.shape().to_vec(), [2, 3, 5, 6]);
        let close = |y: &Tensor, expected: Vec<f32>| {
            for (y, expected) in y.as_slice::<f32>().unwrap().iter().zip(expected) {
                assert!((y - expected).abs() < 1e-5, "{y} and {expected}");
            }
        };
        close(&y, naive(&q, &k, &v, |_| 0.0));
        let mask = wave(&[2, 1, 1, 7], 4);
        let values = mask.as_slice::<f32>().unwrap().to_vec();
        let op = Attention { mask: true, ..op };
        let y = run_op(op, &[q.clone(), k.clone(), v.clone(), mask]).unwrap().remove(0);
        close(&y, naive(&q, &k, &v, |[b, _, _, j]| values[b * 7 + j]));
    }

    #[test]
    fn rows_may_come_first() {
        let (q, k, v) = (wave(&[1, 5, 1, 4], 1), wave(&[1, 7, 1, 4], 2), wave(&[1, 7, 1, 6], 3));
        let first = Attention { scale: 0.5, rows_first: [true; 4], ..Attention::default() };
        let y = run_op(first, &[q.clone(), k.clone(), v.clone()]).unwrap().remove(0);
        assert_eq!(y.shape().to_vec(), [1, 5, 1, 6]);
        let [q, k, v] = [(q, [1, 1, 5, 4]), (k, [1, 1, 7, 4]), (v, [1, 1, 7, 6])]
            .map(|(tensor, shape)| tensor.reshaped(shape).unwrap());
        let expected = naive(&q, &k, &v, |_| 0.0);
        for (y, expected) in y.as_slice::<f32>().unwrap().iter().zip(expected) {
            assert!((y - expected).abs() < 1e-5, "{y} and {expected}");
        }
    }

    #[test]
    fn one_tensor_may_have_queries_keys_and_values() {
        let (batch, rows, heads, depth) = (2, 5, 3, 4);
        let whole = wave(&[batch, rows, 3, heads, depth], 5);
        let elements = whole.as_slice::<f32>().unwrap();
        let part = |third: usize| {
            let mut values = Vec::new();
            for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
                for r in 0..rows {
                    let start = (((b * rows + r) * 3 + third) * heads + h) * depth;
                    values.extend_from_slice(&elements[start..start + depth]);
                }
            }
            Tensor::from_slice([batch, heads, rows, depth], &values).unwrap()
        };
        let mask = wave(&[5], 6);
        let values = mask.as_slice::<f32>().unwrap().to_vec();
        let expected = naive(&part(0), &part(1), &part(2), |[.., j]| values[j]);
        let op = Attention { scale: 0.5, mask: true, packed: heads, ..Attention::default() };
        for shape in [&[batch, rows, 3, heads, depth][..], &[batch, rows, 3 * heads * depth]] {
            let y = run_op(op.clone(), &[whole.reshaped(shape).unwrap(), mask.clone()]).unwrap().remove(0);
            assert_eq!(y.shape().to_vec(), [batch, heads, rows, depth]);
            for (y, expected) in y.as_slice::<f32>().unwrap().iter().zip(&expected) {
                assert!((y - expected).abs() < 1e-5, "{y} and {expected}");
            }
        }
        let op = Attention { packed: 7, ..op };
        let error = run_op(op.clone(), &[whole.clone(), mask.clone()]).unwrap_err().to_string();
        assert!(error.contains("[2,5,3,3,4] is not three times 7 heads a row"), "{error}");
        assert!(run_op(op, &[wave(&[36], 0), mask]).is_err());
    }

    #[test]
    fn misfits_are_named() {
        let op = Attention { scale: 1.0, mask: true, ..Attention::default() };
        let (q, k) = (wave(&[1, 2, 5, 4], 1), wave(&[1, 2, 7, 4], 2));
        let error =
            run_op(op.clone(), &[q.clone(), k.clone(), k.clone(), wave(&[1, 2, 5, 1], 0)]).unwrap_err();
        assert!(error.to_string().contains("does not fit scores [1,2,5,7]"), "{error}");
        assert!(run_op(op, &[q.clone(), wave(&[1, 3, 7, 4], 0), k, wave(&[7], 0)]).is_err());
    }
}
