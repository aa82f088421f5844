//! Operators whose elements come from positions: ranges, places of non-zeros, bands of matrices,
//! counts.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step,
    elements::{Elements, Item, Move, moving},
    expect_inputs, known_integers, with_element,
};
use crate::{
    kernels::Number,
    tensor::{DType, Tensor},
};
use serde::{Deserialize, Serialize};

/// `start, start + delta, ..` before `limit`, for three scalar inputs of one numeric type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range;

impl Operator for Range {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        let mut values = Vec::with_capacity(3);
        for (index, fact) in inputs.iter().enumerate() {
            if fact.elements() != 1 || fact.dtype != inputs[0].dtype {
                return Err(OpError::invalid("start, limit and delta must be scalars of one type"));
            }
            match &fact.value {
                Some(value) => values.push(value),
                None => return Ok(Inferred::NeedsValue(index)),
            }
        }
        let len = if inputs[0].dtype.is_integer() {
            let integers = values.iter().map(|value| Ok(value.to_i64_vec()?.first().copied().unwrap_or(0)));
            let integers = integers.collect::<Result<Vec<i64>, OpError>>()?;
            integer_len(i128::from(integers[0]), i128::from(integers[1]), i128::from(integers[2]))
        } else {
            let floats =
                values.iter().map(|value| first_f64(value)).collect::<Result<Vec<f64>, OpError>>()?;
            let len = ((floats[1] - floats[0]) / floats[2]).ceil();
            // A cast saturates: nothing for a negative length, an impossible one for an endless range.
            (floats[2] != 0.0 && !len.is_nan()).then_some(len as usize)
        };
        let len = len.ok_or_else(|| OpError::invalid("Requires delta != 0"))?;
        Ok(Inferred::one(inputs[0].dtype, [len]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let dtype = cx.outputs[0].dtype;
        with_element!(dtype, T => Ok(Step::arena(move |io| {
            let ([start], [delta]) = (io.input::<T>(0)?, io.input::<T>(2)?) else {
                return Err(OpError::Memory("a range"));
            };
            let mut next = *start;
            for (position, y) in io.next_output::<T>()?.iter_mut().enumerate() {
                if dtype.is_float() {
                    *y = start.plus(T::from_f64(position as f64).times(*delta));
                } else {
                    // Every integer type wraps to the same sums, however long the range.
                    *y = next;
                    next = next.plus(*delta);
                }
            }
            Ok(())
        })), else Err(OpError::unsupported(format!("a range of {dtype} is not supported"))))
    }
}

fn integer_len(start: i128, limit: i128, delta: i128) -> Option<usize> {
    let distance = if delta > 0 { limit - start } else { start - limit };
    let step = delta.unsigned_abs();
    match (step, u128::try_from(distance)) {
        (0, _) => None,
        (_, Err(_)) => Some(0),
        (step, Ok(distance)) => Some(usize::try_from(distance.div_ceil(step)).unwrap_or(usize::MAX)),
    }
}

fn first_f64(value: &Tensor) -> Result<f64, OpError> {
    let found = match value.dtype() {
        DType::F16 => value.as_slice::<half::f16>()?.first().map(|value| value.to_f64()),
        DType::BF16 => value.as_slice::<half::bf16>()?.first().map(|value| value.to_f64()),
        DType::F32 => value.as_slice::<f32>()?.first().map(|&value| f64::from(value)),
        DType::F64 => value.as_slice::<f64>()?.first().copied(),
        other => return Err(OpError::unsupported(format!("a range of {other} is not supported"))),
    };
    found.ok_or_else(|| OpError::invalid("a range needs a start, a limit and a delta"))
}

/// The coordinates of the elements that are not zero, in row-major order, as `int64`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonZero {
    /// One column per element, `[rank, found]` (ONNX); else one row, `[found, rank]` (TensorFlow
    /// `Where`).
    pub columns: bool,
}

impl Operator for NonZero {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        Ok(Inferred::AtRun)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (columns, dtype) = (self.columns, cx.inputs[0].dtype);
        if dtype == DType::Bool {
            return Ok(Step::tensors(move |inputs, _| {
                let [x] = inputs else { return Err(OpError::Memory("a condition")) };
                let found: Vec<usize> = positions(x.as_bools()?, |&element| element);
                Ok(vec![coordinates(&found, x.shape(), columns)?])
            }));
        }
        with_element!(dtype, T => Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("a condition")) };
            let found = positions(x.as_slice::<T>()?, |element| *element != T::default());
            Ok(vec![coordinates(&found, x.shape(), columns)?])
        })), else Err(OpError::unsupported(format!("finding non-zeros of {dtype} is not supported"))))
    }
}

fn positions<T>(elements: &[T], wanted: impl Fn(&T) -> bool) -> Vec<usize> {
    elements.iter().enumerate().filter(|(_, element)| wanted(element)).map(|(position, _)| position).collect()
}

fn coordinates(positions: &[usize], dims: &[usize], columns: bool) -> Result<Tensor, OpError> {
    let (rank, found) = (dims.len(), positions.len());
    let mut values = vec![0i64; rank * found];
    for (row, &position) in positions.iter().enumerate() {
        let mut rest = position;
        for axis in (0..rank).rev() {
            let slot = if columns { axis * found + row } else { row * rank + axis };
            values[slot] = (rest % dims[axis]) as i64;
            rest /= dims[axis];
        }
    }
    Ok(Tensor::from_slice(if columns { [rank, found] } else { [found, rank] }, &values)?)
}

/// Ones on a diagonal, zeros elsewhere, in the shape of a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EyeLike {
    /// Element type; that of the input when not given.
    pub dtype: Option<DType>,
    /// The diagonal: above the main one when positive, below when negative.
    pub diagonal: i64,
}

impl Operator for EyeLike {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        matrix(&inputs[0])?;
        Ok(Inferred::one(self.dtype.unwrap_or(inputs[0].dtype), inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (_, columns) = matrix(&cx.inputs[0])?;
        let (dtype, diagonal) = (cx.outputs[0].dtype, self.diagonal);
        with_element!(dtype, T => Ok(Step::arena(move |io| {
            let y = io.next_output::<T>()?;
            y.fill(T::default());
            for (row, y) in y.chunks_exact_mut(columns.max(1)).enumerate() {
                let column = (row as i64).saturating_add(diagonal);
                if let Some(y) = usize::try_from(column).ok().and_then(|column| y.get_mut(column)) {
                    *y = T::from_f64(1.0);
                }
            }
            Ok(())
        })), else Err(OpError::unsupported(format!("a diagonal of {dtype} is not supported"))))
    }
}

fn matrix(fact: &Fact) -> Result<(usize, usize), OpError> {
    match fact.dims() {
        [.., rows, columns] => Ok((*rows, *columns)),
        _ => Err(OpError::invalid(format!("expected a matrix, got a tensor of shape {}", fact.shape))),
    }
}

/// Zeros outside one triangle of each matrix (ONNX). Input 1, when given, is the diagonal where the
/// triangle ends; the main one else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trilu {
    /// The triangle above the diagonal stays, else the one below.
    pub upper: bool,
}

impl Operator for Trilu {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=2)?;
        matrix(&inputs[0])?;
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (rows, columns) = matrix(&cx.inputs[0])?;
        let edges = match (self.upper, cx.inputs.len() > 1) {
            (upper, true) => Edges::Triangle { upper },
            (true, false) => Edges::Fixed(0, i64::MAX),
            (false, false) => Edges::Fixed(i64::MIN, 0),
        };
        moving(Band { rows, columns, edges }, cx)
    }
}

/// Zeros outside a band of each matrix (TensorFlow): inputs 1 and 2 tell how many diagonals below
/// and above the main one stay, all of them when negative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixBandPart;

impl Operator for MatrixBandPart {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        matrix(&inputs[0])?;
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (rows, columns) = matrix(&cx.inputs[0])?;
        moving(Band { rows, columns, edges: Edges::Band }, cx)
    }
}

struct Band {
    rows: usize,
    columns: usize,
    edges: Edges,
}

/// The first and last diagonal that stay, or the inputs that tell.
enum Edges {
    Fixed(i64, i64),
    Triangle { upper: bool },
    Band,
}

impl Move for Band {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let mut scalar = |index| {
            let given = elements.integers(index)?;
            if given.len() == 1 {
                Ok(given.at(0))
            } else {
                Err(OpError::invalid("a diagonal must be one number"))
            }
        };
        let (first, last) = match self.edges {
            Edges::Fixed(first, last) => (first, last),
            Edges::Triangle { upper: true } => (scalar(1)?, i64::MAX),
            Edges::Triangle { upper: false } => (i64::MIN, scalar(1)?),
            Edges::Band => {
                let (below, above) = (scalar(1)?, scalar(2)?);
                (if below < 0 { i64::MIN } else { -below }, if above < 0 { i64::MAX } else { above })
            }
        };
        let (x, y) = (elements.input(0)?, elements.next_output()?);
        y.fill(T::default());
        let columns = self.columns.max(1);
        for (row, (x, y)) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).enumerate() {
            let row = (row % self.rows) as i64;
            let column = |diagonal: i64| row.saturating_add(diagonal).clamp(0, columns as i64) as usize;
            let (start, end) = (column(first), column(last.saturating_add(1)));
            if start < end {
                y[start..end].clone_from_slice(&x[start..end]);
            }
        }
        Ok(())
    }
}

/// Number of elements, as a scalar. Always known while planning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// `I32` or `I64`.
    pub dtype: DType,
}

/// Number of dimensions, as a scalar. Always known while planning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// `I32` or `I64`.
    pub dtype: DType,
}

/// The shape that two shapes broadcast to; vectors of `I32` or `I64`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BroadcastShapes;

impl Operator for BroadcastShapes {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let (a, b) = (known_integers!(inputs, 0), known_integers!(inputs, 1));
        let rank = a.len().max(b.len());
        let at =
            |dims: &[i64], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
        let dims = (0..rank).map(|axis| match (at(&a, axis), at(&b, axis)) {
            (1, dim) | (dim, 1) => Ok(dim),
            (x, y) if x == y => Ok(x),
            _ => Err(OpError::invalid(format!("shapes {a:?} and {b:?} do not broadcast"))),
        });
        let dims = dims.collect::<Result<Vec<i64>, _>>()?;
        Ok(Inferred::known(match inputs[0].dtype {
            DType::I32 => {
                Tensor::from_slice([rank], &dims.iter().map(|&dim| dim as i32).collect::<Vec<_>>())?
            }
            _ => Tensor::from_slice([rank], &dims)?,
        }))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Err(OpError::Memory("a shape, which is known while planning"))
    }
}

fn count(dtype: DType, count: usize) -> Inferred {
    Inferred::known(match dtype {
        DType::I32 => Tensor::scalar(i32::try_from(count).unwrap_or(i32::MAX)),
        _ => Tensor::scalar(count as i64),
    })
}

impl Operator for Size {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        Ok(count(self.dtype, inputs[0].elements()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Err(OpError::Memory("a size, which is known while planning"))
    }
}

impl Operator for Rank {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        Ok(count(self.dtype, inputs[0].rank()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Err(OpError::Memory("a rank, which is known while planning"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Element};

    fn range<T: Element>(start: T, limit: T, delta: T) -> Option<Vec<T>> {
        let y = run_op(Range, &[Tensor::scalar(start), Tensor::scalar(limit), Tensor::scalar(delta)]);
        Some(y.ok()?[0].as_slice::<T>().unwrap().to_vec())
    }

    #[test]
    fn ranges() {
        assert_eq!(range(3i32, 18, 6), Some(vec![3, 9, 15]));
        assert_eq!(range(3i64, 1, -1), Some(vec![3, 2]));
        assert_eq!(range(3i32, 1, 1), Some(vec![]));
        assert_eq!(range(0.0f32, 1.0, 0.25), Some(vec![0.0, 0.25, 0.5, 0.75]));
        assert_eq!(range(0i32, 1, 0), None);
        assert_eq!(range(0.0f32, f32::INFINITY, 1.0), None);
        assert_eq!(range(i64::MIN, i64::MAX, 1), None);
        assert_eq!(range(0.0f64, f64::NAN, 1.0), None);
    }

    #[test]
    fn coordinates_of_non_zeros() {
        let x = Tensor::from_slice([2, 3], &[0.0f32, 1.0, -0.0, 2.0, 0.0, f32::NAN]).unwrap();
        let y = run_op(NonZero { columns: false }, std::slice::from_ref(&x)).unwrap();
        assert_eq!(y[0], Tensor::from_slice([3, 2], &[0i64, 1, 1, 0, 1, 2]).unwrap());
        let y = run_op(NonZero { columns: true }, &[x]).unwrap();
        assert_eq!(y[0], Tensor::from_slice([2, 3], &[0i64, 1, 1, 1, 0, 2]).unwrap());
        let y = run_op(NonZero { columns: false }, &[Tensor::scalar(true)]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [1, 0]);
    }

    #[test]
    fn diagonals_and_bands() {
        let x = Tensor::from_slice([3, 3], &[1i32, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let y = run_op(EyeLike { dtype: Some(DType::F32), diagonal: 1 }, std::slice::from_ref(&x)).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        let y = run_op(Trilu { upper: true }, std::slice::from_ref(&x)).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [1, 2, 3, 0, 5, 6, 0, 0, 9]);
        let y = run_op(Trilu { upper: false }, &[x.clone(), Tensor::scalar(-1i64)]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [0, 0, 0, 4, 0, 0, 7, 8, 0]);
        let band = |below: i64, above: i64| {
            let inputs = [x.clone(), Tensor::scalar(below), Tensor::scalar(above)];
            run_op(MatrixBandPart, &inputs).unwrap()[0].as_slice::<i32>().unwrap().to_vec()
        };
        assert_eq!(band(1, 0), [1, 0, 0, 4, 5, 0, 0, 8, 9]);
        assert_eq!(band(0, -1), [1, 2, 3, 0, 5, 6, 0, 0, 9]);
        assert_eq!(band(-1, i64::MAX), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn counts() {
        let x = Tensor::zeros(DType::U8, [2, 3]).unwrap();
        assert_eq!(
            run_op(Size { dtype: DType::I32 }, std::slice::from_ref(&x)).unwrap()[0],
            Tensor::scalar(6i32)
        );
        assert_eq!(run_op(Rank { dtype: DType::I64 }, &[x]).unwrap()[0], Tensor::scalar(2i64));
    }
}
