//! Tensors: dtype, shape and shared immutable memory. Always contiguous, row-major, little endian.
//!
//! There are no strides: a transpose is an operator. Cloning a tensor shares its memory.

pub mod buffer;
pub mod computed;
mod dtype;
mod shape;

pub use buffer::{AlignedVec, Buffer, keep_large_blocks_apart, release_free_memory};
pub use bytes::Bytes;
pub use dtype::{DType, Element};
pub use shape::Shape;

use std::{fmt, sync::Arc};

/// What can be wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The memory holds another number of elements than the shape says.
    #[error("shape {shape} needs {expected} elements, but {found} are given")]
    ElementCount {
        /// The shape.
        shape: Shape,
        /// Elements of that shape.
        expected: usize,
        /// Elements in memory.
        found: usize,
    },
    /// The shape's element or byte count does not fit the address space.
    #[error("shape {0} has more elements than memory can hold")]
    TooLarge(Shape),
    /// A tensor of one dtype was read as another.
    #[error("expected a tensor of {expected}, but it is {found}")]
    WrongDType {
        /// The dtype asked for.
        expected: DType,
        /// The dtype it has.
        found: DType,
    },
    /// The memory was not to be had.
    #[error("out of memory: {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A plan named memory that it may not touch.
    #[error("memory region {0:?} is out of bounds, misaligned or overlaps another")]
    BadRegion(buffer::Region),
}

/// Bytes from which copies of constants are made late and may go early.
const MIN_COMPUTED: usize = 4 << 10;

#[derive(Clone)]
enum Storage {
    Plain(Buffer),
    Strings(Arc<Vec<Bytes>>),
}

/// A value: dtype, shape, shared memory.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    storage: Storage,
}

impl Tensor {
    /// Takes over elements in aligned memory.
    pub fn from_aligned<T: Element>(
        shape: impl Into<Shape>,
        values: AlignedVec<T>,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_elements(&shape, values.len())?;
        Ok(Self { dtype: T::DTYPE, shape, storage: Storage::Plain(values.freeze()) })
    }

    /// Copies elements.
    pub fn from_slice<T: Element>(shape: impl Into<Shape>, values: &[T]) -> Result<Self, TensorError> {
        let mut aligned = AlignedVec::zeroed(values.len())?;
        aligned.as_mut_slice().copy_from_slice(values);
        Self::from_aligned(shape, aligned)
    }

    /// One element, rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        let bytes = Bytes::copy_from_slice(buffer::bytes_of(&[value]));
        Self::from_buffer(T::DTYPE, Shape::scalar(), Buffer::from_bytes(bytes))
            .unwrap_or_else(|_| Self::empty(T::DTYPE))
    }

    /// A vector with no element.
    pub fn empty(dtype: DType) -> Self {
        let storage = match dtype {
            DType::String => Storage::Strings(Arc::default()),
            _ => Storage::Plain(Buffer::from_static(&[])),
        };
        Self { dtype, shape: Shape::from([0]), storage }
    }

    /// Zeros, `false` or empty strings.
    pub fn zeros(dtype: DType, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        let elements = shape.checked_elements().ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        match dtype.size() {
            None => {
                let mut values = Vec::new();
                values
                    .try_reserve_exact(elements)
                    .map_err(|_| TensorError::OutOfMemory { bytes: elements })?;
                values.resize(elements, Bytes::new());
                Self::from_strings(shape, values)
            }
            Some(size) => {
                let len = elements.checked_mul(size).ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
                let bytes = buffer::AlignedBytes::zeroed(len)?;
                Self::from_buffer(dtype, shape, Buffer::from_aligned(Arc::new(bytes)))
            }
        }
    }

    /// Little-endian elements in `buffer`, shared where they are aligned and copied where not.
    /// Bytes of a `Bool` other than 0 and 1 become 1.
    pub fn from_buffer(dtype: DType, shape: impl Into<Shape>, mut data: Buffer) -> Result<Self, TensorError> {
        let shape = shape.into();
        let Some(size) = dtype.size() else {
            return Err(TensorError::WrongDType { expected: DType::U8, found: dtype });
        };
        if !data.len().is_multiple_of(size) {
            let expected = shape.checked_elements().ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
            return Err(TensorError::ElementCount { shape, expected, found: data.len() / size });
        }
        check_elements(&shape, data.len() / size)?;
        if dtype == DType::Bool && data.as_bytes().iter().any(|&byte| byte > 1) {
            let mut aligned = AlignedVec::<u8>::zeroed(data.len())?;
            for (to, &from) in aligned.as_mut_slice().iter_mut().zip(data.as_bytes()) {
                *to = u8::from(from != 0);
            }
            data = aligned.freeze();
        }
        if !data.is_aligned_to(dtype.alignment()) {
            data = match data.is_mapped() && data.len() >= MIN_COMPUTED {
                // Not before it is needed, and then read from the file as often as it is.
                true => data.aligned_when_read(),
                false => Buffer::copy_of(data.as_bytes())?,
            };
        }
        Ok(Self { dtype, shape, storage: Storage::Plain(data) })
    }

    /// A tensor whose elements `make` gives: when they are first looked at if they are many, else at once.
    pub fn computed(
        dtype: DType,
        shape: impl Into<Shape>,
        make: impl Fn() -> Option<Tensor> + Send + Sync + 'static,
    ) -> Option<Self> {
        let shape = shape.into();
        let len = shape.checked_elements()?.checked_mul(dtype.size()?)?;
        let data = move || make().filter(|made| made.dtype() == dtype)?.buffer().cloned();
        let data = if len < MIN_COMPUTED { data()? } else { Buffer::computed(len, data) };
        Self::from_buffer(dtype, shape, data).ok()
    }

    /// The elements of `source` in another order: axis `i` is its axis `axes[i]`, each of which is named once. `make` gives
    /// them when they are looked at; where they are stored, whoever can read that order needs no copy.
    pub fn reordered(
        source: &Self,
        axes: &[usize],
        make: impl Fn() -> Option<Tensor> + Send + Sync + 'static,
    ) -> Option<Self> {
        let dims = axes.iter().map(|&axis| source.shape.get(axis).copied());
        let shape = dims.collect::<Option<Shape>>()?;
        let stored = source.buffer().filter(|data| data.is_stored() && data.as_reordered().is_none());
        let Some(stored) = stored.filter(|stored| stored.len() >= MIN_COMPUTED) else {
            return Self::computed(source.dtype, shape, make);
        };
        let dtype = source.dtype;
        let data = move || make().filter(|made| made.dtype() == dtype)?.buffer().cloned();
        let reordered =
            computed::Reordered { stored: stored.clone(), shape: source.shape.clone(), axes: axes.to_vec() };
        Self::from_buffer(dtype, shape, Buffer::reordered(reordered, data)).ok()
    }

    /// For elements that are stored in another order: their bytes in that order, at any address, and which of its axes are
    /// those of this tensor.
    pub fn stored_order(&self) -> Option<(&[u8], &[usize])> {
        let reordered = self.buffer()?.as_reordered()?;
        let dims = reordered.axes.iter().map(|&axis| reordered.shape.get(axis));
        dims.eq(self.shape.iter().map(Some)).then(|| (reordered.stored.stored_bytes(), &reordered.axes[..]))
    }

    /// The elements' bytes at any address (see [`Buffer::stored_bytes`]); empty for strings.
    pub fn stored_bytes(&self) -> &[u8] {
        self.buffer().map(Buffer::stored_bytes).unwrap_or_default()
    }

    /// The same elements; those that are computed are so anew (see [`Buffer::fresh`]).
    pub fn fresh(&self) -> Self {
        match &self.storage {
            Storage::Plain(data) => Self { storage: Storage::Plain(data.fresh()), ..self.clone() },
            Storage::Strings(_) => self.clone(),
        }
    }

    /// Lets mapped pages go (see [`Buffer::release`]).
    pub fn release(&self) {
        if let Storage::Plain(data) = &self.storage {
            data.release();
        }
    }

    /// Strings, one per element.
    pub fn from_strings(shape: impl Into<Shape>, values: Vec<Bytes>) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_elements(&shape, values.len())?;
        Ok(Self { dtype: DType::String, shape, storage: Storage::Strings(Arc::new(values)) })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.elements()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements; an error when they are of another type, or `bool` (see [`Tensor::as_bools`]).
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        match &self.storage {
            Storage::Plain(data) if T::DTYPE == self.dtype => {
                // Empty buffers need no alignment.
                if data.is_empty() {
                    return Ok(&[]);
                }
                data.as_slice().ok_or(TensorError::WrongDType { expected: T::DTYPE, found: self.dtype })
            }
            _ => Err(TensorError::WrongDType { expected: T::DTYPE, found: self.dtype }),
        }
    }

    /// The elements of a `Bool` tensor; an error for any other.
    pub fn as_bools(&self) -> Result<&[bool], TensorError> {
        match &self.storage {
            Storage::Plain(data) if self.dtype == DType::Bool => {
                data.as_bools().ok_or(TensorError::WrongDType { expected: DType::U8, found: self.dtype })
            }
            _ => Err(TensorError::WrongDType { expected: DType::Bool, found: self.dtype }),
        }
    }

    /// The strings; an error when the tensor holds numbers.
    pub fn as_strings(&self) -> Result<&[Bytes], TensorError> {
        match &self.storage {
            Storage::Strings(values) => Ok(values),
            Storage::Plain(_) => Err(TensorError::WrongDType { expected: DType::String, found: self.dtype }),
        }
    }

    /// The elements' little-endian bytes; empty for strings.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Plain(data) => data.as_bytes(),
            Storage::Strings(_) => &[],
        }
    }

    /// The memory, for a zero-copy view of parts; `None` for strings.
    pub fn buffer(&self) -> Option<&Buffer> {
        match &self.storage {
            Storage::Plain(data) => Some(data),
            Storage::Strings(_) => None,
        }
    }

    /// Bytes of memory that the elements take, string headers included.
    pub fn memory(&self) -> usize {
        match &self.storage {
            Storage::Plain(data) => data.len(),
            Storage::Strings(values) => values.iter().map(|value| size_of::<Bytes>() + value.len()).sum(),
        }
    }

    /// The same elements under another shape of as many elements.
    pub fn reshaped(&self, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_elements(&shape, self.len())?;
        Ok(Self { dtype: self.dtype, shape, storage: self.storage.clone() })
    }

    /// Integers of any width (and `Bool`) as `i64`; `u64` above `i64::MAX` saturates.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>, TensorError> {
        macro_rules! widen {
            ($($tag:ident: $t:ty),*) => {
                match self.dtype {
                    DType::Bool => Ok(self.as_bools()?.iter().map(|&v| i64::from(v)).collect()),
                    $(DType::$tag => Ok(self.as_slice::<$t>()?.iter().map(|&v| i64::from(v)).collect()),)*
                    DType::U64 => Ok(self
                        .as_slice::<u64>()?
                        .iter()
                        .map(|&v| i64::try_from(v).unwrap_or(i64::MAX))
                        .collect()),
                    found => Err(TensorError::WrongDType { expected: DType::I64, found }),
                }
            };
        }
        widen!(U8: u8, U16: u16, U32: u32, I8: i8, I16: i16, I32: i32, I64: i64)
    }
}

fn check_elements(shape: &Shape, found: usize) -> Result<(), TensorError> {
    match shape.checked_elements() {
        None => Err(TensorError::TooLarge(shape.clone())),
        Some(expected) if expected != found => {
            Err(TensorError::ElementCount { shape: shape.clone(), expected, found })
        }
        Some(_) => Ok(()),
    }
}

/// Bitwise equality of dtype, shape and elements (so NaN equals the same NaN, and 0.0 not -0.0).
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && match (&self.storage, &other.storage) {
                (Storage::Plain(a), Storage::Plain(b)) => a.as_bytes() == b.as_bytes(),
                (Storage::Strings(a), Storage::Strings(b)) => a == b,
                _ => false,
            }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_elements_must_agree() {
        let error = Tensor::from_slice([2, 2], &[1.0f32, 2.0]).unwrap_err();
        assert_eq!(error.to_string(), "shape [2,2] needs 4 elements, but 2 are given");
        assert!(Tensor::from_slice([usize::MAX, 3], &[1u8]).is_err());
        assert!(Tensor::zeros(DType::F64, [usize::MAX / 4]).is_err());
    }

    #[test]
    fn misaligned_bytes_are_copied() {
        let body = Bytes::from_static(&[9, 1, 0, 0, 0, 2, 0, 0, 0]);
        let tensor = Tensor::from_buffer(DType::I32, [2], Buffer::from_bytes(body.slice(1..))).unwrap();
        assert_eq!(tensor.as_slice::<i32>().unwrap(), [1, 2]);
        assert!(Tensor::from_buffer(DType::I32, [2], Buffer::from_bytes(body)).is_err());
    }

    #[test]
    fn another_order_is_known_for_the_shape_that_it_is_of() {
        let source = Tensor::zeros(DType::F32, [2, 100, 100]).unwrap();
        let turned = Tensor::reordered(&source, &[2, 0, 1], || None).unwrap();
        assert_eq!(turned.shape().to_vec(), [100, 2, 100]);
        let (bytes, axes) = turned.stored_order().unwrap();
        assert_eq!((bytes.as_ptr(), axes), (source.as_bytes().as_ptr(), &[2, 0, 1][..]));
        assert!(turned.reshaped([200, 100]).unwrap().stored_order().is_none());
        assert!(Tensor::reordered(&turned, &[1, 0, 2], || None).unwrap().stored_order().is_none());
        assert!(source.stored_order().is_none());
        assert!(Tensor::reordered(&source, &[3, 0, 1], || None).is_none());
    }

    #[test]
    fn foreign_bools_are_made_valid() {
        let tensor = Tensor::from_buffer(DType::Bool, [3], Buffer::from_static(&[0, 1, 255])).unwrap();
        assert_eq!(tensor.as_bools().unwrap(), [false, true, true]);
        assert!(tensor.as_slice::<bool>().is_err());
    }

    #[test]
    fn dtypes_are_checked() {
        let tensor = Tensor::scalar(2.5f32);
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [2.5]);
        assert_eq!(
            tensor.as_slice::<i32>().unwrap_err().to_string(),
            "expected a tensor of int32, but it is float"
        );
        assert!(tensor.as_strings().is_err());
        let strings = Tensor::from_strings([1], vec![Bytes::from_static(b"a")]).unwrap();
        assert!(strings.as_slice::<u8>().is_err());
        assert_eq!(Tensor::from_slice([2], &[3u8, 4]).unwrap().to_i64_vec().unwrap(), [3, 4]);
    }
}
