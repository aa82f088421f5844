//! TensorFlow's numbers for element types, as they stand in signatures and tensor messages.

use crate::{proto::tensorflow::DataType, tensor::DType};

const PAIRS: [(DType, DataType); 16] = [
    (DType::Bool, DataType::DtBool),
    (DType::U8, DataType::DtUint8),
    (DType::U16, DataType::DtUint16),
    (DType::U32, DataType::DtUint32),
    (DType::U64, DataType::DtUint64),
    (DType::I8, DataType::DtInt8),
    (DType::I16, DataType::DtInt16),
    (DType::I32, DataType::DtInt32),
    (DType::I64, DataType::DtInt64),
    (DType::F16, DataType::DtHalf),
    (DType::BF16, DataType::DtBfloat16),
    (DType::F32, DataType::DtFloat),
    (DType::F64, DataType::DtDouble),
    (DType::Complex64, DataType::DtComplex64),
    (DType::Complex128, DataType::DtComplex128),
    (DType::String, DataType::DtString),
];

/// TensorFlow's tag of an element type.
pub fn data_type(dtype: DType) -> DataType {
    PAIRS.iter().find(|(ours, _)| *ours == dtype).map_or(DataType::DtInvalid, |(_, theirs)| *theirs)
}

/// The element type with TensorFlow's number `tag`; `None` for quantised types, resources,
/// references (`DT_FLOAT_REF`, ...) and numbers that mean nothing.
pub fn dtype_of(tag: i32) -> Option<DType> {
    PAIRS.iter().find(|(_, theirs)| *theirs as i32 == tag).map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_has_its_own_number() {
        for dtype in DType::ALL {
            assert_eq!(dtype_of(data_type(dtype) as i32), Some(dtype), "{dtype}");
        }
    }

    #[test]
    fn numbers_without_a_type_are_none() {
        for tag in [0, -1, 11, 20, 21, 24, 101, 1000] {
            assert_eq!(dtype_of(tag), None, "{tag}");
        }
    }
}
