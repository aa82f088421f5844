//! JSON values into tensors of the dtype that the signature asks for; nothing is inferred from the
//! JSON.
//!
//! A tensor's shape is taken by following first elements; then every list and leaf is held against
//! it. Numbers go from the text into the tensor's memory in one step: in the pass that checks the
//! body where their type can be foreseen ([`Collected`]), else in a second one ([`Builder`]).

use super::{metadata, shown};
use crate::{
    api::json::{self, Collector, Conversion, Document, FromNumber, Kind, SyntaxError, Value},
    models::{Code, Error, TensorInfo},
    proto::tensorflow::SignatureDef,
    tensor::{AlignedVec, DType, Element, Shape, Tensor, TensorError},
};
use bytes::Bytes;
use half::{bf16, f16};

/// The most dimensions that a TensorFlow shape has.
const MAX_RANK: usize = 254;

/// Collects the elements of one input tensor.
pub(super) struct Builder<'b> {
    context: Context<'b>,
    elements: Box<dyn Elements>,
}

/// What reading a leaf needs to know.
struct Context<'b> {
    /// The text that values point into, for strings that need no copy.
    body: &'b Bytes,
    conversion: Conversion,
    type_name: String,
}

impl<'b> Builder<'b> {
    /// For the input `info` of the signature that `definition` defines.
    pub(super) fn new(
        info: &TensorInfo,
        definition: &SignatureDef,
        body: &'b Bytes,
        conversion: Conversion,
    ) -> Self {
        let type_name = match info.dtype {
            Some(dtype) => dtype.name().to_owned(),
            None => definition
                .inputs
                .get(&info.name)
                .and_then(|info| metadata::dtype_name(info.dtype))
                .map_or_else(|| "unknown".to_owned(), |name| name.trim_start_matches("DT_").to_lowercase()),
        };
        let elements = elements_of(info.dtype, conversion);
        Self { context: Context { body, conversion, type_name }, elements }
    }

    /// Appends the elements of `value`; returns their shape and how many they are.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for lists of uneven length or depth and for leaves of another type,
    /// `UNIMPLEMENTED` for dtypes that have no form in JSON.
    pub(super) fn append(&mut self, value: Value<'_>) -> Result<(Shape, usize), Error> {
        let shape = shape_of(value)?;
        if let Some(count) = self.elements.push_uniform(value, &shape, &self.context) {
            return Ok((shape, count));
        }
        let mut count = 0;
        self.fill(value, &shape, 0, &mut count)?;
        Ok((shape, count))
    }

    /// The tensor. Elements beyond those of `shape` are left out.
    pub(super) fn finish(self, shape: Shape) -> Result<Tensor, Error> {
        self.elements.into_tensor(shape).map_err(|error| tensor_error(&error))
    }

    fn fill(
        &mut self,
        value: Value<'_>,
        shape: &Shape,
        level: usize,
        count: &mut usize,
    ) -> Result<(), Error> {
        let rank = shape.len();
        if value.kind() != Kind::Array {
            if level != rank {
                return Err(Error::invalid_argument(format!(
                    "JSON Value: {} found at incorrect level: {} in the JSON DOM. Expected at level: {rank}",
                    dump(value),
                    level + 1
                )));
            }
            self.elements.push(value, &self.context)?;
            *count += 1;
            return Ok(());
        }
        let Some(&expected) = shape.get(level) else {
            return Err(Error::invalid_argument(format!(
                "Encountered list at unexpected level: {level} expected < {rank}"
            )));
        };
        if value.len() != expected {
            return Err(Error::invalid_argument(format!(
                "Encountered list at unexpected size: {} at level: {level} expected size: {expected}",
                value.len()
            )));
        }
        value.items().try_for_each(|item| self.fill(item, shape, level + 1, count))
    }
}

/// The shape that the first elements give.
pub(super) fn shape_of(value: Value<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::scalar();
    let mut next = Some(value);
    while let Some(list) = next.filter(|value| value.kind() == Kind::Array) {
        if shape.len() == MAX_RANK {
            return Err(Error::invalid_argument(format!("Lists nest deeper than {MAX_RANK} levels")));
        }
        shape.push(list.len());
        next = list.items().next();
    }
    Ok(shape)
}

/// Numbers that were read while the body was checked, in the type that the signature was expected
/// to ask for.
pub(super) enum Collected {
    Nothing,
    F32(Collector<f32>),
    F64(Collector<f64>),
    I32(Collector<i32>),
    I64(Collector<i64>),
    U8(Collector<u8>),
}

impl Collected {
    /// Checks a body and collects its numbers as `dtype`, if that is one of the usual ones.
    pub(super) fn parse(
        body: &[u8],
        dtype: Option<DType>,
        conversion: Conversion,
    ) -> Result<(Document<'_>, Self), SyntaxError> {
        fn collect<T: Element + FromNumber>(
            body: &[u8],
            conversion: Conversion,
            wrap: fn(Collector<T>) -> Collected,
        ) -> Result<(Document<'_>, Collected), SyntaxError> {
            let mut collector = Collector::new(conversion);
            Document::parse_collecting(body, &mut collector).map(|document| (document, wrap(collector)))
        }
        match dtype {
            Some(DType::F32) => collect(body, conversion, Collected::F32),
            Some(DType::F64) => collect(body, conversion, Collected::F64),
            Some(DType::I32) => collect(body, conversion, Collected::I32),
            Some(DType::I64) => collect(body, conversion, Collected::I64),
            Some(DType::U8) => collect(body, conversion, Collected::U8),
            _ => Ok((Document::parse(body)?, Collected::Nothing)),
        }
    }

    /// The tensor that `value` is, if its numbers are all here and of the type that is asked for.
    pub(super) fn tensor(&mut self, value: Value<'_>, dtype: Option<DType>) -> Option<Tensor> {
        fn tensor<T: Element + FromNumber>(collector: &mut Collector<T>, value: Value<'_>) -> Option<Tensor> {
            let shape = shape_of(value).ok()?;
            let range = value.collected(&shape, collector)?;
            if range == (0..collector.elements().len()) {
                return Tensor::from_aligned(shape, collector.take_elements()).ok();
            }
            Tensor::from_slice(shape, collector.elements().get(range)?).ok()
        }
        let tensor = match self {
            Collected::Nothing => None,
            Collected::F32(collector) => tensor(collector, value),
            Collected::F64(collector) => tensor(collector, value),
            Collected::I32(collector) => tensor(collector, value),
            Collected::I64(collector) => tensor(collector, value),
            Collected::U8(collector) => tensor(collector, value),
        };
        tensor.filter(|tensor| Some(tensor.dtype()) == dtype)
    }
}

/// The elements of a tensor that is being built.
trait Elements {
    /// Appends all leaves of an array that has exactly this shape; returns how many they are.
    ///
    /// `None` for other arrays, and where a leaf is not of this type; then `push` refuses that leaf.
    fn push_uniform(&mut self, value: Value<'_>, shape: &[usize], context: &Context<'_>) -> Option<usize> {
        let _ = (value, shape, context);
        None
    }

    /// Appends a value that is no list.
    fn push(&mut self, value: Value<'_>, context: &Context<'_>) -> Result<(), Error>;

    fn into_tensor(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError>;
}

fn elements_of(dtype: Option<DType>, conversion: Conversion) -> Box<dyn Elements> {
    fn numbers<T: Element + FromNumber>() -> Box<dyn Elements> {
        Box::new(Numbers(AlignedVec::<T>::new()))
    }
    match dtype {
        // TensorFlow Serving has no JSON form for these.
        Some(DType::U16 | DType::F16 | DType::BF16) if conversion == Conversion::Serving => {
            Box::new(Unsupported)
        }
        Some(DType::F32) => numbers::<f32>(),
        Some(DType::F64) => numbers::<f64>(),
        Some(DType::F16) => numbers::<f16>(),
        Some(DType::BF16) => numbers::<bf16>(),
        Some(DType::I8) => numbers::<i8>(),
        Some(DType::I16) => numbers::<i16>(),
        Some(DType::I32) => numbers::<i32>(),
        Some(DType::I64) => numbers::<i64>(),
        Some(DType::U8) => numbers::<u8>(),
        Some(DType::U16) => numbers::<u16>(),
        Some(DType::U32) => numbers::<u32>(),
        Some(DType::U64) => numbers::<u64>(),
        Some(DType::Bool) => Box::new(Bools(AlignedVec::new())),
        Some(DType::String) => Box::new(Strings(Vec::new())),
        Some(DType::Complex64 | DType::Complex128) | None => Box::new(Unsupported),
    }
}

struct Numbers<T: Element>(AlignedVec<T>);

impl<T: Element + FromNumber> Elements for Numbers<T> {
    fn push_uniform(&mut self, value: Value<'_>, shape: &[usize], context: &Context<'_>) -> Option<usize> {
        value.each_leaf(shape, |text, at| {
            let (number, end) = T::from_number(text, at, context.conversion)?;
            self.0.push(number).ok()?;
            Some(end)
        })
    }

    fn push(&mut self, value: Value<'_>, context: &Context<'_>) -> Result<(), Error> {
        match value.read_number::<T>(context.conversion) {
            Some(number) => self.0.push(number).map_err(|error| tensor_error(&error)),
            // It would wrap.
            None if value.read_number::<T>(Conversion::Serving).is_some() => Err(Error::invalid_argument(
                format!("JSON Value: {} is out of range for type: {}", dump(value), context.type_name),
            )),
            None => Err(type_error(value, context)),
        }
    }

    fn into_tensor(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        aligned_tensor(shape, self.0)
    }
}

struct Bools(AlignedVec<bool>);

impl Elements for Bools {
    fn push(&mut self, value: Value<'_>, context: &Context<'_>) -> Result<(), Error> {
        let truth = match value.kind() {
            Kind::True => true,
            Kind::False => false,
            _ => return Err(type_error(value, context)),
        };
        self.0.push(truth).map_err(|error| tensor_error(&error))
    }

    fn into_tensor(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        aligned_tensor(shape, self.0)
    }
}

struct Strings(Vec<Bytes>);

impl Elements for Strings {
    fn push(&mut self, value: Value<'_>, context: &Context<'_>) -> Result<(), Error> {
        self.0.push(match value.kind() {
            Kind::String => string(value, context.body),
            Kind::Object => base64(value)?,
            _ => return Err(type_error(value, context)),
        });
        Ok(())
    }

    fn into_tensor(mut self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        self.0.truncate(shape.elements());
        Tensor::from_strings(shape, self.0)
    }
}

struct Unsupported;

impl Elements for Unsupported {
    fn push(&mut self, value: Value<'_>, context: &Context<'_>) -> Result<(), Error> {
        match value.kind() {
            Kind::Object => Err(type_error(value, context)),
            _ => Err(Error::unimplemented(format!(
                "Conversion of JSON Value: {} to type: {}",
                dump(value),
                context.type_name
            ))),
        }
    }

    /// Only a tensor without elements gets here.
    fn into_tensor(self: Box<Self>, shape: Shape) -> Result<Tensor, TensorError> {
        Tensor::zeros(DType::U8, shape)
    }
}

fn aligned_tensor<T: Element>(shape: Shape, elements: AlignedVec<T>) -> Result<Tensor, TensorError> {
    match elements.as_slice().get(..shape.elements()) {
        // A member given twice in an element of `instances`.
        Some(used) if used.len() < elements.len() => Tensor::from_slice(shape, used),
        _ => Tensor::from_aligned(shape, elements),
    }
}

/// A string's content, shared with the body where nothing is escaped.
pub(super) fn string(value: Value<'_>, body: &Bytes) -> Bytes {
    match value.string_range() {
        Some((range, false)) if range.start <= range.end && range.end <= body.len() => body.slice(range),
        _ => value.string().map(|content| Bytes::from(content.into_owned())).unwrap_or_default(),
    }
}

/// Whether `value` is an object with the one key `b64` and a string there.
pub(super) fn is_base64(value: Value<'_>) -> bool {
    value.kind() == Kind::Object
        && value.len() == 1
        && value.find("b64").is_some_and(|content| content.kind() == Kind::String)
}

/// The bytes of a `{"b64": ".."}`.
pub(super) fn base64(value: Value<'_>) -> Result<Bytes, Error> {
    if !is_base64(value) {
        let message = format!("JSON Value: {} not formatted correctly for base64 data", dump(value));
        return Err(Error::invalid_argument(message));
    }
    value
        .find("b64")
        .and_then(|content| json::base64::decode(&content.string()?))
        .map(Bytes::from)
        .ok_or_else(|| Error::invalid_argument("Unable to base64 decode"))
}

fn type_error(value: Value<'_>, context: &Context<'_>) -> Error {
    Error::invalid_argument(format!(
        "JSON Value: {} Type: {} is not of expected type: {}",
        dump(value),
        value.kind().name(),
        context.type_name
    ))
}

fn tensor_error(error: &TensorError) -> Error {
    let code = match error {
        TensorError::OutOfMemory { .. } | TensorError::TooLarge(_) => Code::ResourceExhausted,
        _ => Code::InvalidArgument,
    };
    Error { code, message: error.to_string().into() }
}

/// A value as error messages show it.
pub(super) fn dump(value: Value<'_>) -> String {
    shown(&json::dump(value)).into_owned()
}
