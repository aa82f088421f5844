//! Variables: a table of tensor names, and data files that are mapped, not read.
//!
//! Weights become slices of the mapping, so loading copies nothing that is aligned in the file.
//! Each tensor's CRC-32C is checked when it is taken: with the CPU's instruction that costs about
//! as much as reading the pages, which packing the weights does anyway.

use super::{
    table::{self, mask, varint},
    tensor_proto::{concrete_shape, dtype_of},
};
use crate::{
    formats::FormatError,
    proto::tensorflow::{
        BundleEntryProto, BundleHeaderProto, TensorSliceProto, bundle_header_proto::Endianness,
        tensor_slice_proto::Extent,
    },
    tensor::{Buffer, Bytes, DType, Shape, Tensor, buffer::AlignedBytes},
};
use prost::Message;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Shards that a bundle may have; each is an open mapping.
const MAX_SHARDS: i32 = 4096;
/// TensorFlow's mark for the whole extent of a dimension.
const WHOLE: i64 = -1;

/// The checkpoint of a SavedModel, open for reading.
#[derive(Debug)]
pub(super) struct Bundle {
    prefix: PathBuf,
    index: PathBuf,
    entries: BTreeMap<Vec<u8>, BundleEntryProto>,
    shards: Vec<Buffer>,
}

impl Bundle {
    /// Opens `<prefix>.index` and its data files.
    pub(super) fn open(prefix: &Path) -> Result<Self, FormatError> {
        let index = with_suffix(prefix, ".index");
        let file = Buffer::map_file(&index).map_err(|error| FormatError::io(&index, &error))?;
        let invalid = |reason: String| FormatError::invalid(&index, reason);
        let mut header = None;
        let mut entries = BTreeMap::new();
        for (key, value) in table::entries(file.as_bytes()).map_err(|error| invalid(error.to_string()))? {
            if key.is_empty() {
                let decoded = BundleHeaderProto::decode(value.as_slice());
                header = Some(decoded.map_err(|error| invalid(format!("the header: {error}")))?);
            } else {
                let name = String::from_utf8_lossy(&key).into_owned();
                let entry = BundleEntryProto::decode(value.as_slice());
                entries.insert(key, entry.map_err(|error| invalid(format!("the entry of {name}: {error}")))?);
            }
        }
        let header = header.ok_or_else(|| invalid("the header is missing".to_owned()))?;
        if header.endianness == i32::from(Endianness::Big) {
            return Err(FormatError::unsupported(
                &index,
                "the variables are big-endian; export the model on a little-endian machine",
            ));
        }
        if !(0..=MAX_SHARDS).contains(&header.num_shards) {
            return Err(invalid(format!("{} data files, expected 1 to {MAX_SHARDS}", header.num_shards)));
        }
        let shards = (0..header.num_shards).map(|shard| {
            let path = shard_path(prefix, shard, header.num_shards);
            Buffer::map_file(&path).map_err(|error| FormatError::io(&path, &error))
        });
        let shards = shards.collect::<Result<_, _>>()?;
        Ok(Self { prefix: prefix.to_owned(), index, entries, shards })
    }

    /// Names of all tensors, without the parts of partitioned ones.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().filter(|key| key[0] != 0).filter_map(|key| std::str::from_utf8(key).ok())
    }

    /// The tensor of that name, or the part of it that `slice` names in the form of RestoreV2's
    /// `shape_and_slices`: empty for all, else dimensions and `start,length` per dimension, as in
    /// `10 4 0,5:-`.
    pub(super) fn tensor(&self, name: &str, slice: &str) -> Result<Tensor, FormatError> {
        let entry = self.entries.get(name.as_bytes()).ok_or_else(|| {
            FormatError::invalid(
                &self.index,
                format!("there is no variable named \"{name}\" in the checkpoint"),
            )
        })?;
        let whole = match entry.slices.as_slice() {
            [] => self.read(name, entry)?,
            slices => self.assemble(name, entry, slices)?,
        };
        if slice.is_empty() {
            return Ok(whole);
        }
        let bad =
            || FormatError::invalid(&self.index, format!("variable \"{name}\" has no slice \"{slice}\""));
        let extents = parse_slice(slice).ok_or_else(bad)?;
        let ranges = ranges(whole.shape(), &extents).ok_or_else(bad)?;
        if ranges.iter().zip(whole.shape().iter()).all(|(range, &dim)| *range == (0, dim)) {
            return Ok(whole);
        }
        let (Some(size), Some(source)) = (whole.dtype().size(), whole.buffer()) else { return Err(bad()) };
        let shape: Shape = ranges.iter().map(|&(_, len)| len).collect();
        let mut part = AlignedBytes::zeroed(shape.elements().saturating_mul(size)).map_err(|_| bad())?;
        let from = source.as_bytes();
        copy_rows(whole.shape(), &ranges, size, |whole_at, part_at, len| {
            part.as_mut_slice()[part_at..part_at + len].copy_from_slice(&from[whole_at..whole_at + len]);
        });
        Tensor::from_buffer(whole.dtype(), shape, Buffer::from_aligned(Arc::new(part))).map_err(|_| bad())
    }

    fn invalid(&self, name: &str, reason: impl std::fmt::Display) -> FormatError {
        FormatError::invalid(&self.index, format!("variable \"{name}\": {reason}"))
    }

    /// A tensor that stands in one piece.
    fn read(&self, name: &str, entry: &BundleEntryProto) -> Result<Tensor, FormatError> {
        let (dtype, shape) = self.kind(name, entry)?;
        let shard = usize::try_from(entry.shard_id).ok().and_then(|shard| self.shards.get(shard));
        let data = shard
            .zip(usize::try_from(entry.offset).ok().zip(usize::try_from(entry.size).ok()))
            .and_then(|(shard, (offset, size))| shard.slice(offset, size))
            .ok_or_else(|| {
                let BundleEntryProto { offset, size, shard_id, .. } = entry;
                self.invalid(name, format!("{size} bytes at {offset} of data file {shard_id} do not exist"))
            })?;
        let elements = shape.checked_elements();
        let Some(size) = dtype.size() else {
            return self.strings(name, entry, shape, data.as_bytes());
        };
        if elements.and_then(|elements| elements.checked_mul(size)) != Some(data.len()) {
            let found = data.len();
            return Err(self.invalid(name, format!("{found} bytes do not fit shape {shape} of {dtype}")));
        }
        self.check(name, entry, crc32c::crc32c(data.as_bytes()))?;
        // All of the file would else be in memory before the first weight is packed.
        data.release();
        Tensor::from_buffer(dtype, shape, data).map_err(|error| self.invalid(name, error))
    }

    fn kind(&self, name: &str, entry: &BundleEntryProto) -> Result<(DType, Shape), FormatError> {
        let dtype = dtype_of(entry.dtype)
            .ok_or_else(|| self.invalid(name, format!("element type {} is not supported", entry.dtype)))?;
        let shape = match &entry.shape {
            Some(shape) => concrete_shape(shape),
            None => Some(Shape::scalar()),
        };
        Ok((dtype, shape.ok_or_else(|| self.invalid(name, "the shape is unknown or negative"))?))
    }

    fn check(&self, name: &str, entry: &BundleEntryProto, crc: u32) -> Result<(), FormatError> {
        if mask(crc) == entry.crc32c {
            return Ok(());
        }
        let file = shard_path(&self.prefix, entry.shard_id, self.shards.len() as i32);
        Err(FormatError::invalid(
            file,
            format!("variable \"{name}\" fails its checksum; the file is corrupt"),
        ))
    }

    /// Strings: their lengths as varints, a checksum of the lengths, then the strings.
    fn strings(
        &self,
        name: &str,
        entry: &BundleEntryProto,
        shape: Shape,
        data: &[u8],
    ) -> Result<Tensor, FormatError> {
        let malformed = || self.invalid(name, format!("the strings do not fit shape {shape}"));
        let elements = shape.checked_elements().ok_or_else(malformed)?;
        let mut rest = data;
        // Each string takes a byte for its length at least.
        let mut lengths = Vec::new();
        lengths.try_reserve_exact(elements.min(data.len())).map_err(|_| malformed())?;
        let mut crc = 0;
        for _ in 0..elements {
            let length = varint(&mut rest).ok_or_else(malformed)?;
            crc = match u32::try_from(length) {
                Ok(short) => crc32c::crc32c_append(crc, &short.to_le_bytes()),
                Err(_) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
            };
            lengths.push(usize::try_from(length).map_err(|_| malformed())?);
        }
        let (stored, mut rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        if mask(crc) != u32::from_le_bytes(*stored) {
            return Err(self.invalid(name, "the lengths of the strings fail their checksum"));
        }
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, stored), rest);
        self.check(name, entry, crc)?;
        let mut values = Vec::with_capacity(lengths.len());
        for length in lengths {
            let (value, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
            values.push(Bytes::copy_from_slice(value));
            rest = after;
        }
        Tensor::from_strings(shape.clone(), values).map_err(|_| malformed())
    }

    /// A partitioned variable: its parts are entries of their own and are copied together.
    fn assemble(
        &self,
        name: &str,
        entry: &BundleEntryProto,
        slices: &[TensorSliceProto],
    ) -> Result<Tensor, FormatError> {
        let (dtype, shape) = self.kind(name, entry)?;
        let bad = || self.invalid(name, "its slices do not make up the variable");
        let size = dtype.size().ok_or_else(bad)?;
        let bytes =
            shape.checked_elements().and_then(|elements| elements.checked_mul(size)).ok_or_else(bad)?;
        let mut parts = Vec::new();
        let mut stored = 0usize;
        for slice in slices {
            let key = slice_key(name, slice);
            let part = self.entries.get(&key).filter(|part| part.slices.is_empty()).ok_or_else(bad)?;
            let part = self.read(name, part)?;
            let ranges = ranges(&shape, &extents(slice)).ok_or_else(bad)?;
            let fits = part.dtype() == dtype && part.shape().iter().eq(ranges.iter().map(|(_, len)| len));
            stored = stored.saturating_add(part.as_bytes().len());
            if !fits {
                return Err(bad());
            }
            parts.push((part, ranges));
        }
        // Before anything of that size is allocated: the parts must be there.
        if stored != bytes {
            return Err(bad());
        }
        let mut whole = AlignedBytes::zeroed(bytes).map_err(|error| self.invalid(name, error))?;
        for (part, ranges) in parts {
            let from = part.as_bytes();
            copy_rows(&shape, &ranges, size, |whole_at, part_at, len| {
                whole.as_mut_slice()[whole_at..whole_at + len].copy_from_slice(&from[part_at..part_at + len]);
            });
        }
        let whole = Buffer::from_aligned(Arc::new(whole));
        Tensor::from_buffer(dtype, shape, whole).map_err(|error| self.invalid(name, error))
    }
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

fn shard_path(prefix: &Path, shard: i32, shards: i32) -> PathBuf {
    with_suffix(prefix, &format!(".data-{shard:05}-of-{shards:05}"))
}

fn extents(slice: &TensorSliceProto) -> Vec<(i64, i64)> {
    slice.extent.iter().map(|extent| (extent.start, extent_length(extent))).collect()
}

/// An absent length, which reads as 0, means the whole dimension (tensor_slice.proto).
fn extent_length(extent: &Extent) -> i64 {
    if extent.length == 0 { WHOLE } else { extent.length }
}

/// `10 4 0,5:-` as `[(0, 5), (0, -1)]`.
fn parse_slice(text: &str) -> Option<Vec<(i64, i64)>> {
    let extents = text.rsplit(' ').next()?;
    extents
        .split(':')
        .map(|extent| match extent {
            "-" => Some((0, WHOLE)),
            _ => {
                let (start, length) = extent.split_once(',')?;
                Some((start.parse().ok()?, length.parse().ok()?))
            }
        })
        .collect()
}

/// Start and length per dimension, within `shape`.
fn ranges(shape: &Shape, extents: &[(i64, i64)]) -> Option<Vec<(usize, usize)>> {
    if extents.len() != shape.len() {
        return None;
    }
    let range = |(&(start, length), &dim): (&(i64, i64), &usize)| {
        if length == WHOLE {
            return Some((0, dim));
        }
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
        (start.checked_add(length)? <= dim).then_some((start, length))
    };
    extents.iter().zip(shape.iter()).map(range).collect()
}

/// Calls `copy` with (byte in the whole, byte in the part, bytes) for each contiguous row of a part.
fn copy_rows(
    shape: &Shape,
    ranges: &[(usize, usize)],
    size: usize,
    mut copy: impl FnMut(usize, usize, usize),
) {
    let Some((&(first, row), outer)) = ranges.split_last() else {
        return copy(0, 0, size);
    };
    if ranges.iter().any(|&(_, len)| len == 0) {
        return;
    }
    let mut position = vec![0; outer.len()];
    let mut part_at = 0;
    loop {
        let mut whole_at = 0;
        for ((&(start, _), &offset), &dim) in outer.iter().zip(&position).zip(shape.iter()) {
            whole_at = whole_at * dim + start + offset;
        }
        let innermost = shape.last().copied().unwrap_or(1);
        copy((whole_at * innermost + first) * size, part_at, row * size);
        part_at += row * size;
        let mut axis = outer.len();
        loop {
            let Some(next) = axis.checked_sub(1) else { return };
            axis = next;
            position[axis] += 1;
            if position[axis] < outer[axis].1 {
                break;
            }
            position[axis] = 0;
        }
    }
}

/// The key of one part of a partitioned variable: ordered-code of 0, the name, the rank, and start
/// and length of each dimension.
fn slice_key(name: &str, slice: &TensorSliceProto) -> Vec<u8> {
    let mut key = vec![0];
    for byte in name.bytes() {
        match byte {
            0 => key.extend_from_slice(&[0, 0xff]),
            0xff => key.extend_from_slice(&[0xff, 0]),
            byte => key.push(byte),
        }
    }
    key.extend_from_slice(&[0, 1]);
    let rank = (slice.extent.len() as u64).to_be_bytes();
    let significant = &rank[rank.iter().take_while(|&&byte| byte == 0).count()..];
    key.push(significant.len() as u8);
    key.extend_from_slice(significant);
    for extent in &slice.extent {
        put_signed(&mut key, extent.start);
        put_signed(&mut key, extent_length(extent));
    }
    key
}

/// A signed number in ordered-code: the count of leading one bits tells the length, the sign flips it.
fn put_signed(key: &mut Vec<u8>, value: i64) {
    let magnitude = if value < 0 { !value } else { value };
    let bits = 64 - magnitude.leading_zeros() as usize;
    let length = bits / 7 + 1;
    let mut bytes = [if value < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    let encoded = &mut bytes[10 - length..];
    // The header has `length` one bits from the top.
    let header = !(u16::MAX >> length);
    encoded[0] ^= (header >> 8) as u8;
    if let Some(second) = encoded.get_mut(1) {
        *second ^= header as u8;
    }
    key.extend_from_slice(encoded);
}

#[cfg(test)]
mod tests {
    use super::{super::table::tests::table, *};
    use crate::proto::tensorflow::{DataType, TensorShapeProto, tensor_shape_proto::Dim};
    use std::fs;

    fn shape(dims: &[i64]) -> Option<TensorShapeProto> {
        let dim = dims.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
        Some(TensorShapeProto { dim, unknown_rank: false })
    }

    fn slice(extents: &[(i64, i64)]) -> TensorSliceProto {
        let extent = extents.iter().map(|&(start, length)| Extent { start, length }).collect();
        TensorSliceProto { extent }
    }

    fn entry(dtype: DataType, dims: &[i64], shard_id: i32, offset: usize, data: &[u8]) -> BundleEntryProto {
        BundleEntryProto {
            dtype: dtype.into(),
            shape: shape(dims),
            shard_id,
            offset: offset as i64,
            size: data.len() as i64,
            crc32c: mask(crc32c::crc32c(data)),
            slices: Vec::new(),
        }
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(header: BundleHeaderProto, entries: Vec<(Vec<u8>, BundleEntryProto)>, data: &[&[u8]]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut all = vec![(Vec::new(), header.encode_to_vec())];
            all.extend(entries.into_iter().map(|(key, entry)| (key, entry.encode_to_vec())));
            all.sort();
            fs::write(folder.path().join("v.index"), table(&all, true)).unwrap();
            for (shard, data) in data.iter().enumerate() {
                let prefix = folder.path().join("v");
                fs::write(shard_path(&prefix, shard as i32, header.num_shards), data).unwrap();
            }
            Self(folder)
        }

        fn open(&self) -> Result<Bundle, FormatError> {
            Bundle::open(&self.0.path().join("v"))
        }
    }

    fn header(num_shards: i32) -> BundleHeaderProto {
        BundleHeaderProto { num_shards, ..BundleHeaderProto::default() }
    }

    #[test]
    fn tensors_of_several_shards_are_read() {
        let (a, b) = (1.5f32.to_le_bytes(), [7u8, 0, 0, 0, 0, 0, 0, 0]);
        let folder = Folder::new(
            header(2),
            vec![
                (b"a".to_vec(), entry(DataType::DtFloat, &[1], 0, 0, &a)),
                (b"b".to_vec(), entry(DataType::DtInt64, &[], 1, 0, &b)),
            ],
            &[&a, &b],
        );
        let bundle = folder.open().unwrap();
        assert_eq!(bundle.tensor("a", "").unwrap().as_slice::<f32>().unwrap(), [1.5]);
        assert_eq!(bundle.tensor("b", "").unwrap().as_slice::<i64>().unwrap(), [7]);
        assert!(bundle.tensor("c", "").unwrap_err().to_string().contains("no variable named \"c\""));
        assert_eq!(bundle.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn lying_entries_and_missing_shards_are_errors() {
        let data = [0u8; 16];
        let good = entry(DataType::DtFloat, &[4], 0, 0, &data);
        let lies = [
            BundleEntryProto { offset: -4, ..good.clone() },
            BundleEntryProto { offset: 4, ..good.clone() },
            BundleEntryProto { size: i64::MAX, ..good.clone() },
            BundleEntryProto { size: 12, ..good.clone() },
            BundleEntryProto { shape: shape(&[1_000_000_000]), ..good.clone() },
            BundleEntryProto { shape: shape(&[i64::MAX, i64::MAX]), ..good.clone() },
            BundleEntryProto { shape: shape(&[-1]), ..good.clone() },
            BundleEntryProto { shard_id: 1, ..good.clone() },
            BundleEntryProto { crc32c: 1, ..good.clone() },
            BundleEntryProto { dtype: 20, ..good.clone() },
            BundleEntryProto { dtype: DataType::DtString.into(), ..good.clone() },
            BundleEntryProto { slices: vec![slice(&[(0, 4)])], ..good.clone() },
        ];
        for lie in lies {
            let folder = Folder::new(header(1), vec![(b"x".to_vec(), lie.clone())], &[&data]);
            assert!(folder.open().unwrap().tensor("x", "").is_err(), "{lie:?}");
        }
        let missing = Folder::new(header(2), vec![(b"x".to_vec(), good.clone())], &[&data]);
        assert!(missing.open().unwrap_err().to_string().contains("v.data-00001-of-00002"));
        let big = BundleHeaderProto { endianness: Endianness::Big.into(), ..header(1) };
        let big = Folder::new(big, vec![(b"x".to_vec(), good)], &[&data]);
        assert!(big.open().unwrap_err().to_string().contains("big-endian"));
    }

    #[test]
    fn strings_are_checked_and_split() {
        let mut data = vec![3, 0];
        let lengths = crc32c::crc32c_append(crc32c::crc32c(&3u32.to_le_bytes()), &0u32.to_le_bytes());
        let checksum = mask(lengths).to_le_bytes();
        data.extend_from_slice(&checksum);
        data.extend_from_slice(b"abc");
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(lengths, &checksum), b"abc");
        let mut words = entry(DataType::DtString, &[2], 0, 0, &data);
        words.crc32c = mask(crc);
        let folder = Folder::new(header(1), vec![(b"w".to_vec(), words.clone())], &[&data]);
        let tensor = folder.open().unwrap().tensor("w", "").unwrap();
        assert_eq!(tensor.as_strings().unwrap(), ["abc", ""]);
        words.shape = shape(&[1 << 40]);
        let folder = Folder::new(header(1), vec![(b"w".to_vec(), words)], &[&data]);
        assert!(folder.open().unwrap().tensor("w", "").is_err());
    }

    #[test]
    fn partitioned_variables_are_put_together() {
        let floats =
            |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (left, right) = (floats(&[1.0, 3.0]), floats(&[2.0, 4.0]));
        let data = [left.clone(), right.clone()].concat();
        let parts = [slice(&[(0, 0), (0, 1)]), slice(&[(0, 0), (1, 1)])];
        let whole = BundleEntryProto {
            slices: parts.to_vec(),
            ..BundleEntryProto { size: 0, ..entry(DataType::DtFloat, &[2, 2], 0, 0, &[]) }
        };
        let entries = vec![
            (b"v".to_vec(), whole),
            (slice_key("v", &parts[0]), entry(DataType::DtFloat, &[2, 1], 0, 0, &left)),
            (slice_key("v", &parts[1]), entry(DataType::DtFloat, &[2, 1], 0, left.len(), &right)),
        ];
        let folder = Folder::new(header(1), entries, &[&data]);
        let bundle = folder.open().unwrap();
        assert_eq!(bundle.tensor("v", "").unwrap().as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(bundle.tensor("v", "2 2 -:1,1").unwrap().as_slice::<f32>().unwrap(), [2.0, 4.0]);
        assert_eq!(bundle.tensor("v", "2 2 1,1:-").unwrap().as_slice::<f32>().unwrap(), [3.0, 4.0]);
        assert!(bundle.tensor("v", "2 2 1,2:-").is_err());
        assert!(bundle.tensor("v", "nonsense").is_err());
        assert_eq!(bundle.names().collect::<Vec<_>>(), ["v"]);
    }

    #[test]
    fn ordered_code_of_signed_numbers() {
        let code = |value| {
            let mut key = Vec::new();
            put_signed(&mut key, value);
            key
        };
        assert_eq!(code(0), [0x80]);
        assert_eq!(code(-1), [0x7f]);
        assert_eq!(code(63), [0xbf]);
        assert_eq!(code(64), [0xc0, 0x40]);
        assert_eq!(code(-65), [0x3f, 0xbf]);
        let values = [i64::MIN, -8193, -8192, -65, -64, -1, 0, 63, 64, 8191, 8192, 1 << 40, i64::MAX];
        assert!(values.windows(2).all(|pair| code(pair[0]) < code(pair[1])), "order is kept");
    }
}
