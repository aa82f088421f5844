//! `model.safetensors`: named tensors in one file, used where it is mapped.
//!
//! The `safetensors` crate checks the header (lengths, gaps, overlaps, sizes against shapes); what
//! comes out here are slices of the mapping.

use crate::tensor::{Buffer, DType, Tensor};
use safetensors::{Dtype as FileDType, SafeTensorError, SafeTensors, tensor::TensorView};
use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

const DTYPES: &[(FileDType, DType)] = &[
    (FileDType::BOOL, DType::Bool),
    (FileDType::U8, DType::U8),
    (FileDType::U16, DType::U16),
    (FileDType::U32, DType::U32),
    (FileDType::U64, DType::U64),
    (FileDType::I8, DType::I8),
    (FileDType::I16, DType::I16),
    (FileDType::I32, DType::I32),
    (FileDType::I64, DType::I64),
    (FileDType::F16, DType::F16),
    (FileDType::BF16, DType::BF16),
    (FileDType::F32, DType::F32),
    (FileDType::F64, DType::F64),
    (FileDType::C64, DType::Complex64),
];

/// The tensors of a file; an error is one line without the file's name.
pub(in crate::formats) fn read(file: &Buffer) -> Result<BTreeMap<String, Tensor>, String> {
    let (header, metadata) =
        SafeTensors::read_metadata(file.as_bytes()).map_err(|error| explain(&error, file.len()))?;
    // The length of the header stands before it, in eight bytes.
    let data = header + size_of::<u64>();
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let dtype = DTYPES.iter().find(|(file_dtype, _)| *file_dtype == info.dtype);
        let Some(&(_, dtype)) = dtype else {
            return Err(format!("tensor \"{name}\" is {:?}, which is not supported", info.dtype));
        };
        let (begin, end) = info.data_offsets;
        let buffer = file
            .slice(data.saturating_add(begin), end.saturating_sub(begin))
            .ok_or_else(|| format!("tensor \"{name}\" reaches beyond the end of the file"))?;
        let tensor = Tensor::from_buffer(dtype, info.shape.as_slice(), buffer)
            .map_err(|error| format!("tensor \"{name}\": {error}"))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn explain(error: &SafeTensorError, len: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall => format!("{len} bytes are too few for a safetensors file"),
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge => {
            "the header is longer than the file or than 100 MB".into()
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "the tensors of the header do not add up to the length of the file; is it truncated?".into()
        }
        other => format!("no valid safetensors file: {other}"),
    }
}

/// True for dtypes that the file format has.
pub(super) fn can_hold(dtype: DType) -> bool {
    DTYPES.iter().any(|&(_, known)| known == dtype)
}

/// Writes tensors whose dtypes it [`can_hold`].
pub(super) fn write(tensors: &BTreeMap<String, Tensor>, path: &Path) -> std::io::Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = DTYPES.iter().find(|&&(_, dtype)| dtype == tensor.dtype());
        let &(dtype, _) = dtype.ok_or_else(|| std::io::Error::other(format!("{} tensor", tensor.dtype())))?;
        let view = TensorView::new(dtype, tensor.shape().to_vec(), tensor.as_bytes());
        views.push((name.as_str(), view.map_err(std::io::Error::other)?));
    }
    safetensors::serialize_to_file(views, None, path).map_err(std::io::Error::other)?;
    let file = File::options().append(true).open(path)?;
    (&file).flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file by the format's definition, not by the crate that writes ours.
    fn file(header: &str, data: &[u8]) -> Buffer {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        Buffer::copy_of(&bytes).unwrap()
    }

    #[test]
    fn tensors_are_slices_of_the_file() {
        let header = concat!(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"#,
            r#""b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}"#
        );
        // Writers pad the header with blanks so that the data is aligned.
        let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
        let mut data = Vec::new();
        data.extend([1.5f32, -2.0].into_iter().flat_map(f32::to_le_bytes));
        data.extend((-7i64).to_le_bytes());
        let file = file(&header, &data);
        let tensors = read(&file).unwrap();
        assert_eq!(tensors["a"], Tensor::from_slice([2], &[1.5f32, -2.0]).unwrap());
        assert_eq!(tensors["b"], Tensor::scalar(-7i64));
        assert!(file.as_bytes().as_ptr_range().contains(&tensors["a"].as_bytes().as_ptr()));
    }

    #[test]
    fn files_that_lie_are_refused() {
        let tensor = |shape: &str, begin: usize, end: usize| {
            file(
                &format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#),
                &[0; 8],
            )
        };
        assert!(read(&tensor("[2]", 0, 8)).is_ok());
        for bad in [
            tensor("[3]", 0, 8),
            tensor("[2]", 0, 16),
            tensor("[2]", 8, 0),
            tensor("[1]", 0, 4),
            tensor("[18446744073709551615,2]", 0, 8),
            file("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", &[0; 8]),
            Buffer::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff{}"),
            Buffer::from_static(b"\x10\0\0\0\0\0\0\0{}"),
            Buffer::from_static(b"1234"),
            Buffer::from_static(b""),
        ] {
            assert!(read(&bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(position in 0usize..120, byte: u8, cut in 0usize..120) {
            let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
            let mut bytes = file(header, &[1; 8]).as_bytes().to_vec();
            if let Some(slot) = bytes.get_mut(position) {
                *slot = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = read(&Buffer::copy_of(&bytes).unwrap());
        }
    }
}
