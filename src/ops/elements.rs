//! Operators that move elements without looking at them: one loop for every dtype.
//!
//! A [`Move`] is written once over any element type. Numbers run it in planned memory, as byte
//! arrays of the element's size; strings run it on whole tensors.

use super::{Io, Lower, OpError, Step};
use crate::{
    kernels::Threads,
    tensor::{Bytes, DType, Shape, Tensor, TensorError},
};

/// What is moved.
pub(crate) trait Item: Clone + Default + Send + Sync {}

impl<T: Clone + Default + Send + Sync> Item for T {}

/// Moves elements from inputs to outputs.
pub(crate) trait Move: Send + Sync + 'static {
    /// Writes every element of every output. Must not allocate.
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError>;
}

/// The memory of a [`Move`].
pub(crate) trait Elements<'a, T: 'a> {
    /// The elements of an input of the moved dtype.
    fn input(&mut self, index: usize) -> Result<&'a [T], OpError>;
    /// The next output; each is given out once.
    fn next_output(&mut self) -> Result<&'a mut [T], OpError>;
    /// An input of an index type: `uint8`, `int32` or `int64`.
    fn integers(&mut self, index: usize) -> Result<Integers<'a>, OpError>;
    /// Those that the step may use.
    fn threads(&self) -> &'a Threads;
}

/// Integers of an index type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Integers<'a> {
    /// `uint8`
    U8(&'a [u8]),
    /// `int32`
    I32(&'a [i32]),
    /// `int64`
    I64(&'a [i64]),
}

impl Integers<'_> {
    /// Number of integers.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    /// The integer at `position`, below the length.
    pub(crate) fn at(&self, position: usize) -> i64 {
        match self {
            Self::U8(values) => i64::from(values[position]),
            Self::I32(values) => i64::from(values[position]),
            Self::I64(values) => values[position],
        }
    }
}

/// The integers of an input of a running step.
pub(crate) fn integers<'a>(io: &mut Io<'a>, index: usize, dtype: DType) -> Result<Integers<'a>, OpError> {
    match dtype {
        DType::U8 => Ok(Integers::U8(io.input(index)?)),
        DType::I32 => Ok(Integers::I32(io.input(index)?)),
        DType::I64 => Ok(Integers::I64(io.input(index)?)),
        other => Err(OpError::unsupported(format!("indices of {other} are not supported"))),
    }
}

/// The step that runs `moves` on elements of the dtype of output 0.
pub(crate) fn moving(moves: impl Move, cx: &Lower<'_>) -> Result<Step, OpError> {
    let dtypes: Vec<DType> = cx.inputs.iter().map(|fact| fact.dtype).collect();
    let Some(output) = cx.outputs.first() else { return Err(OpError::Memory("a move")) };
    match output.dtype.size() {
        None => Ok(strings(moves, cx.outputs.iter().map(|fact| fact.shape.clone()).collect())),
        Some(1) => Ok(numbers::<1>(moves, dtypes)),
        Some(2) => Ok(numbers::<2>(moves, dtypes)),
        Some(4) => Ok(numbers::<4>(moves, dtypes)),
        Some(8) => Ok(numbers::<8>(moves, dtypes)),
        Some(_) => Ok(numbers::<16>(moves, dtypes)),
    }
}

struct Numbers<'i, 'a> {
    io: &'i mut Io<'a>,
    dtypes: &'i [DType],
}

impl<'a, const SIZE: usize> Elements<'a, [u8; SIZE]> for Numbers<'_, 'a> {
    fn input(&mut self, index: usize) -> Result<&'a [[u8; SIZE]], OpError> {
        Ok(self.io.input_bytes(index)?.as_chunks().0)
    }

    fn next_output(&mut self) -> Result<&'a mut [[u8; SIZE]], OpError> {
        Ok(self.io.next_output::<u8>()?.as_chunks_mut().0)
    }

    fn integers(&mut self, index: usize) -> Result<Integers<'a>, OpError> {
        let dtype = self.dtypes.get(index).copied().ok_or(OpError::Memory("an index input"))?;
        integers(self.io, index, dtype)
    }

    fn threads(&self) -> &'a Threads {
        self.io.context().threads
    }
}

fn numbers<const SIZE: usize>(moves: impl Move, dtypes: Vec<DType>) -> Step
where
    [u8; SIZE]: Default,
{
    Step::arena(move |io| moves.run::<[u8; SIZE]>(&mut Numbers { io, dtypes: &dtypes }))
}

struct Strings<'a> {
    inputs: &'a [Tensor],
    outputs: std::slice::IterMut<'a, Vec<Bytes>>,
    threads: &'a Threads,
}

impl<'a> Elements<'a, Bytes> for Strings<'a> {
    fn input(&mut self, index: usize) -> Result<&'a [Bytes], OpError> {
        Ok(self.inputs.get(index).ok_or(OpError::Memory("a string input"))?.as_strings()?)
    }

    fn next_output(&mut self) -> Result<&'a mut [Bytes], OpError> {
        Ok(self.outputs.next().ok_or(OpError::Memory("a string output"))?)
    }

    fn integers(&mut self, index: usize) -> Result<Integers<'a>, OpError> {
        let tensor = self.inputs.get(index).ok_or(OpError::Memory("an index input"))?;
        match tensor.dtype() {
            DType::U8 => Ok(Integers::U8(tensor.as_slice()?)),
            DType::I32 => Ok(Integers::I32(tensor.as_slice()?)),
            DType::I64 => Ok(Integers::I64(tensor.as_slice()?)),
            other => Err(OpError::unsupported(format!("indices of {other} are not supported"))),
        }
    }

    fn threads(&self) -> &'a Threads {
        self.threads
    }
}

fn strings(moves: impl Move, shapes: Vec<Shape>) -> Step {
    Step::tensors(move |inputs, cx| {
        let mut outputs = Vec::with_capacity(shapes.len());
        for shape in &shapes {
            let elements = shape.checked_elements().ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
            let mut strings = Vec::new();
            strings.try_reserve_exact(elements).map_err(|_| TensorError::OutOfMemory {
                bytes: elements.saturating_mul(size_of::<Bytes>()),
            })?;
            strings.resize(elements, Bytes::new());
            outputs.push(strings);
        }
        moves.run(&mut Strings { inputs, outputs: outputs.iter_mut(), threads: cx.threads })?;
        let tensors = shapes
            .iter()
            .zip(outputs)
            .map(|(shape, strings)| Ok(Tensor::from_strings(shape.clone(), strings)?));
        tensors.collect()
    })
}
