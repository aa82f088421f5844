//! What integration tests share: recorded arrays, running a signature, comparing with a recording.

#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use kinglet::{
    formats::LoadedSignature,
    graph::{Backend, Cpu, GraphError, RunOptions},
    kernels::{self, Threads},
    tensor::{Buffer, DType, Tensor},
};
use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

/// The folder of shared models; `None`, said loudly, where it is absent.
pub(crate) fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = env::var_os("KINGLET_SHARED").map_or(default, PathBuf::from);
    if path.join("models").is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} has no models; set KINGLET_SHARED", path.display());
    None
}

/// The folder of unpacked models for timing (`perf/unpack.py`); `None` where it is absent.
pub(crate) fn perf_models() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf_models");
    let path = env::var_os("KINGLET_PERF_MODELS").map_or(default, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is no folder; unpack perf/ and set KINGLET_PERF_MODELS", path.display());
    None
}

/// The outputs of a signature by alias; inputs by alias too.
pub(crate) fn run(
    signature: &LoadedSignature,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, GraphError> {
    run_on(Cpu::new(kernels::best(), Threads::single()), signature, inputs)
}

/// The same on another backend.
pub(crate) fn run_on(
    cpu: Cpu,
    signature: &LoadedSignature,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, GraphError> {
    let program = cpu.compile(signature.graph.clone())?;
    let inputs: Vec<Tensor> = signature
        .inputs
        .iter()
        .map(|input| inputs.get(&input.name).or(signature.defaults.get(&input.name)).cloned())
        .map(|input| input.expect("an input is missing"))
        .collect();
    let mut outputs = Vec::new();
    program.run(&inputs, &mut outputs, &RunOptions::default())?;
    let aliases = signature.outputs.iter().map(|output| output.name.clone());
    Ok(aliases.zip(outputs).collect())
}

/// Fails unless dtype and shape are the same, integers and strings too, and floats are within
/// `tolerance`, absolutely below 1 and relatively above.
pub(crate) fn assert_close(name: &str, expected: &Tensor, found: &Tensor, tolerance: f64) {
    assert_eq!((expected.dtype(), expected.shape()), (found.dtype(), found.shape()), "{name}");
    let floats = |tensor: &Tensor| -> Option<Vec<f64>> {
        match tensor.dtype() {
            DType::F32 => {
                Some(tensor.as_slice::<f32>().ok()?.iter().map(|&value| f64::from(value)).collect())
            }
            DType::F64 => Some(tensor.as_slice::<f64>().ok()?.to_vec()),
            _ => None,
        }
    };
    let (Some(expected_values), Some(found_values)) = (floats(expected), floats(found)) else {
        assert!(expected == found, "{name}: {expected:?} and {found:?} differ");
        return;
    };
    for (position, (expected, found)) in expected_values.iter().zip(&found_values).enumerate() {
        let same = expected == found || (expected.is_nan() && found.is_nan());
        let close = (expected - found).abs() <= tolerance * expected.abs().max(1.0);
        assert!(same || close, "{name}[{position}]: expected {expected}, found {found}");
    }
}

/// Fails unless dtype and shape are the same, integers and strings too, and floats are within
/// `tolerance` of the greatest expected magnitude.
pub(crate) fn assert_close_to_scale(name: &str, expected: &Tensor, found: &Tensor, tolerance: f32) {
    assert_eq!((expected.dtype(), expected.shape()), (found.dtype(), found.shape()), "{name}");
    let (Ok(a), Ok(b)) = (expected.as_slice::<f32>(), found.as_slice::<f32>()) else {
        assert!(expected == found, "{name}: {expected:?} and {found:?} differ");
        return;
    };
    let scale = a.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let worst =
        a.iter().zip(b).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() }).fold(0.0f32, |worst, next| {
            // A NaN is never close.
            if next <= worst { worst } else { next }
        });
    assert!(worst <= tolerance * scale, "{name}: off by {worst}, the greatest value is {scale}");
}

/// The arrays of an `.npz` file by name.
pub(crate) fn read_npz(path: &Path) -> BTreeMap<String, Tensor> {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([file[at], file[at + 1]]));
    let u32_at =
        |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize;
    let end = (0..=file.len() - 22).rev().find(|&at| file[at..at + 4] == *b"PK\x05\x06").expect("a zip file");
    let (count, mut at) = (u16_at(end + 10), u32_at(end + 16));
    let mut arrays = BTreeMap::new();
    for _ in 0..count {
        let (method, stored, name_len) = (u16_at(at + 10), u32_at(at + 20), u16_at(at + 28));
        let name = String::from_utf8_lossy(&file[at + 46..at + 46 + name_len]).into_owned();
        let local = u32_at(at + 42);
        let data = local + 30 + u16_at(local + 26) + u16_at(local + 28);
        let data = &file[data..data + stored];
        let mut plain = Vec::new();
        match method {
            0 => plain.extend_from_slice(data),
            8 => drop(flate2::read::DeflateDecoder::new(data).read_to_end(&mut plain).expect("deflate")),
            other => panic!("{name}: compression method {other}"),
        }
        arrays.insert(name.trim_end_matches(".npy").to_owned(), read_npy(&name, &plain));
        at += 46 + name_len + u16_at(at + 30) + u16_at(at + 32);
    }
    arrays
}

/// An array in NumPy's format (numpy.lib.format, versions 1 to 3).
fn read_npy(name: &str, file: &[u8]) -> Tensor {
    assert!(file.starts_with(b"\x93NUMPY"), "{name}");
    let (start, len) = match file[6] {
        1 => (10, usize::from(u16::from_le_bytes([file[8], file[9]]))),
        _ => (12, u32::from_le_bytes([file[8], file[9], file[10], file[11]]) as usize),
    };
    let header = String::from_utf8_lossy(&file[start..start + len]).into_owned();
    let after =
        |key: &str| header.split(key).nth(1).expect("a key of the header").trim_start_matches([':', ' ']);
    let kind = after("'descr'").split('\'').nth(1).expect("a dtype").to_owned();
    assert!(after("'fortran_order'").starts_with("False"), "{name}");
    let dims = after("'shape'").trim_start_matches('(').split(')').next().expect("a shape");
    let dims = dims.split(',').filter_map(|dim| dim.trim().parse().ok());
    let shape: Vec<usize> = dims.collect();
    let data = &file[start + len..];
    let dtype = match &kind[1..] {
        "b1" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "i2" => DType::I16,
        "c8" => DType::Complex64,
        "c16" => DType::Complex128,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        text if text.starts_with('S') => {
            let width: usize = text[1..].parse().expect("a width");
            let value = |bytes: &[u8]| {
                let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                Bytes::copy_from_slice(&bytes[..end])
            };
            let elements = shape.iter().product();
            let values = (0..elements).map(|at| value(&data[at * width..(at + 1) * width])).collect();
            return Tensor::from_strings(shape, values).expect("strings");
        }
        other => panic!("{name}: dtype {other}"),
    };
    Tensor::from_buffer(dtype, shape, Buffer::copy_of(data).expect("memory")).expect("an array")
}

/// `<model>/<version>` and `<model>` folders that hold a SavedModel.
pub(crate) fn version_folders(root: &Path, folders: &mut Vec<PathBuf>) {
    let children = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths
    };
    for model in children(root) {
        let candidates = children(&model).into_iter().chain([model]);
        folders.extend(candidates.filter(|folder| folder.join("saved_model.pb").is_file()));
    }
}
