//! NumPy's archives of arrays (`.npz`): named tensors in a file, for running models by hand.
//!
//! An archive is a zip file (`zip`) of `.npy` arrays (`npy`), stored or deflated. Sizes come from the file and are
//! checked before anything is allocated for them.

mod npy;
mod zip;

use super::FormatError;
use crate::tensor::Tensor;
use std::{collections::BTreeMap, path::Path};

/// The arrays of an archive by name, without `.npy`.
///
/// # Errors
/// What is wrong with the file, or with which of its arrays.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, FormatError> {
    let file = std::fs::read(path).map_err(|error| FormatError::io(path, &error))?;
    parse(&file).map_err(|reason| FormatError::invalid(path, reason))
}

/// Writes an archive that NumPy reads. Strings become fixed-width byte strings.
///
/// # Errors
/// When the file cannot be written, or a tensor's type has no place in NumPy's format.
pub fn write<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), FormatError> {
    let file = archive(arrays).map_err(|reason| FormatError::invalid(path, reason))?;
    std::fs::write(path, file).map_err(|error| FormatError::io(path, &error))
}

fn parse(file: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let mut arrays = BTreeMap::new();
    for member in zip::members(file)? {
        let Some(name) = member.name.strip_suffix(".npy") else { continue };
        let bytes = zip::contents(file, &member)?;
        let tensor = npy::parse(&bytes).map_err(|reason| format!("array \"{name}\": {reason}"))?;
        arrays.insert(name.to_owned(), tensor);
    }
    Ok(arrays)
}

fn archive<'a>(arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<u8>, String> {
    let mut writer = zip::Writer::default();
    for (name, tensor) in arrays {
        let array = npy::write(tensor).map_err(|reason| format!("array \"{name}\": {reason}"))?;
        writer.add(&format!("{name}.npy"), &array)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Bytes, DType};
    use proptest::prelude::*;

    /// `np.savez_compressed(f, a=np.array([[1.5], [-2]], np.float32))` by NumPy 2.4.6.
    const COMPRESSED: &[u8] = include_bytes!("../../../tests/fixtures/compressed.npz");
    /// `np.savez(f, b=np.asfortranarray([[1, 2], [3, 4]], np.int64), s=np.array([b"ab", b"c"]), u=np.array("ü"))`.
    const STORED: &[u8] = include_bytes!("../../../tests/fixtures/stored.npz");

    #[test]
    fn numpy_archives_are_read() {
        let arrays = parse(COMPRESSED).unwrap();
        assert_eq!(arrays["a"], Tensor::from_slice([2, 1], &[1.5f32, -2.0]).unwrap());
        let arrays = parse(STORED).unwrap();
        assert_eq!(arrays["b"], Tensor::from_slice([2, 2], &[1i64, 2, 3, 4]).unwrap());
        let strings = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        assert_eq!(arrays["s"], Tensor::from_strings([2], strings).unwrap());
        assert_eq!(arrays["u"].as_strings().unwrap(), ["ü".as_bytes()]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let arrays = [
            ("x", Tensor::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap()),
            ("n", Tensor::scalar(7i32)),
            ("none", Tensor::empty(DType::F64)),
            ("s", Tensor::from_strings([1], vec![Bytes::from_static(b"kinglet")]).unwrap()),
        ];
        let file = archive(arrays.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        let read = parse(&file).unwrap();
        for (name, tensor) in arrays {
            assert_eq!(read[name], tensor, "{name}");
        }
    }

    #[test]
    fn files_that_are_no_archives_are_named() {
        assert!(parse(b"").unwrap_err().contains("not a zip file"));
        assert!(parse(&COMPRESSED[..COMPRESSED.len() / 2]).is_err());
    }

    proptest! {
        /// Whatever is changed: an answer, and no allocation beyond what the bytes can hold.
        #[test]
        fn damaged_archives_never_panic(
            changes in prop::collection::vec((0usize..4096, any::<u8>()), 1..8), cut in 0usize..4096, which: bool
        ) {
            let mut file = if which { COMPRESSED.to_vec() } else { STORED.to_vec() };
            for (at, byte) in changes {
                let len = file.len();
                file[at % len] = byte;
            }
            let _ = parse(&file);
            file.truncate(cut);
            let _ = parse(&file);
        }
    }
}
