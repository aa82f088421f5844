//! `model.safetensors`: named tensors in one file, used where it is mapped.
//!
//! The `safetensors` crate checks the header (lengths, gaps, overlaps, sizes against shapes); what
//! comes out here are slices of the mapping.

use crate::tensor::{Buffer, DType, Tensor};
use safetensors::{Dtype as FileDType, SafeTensorError, SafeTensors};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

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

/// Members of the header's metadata.
const GRAPH_SUM: &str = "kinglet.graph.crc32c";
const DATA_SUM: &str = "kinglet.data.crc32c";

/// The data begins at a multiple of this, and so does every tensor whose length is one.
const ALIGNMENT: usize = 64;

/// The length of the header stands before it, in so many bytes.
const PREFIX: usize = size_of::<u64>();

/// Checksums (CRC-32C) that a file says to have been written with.
#[derive(Debug, PartialEq)]
pub(super) struct Sums {
    graph: u32,
    data: u32,
    /// Where the tensors are, which `data` covers too.
    places: Vec<u8>,
    begin: usize,
}

impl Sums {
    /// Whether `model.json` and the tensors are those that were written.
    pub(super) fn check_graph(&self, text: &str) -> Result<(), String> {
        let found = crc32c::crc32c(text.as_bytes());
        match found == self.graph {
            true => Ok(()),
            false => Err(format!(
                "this is not the text that the weights beside it were written with: its CRC-32C is {found:08x}, \
                 but {:08x} was written; one of the two files was changed or exchanged",
                self.graph
            )),
        }
    }

    /// Begins to sum up the tensors of a file.
    pub(super) fn data_of(&self, file: &Buffer) -> DataSum {
        let data = file.slice(self.begin, file.len().saturating_sub(self.begin));
        let data = data.unwrap_or_else(|| Buffer::from_static(&[]));
        let parts = data.len().div_ceil(SUMMED_AT_ONCE).min(MOST_PARTS);
        DataSum { data, sums: (0..parts).map(|_| OnceLock::new()).collect(), next: AtomicUsize::new(0) }
    }

    /// Whether names, shapes, places and data of the tensors are those that were written.
    pub(super) fn check_data(&self, data: &DataSum) -> Result<(), String> {
        let found = data.finish(crc32c::crc32c(&self.places));
        match found == self.data {
            true => Ok(()),
            false => Err(format!(
                "the tensors are not those that were written: their CRC-32C is {found:08x}, but {:08x} was written; \
                 the file is damaged or was changed",
                self.data
            )),
        }
    }
}

/// A thread sums up so much before it looks for more; and in how many parts a file is cut at most.
const SUMMED_AT_ONCE: usize = 1 << 20;
const MOST_PARTS: usize = 64;

/// The checksum of a file's tensors, which several threads find together.
pub(super) struct DataSum {
    data: Buffer,
    /// Of the parts.
    sums: Box<[OnceLock<u32>]>,
    /// The next part that nobody works at.
    next: AtomicUsize,
}

impl DataSum {
    /// Takes parts until there is none left.
    pub(super) fn work(&self) {
        let next =
            || Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < self.sums.len());
        while let Some(index) = next() {
            self.sums[index].get_or_init(|| self.sum(index));
        }
    }

    fn part(&self, index: usize) -> Buffer {
        let length = self.data.len().div_ceil(self.sums.len().max(1));
        let start = (index * length).min(self.data.len());
        let length = length.min(self.data.len() - start);
        self.data.slice(start, length).unwrap_or_else(|| Buffer::from_static(&[]))
    }

    fn sum(&self, index: usize) -> u32 {
        let part = self.part(index);
        part.prefetch();
        let sum = crc32c::crc32c(part.as_bytes());
        // What is read again is the smaller part of some files: tables.
        part.release();
        sum
    }

    /// The sum of something before and the data.
    fn finish(&self, before: u32) -> u32 {
        self.work();
        self.sums.iter().enumerate().fold(before, |sum, (index, part)| {
            let own = *part.get_or_init(|| self.sum(index));
            crc32c::crc32c_combine(sum, own, self.part(index).len())
        })
    }
}

/// The tensors of a file, and its checksums where it has some; an error is one line without the file's name.
pub(super) fn read(file: &Buffer) -> Result<(BTreeMap<String, Tensor>, Option<Sums>), String> {
    let (header, metadata) =
        SafeTensors::read_metadata(file.as_bytes()).map_err(|error| explain(&error, file.len()))?;
    let data = header + PREFIX;
    let mut tensors = BTreeMap::new();
    let mut places = Vec::new();
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
        places.push(place(&name, dtype, &info.shape, begin));
        tensors.insert(name, tensor);
    }
    places.sort_unstable();
    let sums = match metadata.metadata() {
        Some(members) if members.contains_key(GRAPH_SUM) || members.contains_key(DATA_SUM) => {
            let sum = |name: &str| {
                let digits = members.get(name).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                digits.ok_or_else(|| format!("the metadata has no checksum {name}"))
            };
            Some(Sums { graph: sum(GRAPH_SUM)?, data: sum(DATA_SUM)?, places: places.concat(), begin: data })
        }
        _ => None,
    };
    Ok((tensors, sums))
}

/// One tensor of the header as it is covered by the checksum.
fn place(name: &str, dtype: DType, shape: &[usize], begin: usize) -> Vec<u8> {
    format!("{name}\0{dtype} {shape:?} {begin}\n").into_bytes()
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

/// Writes tensors whose dtypes it [`can_hold`], with checksums of them and of `text`, the model.json beside, where
/// that is given.
pub(super) fn write(
    tensors: &BTreeMap<String, Tensor>,
    text: Option<&str>,
    path: &Path,
) -> std::io::Result<()> {
    let unknown = |dtype: DType| std::io::Error::other(format!("{dtype} has no place in the file"));
    // No gaps are allowed. Whole lines first, then by the size of elements: all of them lie aligned.
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| {
        let whole_lines = tensor.as_bytes().len().is_multiple_of(ALIGNMENT);
        (!whole_lines, std::cmp::Reverse(tensor.dtype().alignment()))
    });
    let mut header = serde_json::Map::new();
    let mut places = Vec::with_capacity(order.len());
    let mut end = 0;
    for (name, tensor) in &order {
        let begin = end;
        end += tensor.as_bytes().len();
        let file_dtype = DTYPES.iter().find(|&&(_, dtype)| dtype == tensor.dtype());
        let &(file_dtype, dtype) = file_dtype.ok_or_else(|| unknown(tensor.dtype()))?;
        let shape = tensor.shape().to_vec();
        places.push(place(name, dtype, &shape, begin));
        let info = json!({ "dtype": file_dtype, "shape": shape, "data_offsets": [begin, end] });
        header.insert((*name).clone(), info);
    }
    places.sort_unstable();
    let sum = crc32c::crc32c(&places.concat());
    let sum = order.iter().fold(sum, |sum, (_, tensor)| crc32c::crc32c_append(sum, tensor.as_bytes()));
    if let Some(text) = text {
        let graph = crc32c::crc32c(text.as_bytes());
        let metadata = json!({ GRAPH_SUM: format!("{graph:08x}"), DATA_SUM: format!("{sum:08x}") });
        header.insert("__metadata__".into(), metadata);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize((header.len() + PREFIX).next_multiple_of(ALIGNMENT) - PREFIX, b' ');
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, tensor) in order {
        file.write_all(tensor.as_bytes())?;
    }
    file.into_inner()?.sync_all()
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
        let (tensors, sums) = read(&file).unwrap();
        assert_eq!(sums, None);
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

    fn written() -> Vec<u8> {
        let tensors = BTreeMap::from([
            ("a".to_owned(), Tensor::from_slice([3], &[1u8, 2, 3]).unwrap()),
            ("b".to_owned(), Tensor::from_slice([2, 8], &[0.5f32; 16]).unwrap()),
            ("c".to_owned(), Tensor::from_slice([3], &[7i64, 8, 9]).unwrap()),
            ("d".to_owned(), Tensor::from_slice([3], &[7i64, 8, 9]).unwrap()),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        write(&tensors, Some("text"), &path).unwrap();
        let (read, sums) = read(&Buffer::map_file(&path).unwrap()).unwrap();
        assert_eq!(read, tensors);
        assert!(sums.unwrap().check_graph("text").is_ok());
        std::fs::read(path).unwrap()
    }

    /// Whether a file is read and its data are what its checksum says.
    fn holds(bytes: &[u8]) -> bool {
        let file = Buffer::copy_of(bytes).unwrap();
        let Ok((_, Some(sums))) = read(&file) else { return false };
        sums.check_data(&sums.data_of(&file)).is_ok() && sums.check_graph("text").is_ok()
    }

    #[test]
    fn tensors_lie_aligned_and_other_tools_read_them() {
        let bytes = written();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!((header + PREFIX) % ALIGNMENT, 0);
        let place = |name: &str| file.tensor(name).unwrap().data().as_ptr().addr() - bytes.as_ptr().addr();
        assert_eq!((place("b") % ALIGNMENT, place("c") % 8), (0, 0));
    }

    /// Every bit of the data and of what names it is covered.
    #[test]
    fn one_changed_bit_is_found() {
        let bytes = written();
        assert!(holds(&bytes));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            let blank = bytes[position] == b' ' || matches!(bytes[position], b'{' | b'}' | b',' | b'[');
            assert!(!holds(&changed) || blank, "byte {position}");
        }
        for length in 0..bytes.len() {
            assert!(!holds(&bytes[..length]), "{length} bytes");
        }
        assert!(!holds(&[&bytes[..], b"more"].concat()));
    }

    #[test]
    fn threads_find_the_sum_of_all_bytes() {
        for length in [0, 1, SUMMED_AT_ONCE, 3 * SUMMED_AT_ONCE + 5, 70 * SUMMED_AT_ONCE + 1] {
            let bytes: Vec<u8> = (0..length).map(|index| (index / 251 + index) as u8).collect();
            let file = Buffer::copy_of(&bytes).unwrap();
            let begin = length.min(3);
            let sums = Sums { graph: 0, data: 0, places: Vec::new(), begin };
            let data = sums.data_of(&file);
            let before = crc32c::crc32c(b"before");
            std::thread::scope(|scope| {
                scope.spawn(|| data.work());
                assert_eq!(data.finish(before), crc32c::crc32c_append(before, &bytes[begin..]), "{length}");
            });
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
