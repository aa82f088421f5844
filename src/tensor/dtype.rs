//! Element types: the tag [`DType`] and the Rust types behind it, [`Element`].

#![forbid(unsafe_code)]

use half::{bf16, f16};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an IEEE 754 binary32.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Two binary32, real part first.
    Complex64,
    /// Two binary64, real part first.
    Complex128,
    /// A byte string of any length; not necessarily UTF-8.
    String,
}

impl DType {
    /// Every type, in declaration order.
    pub const ALL: [DType; 16] = [
        DType::Bool,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
        DType::Complex64,
        DType::Complex128,
        DType::String,
    ];

    /// Bytes per element; `None` for strings, whose elements differ in length.
    pub const fn size(self) -> Option<usize> {
        Some(match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 | DType::Complex64 => 8,
            DType::Complex128 => 16,
            DType::String => return None,
        })
    }

    /// Alignment in bytes that a typed view of the elements needs.
    pub const fn alignment(self) -> usize {
        match self {
            DType::Complex64 => 4,
            DType::Complex128 => 8,
            DType::String => 1,
            other => match other.size() {
                Some(size) => size,
                None => 1,
            },
        }
    }

    /// True for the real floating-point types.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// True for the integer types; `Bool` is none of them.
    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            DType::U8
                | DType::U16
                | DType::U32
                | DType::U64
                | DType::I8
                | DType::I16
                | DType::I32
                | DType::I64
        )
    }

    /// The name as TensorFlow and NumPy write it: `float`, `int64`, `half`, `bool`, ...
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::U16 => "uint16",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
            DType::I8 => "int8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::F16 => "half",
            DType::BF16 => "bfloat16",
            DType::F32 => "float",
            DType::F64 => "double",
            DType::Complex64 => "complex64",
            DType::Complex128 => "complex128",
            DType::String => "string",
        }
    }
}

impl DType {
    /// The type of that [`DType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

/// As its name.
impl Serialize for DType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for DType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            de::Error::custom(format!("unknown dtype `{name}`, expected one of {}", names.join(", ")))
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that can stand in a tensor's memory.
///
/// Sealed by [`super::buffer::Plain`]: any bit pattern of the type's size is a valid value,
/// except for `bool`, whose bytes are checked wherever they come from outside.
pub trait Element: super::buffer::Plain + Send + Sync + fmt::Debug + PartialEq + Default + 'static {
    /// The tag of this type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $tag:ident),* $(,)?) => {
        $(impl Element for $rust {
            const DTYPE: DType = DType::$tag;
        })*
    };
}

elements! {
    bool => Bool, u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
    [f32; 2] => Complex64, [f64; 2] => Complex128,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_with_the_rust_types() {
        fn check<T: Element>() {
            assert_eq!(T::DTYPE.size(), Some(size_of::<T>()), "{}", T::DTYPE);
            assert_eq!(T::DTYPE.alignment(), align_of::<T>(), "{}", T::DTYPE);
        }
        check::<bool>();
        check::<u8>();
        check::<i16>();
        check::<u32>();
        check::<i64>();
        check::<f16>();
        check::<bf16>();
        check::<f32>();
        check::<f64>();
        check::<[f32; 2]>();
        check::<[f64; 2]>();
        assert_eq!(DType::String.size(), None);
    }

    #[test]
    fn names_are_read_back() {
        for dtype in DType::ALL {
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
            assert_eq!(serde_json::from_str::<DType>(&format!("\"{dtype}\"")).unwrap(), dtype);
        }
        let error = serde_json::from_str::<DType>("\"float32\"").unwrap_err().to_string();
        assert!(error.contains("unknown dtype `float32`, expected one of bool, uint8"), "{error}");
    }
}
