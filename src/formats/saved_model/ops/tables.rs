//! Lookup tables: filled while loading, constant afterwards.

use super::{Outputs, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    ops::lookup::Lookup,
    tensor::{Bytes, DType, Tensor},
};

/// Column numbers with a meaning of their own (lookup_ops.cc).
const WHOLE_LINE: i64 = -2;
const LINE_NUMBER: i64 = -1;

pub(super) fn table(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let shared = n.attributes.text("shared_name");
    let name = if shared.is_empty() { n.def.name.as_str() } else { shared };
    let table = i.model.table(name, n.dtype("key_dtype")?, n.dtype("value_dtype")?);
    Ok(vec![Value::Table(table)])
}

pub(super) fn fill(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (table, keys, values) = (n.table(0)?, n.tensor(i, 1)?, n.tensor(i, 2)?);
    if !i.loading {
        return Err("a signature that fills a table is not supported".into());
    }
    i.filled.push((table, keys, values));
    Ok(Vec::new())
}

/// Keys and values are columns of an asset's lines, whole lines, or line numbers.
pub(super) fn fill_from_file(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let table = n.table(0)?;
    if !i.loading {
        return Err("a signature that fills a table is not supported".into());
    }
    let path = n.constant(i, 1)?;
    let path = path.as_strings().ok().and_then(|strings| strings.first()).ok_or("the file has no name")?;
    let text = Bytes::from(i.model.read_asset(path)?);
    let delimiter = n.attributes.text("delimiter").bytes().next().unwrap_or(b'\t');
    let most = usize::try_from(n.attributes.int("vocab_size")).unwrap_or(usize::MAX);
    let skip = usize::try_from(n.attributes.int("offset")).map_err(|_| "offset is negative")?;
    let mut lines: Vec<Bytes> = Vec::new();
    for line in text.split(|&byte| byte == b'\n').skip(skip) {
        lines.push(text.slice_ref(line.strip_suffix(b"\r").unwrap_or(line)));
    }
    // What follows the last end of line is no line.
    if lines.last().is_some_and(Bytes::is_empty) {
        lines.pop();
    }
    lines.truncate(most);
    let (key_type, value_type) = (i.model.tables[table].keys.dtype(), i.model.tables[table].values.dtype());
    let keys = column(&lines, n.attributes.int("key_index"), delimiter, key_type)?;
    let values = column(&lines, n.attributes.int("value_index"), delimiter, value_type)?;
    let (keys, values) = (i.b.constant(keys), i.b.constant(values));
    i.filled.push((table, keys, values));
    Ok(Vec::new())
}

fn column(lines: &[Bytes], index: i64, delimiter: u8, dtype: DType) -> Result<Tensor, Stop> {
    let failed = |error: crate::tensor::TensorError| Stop::from(error.to_string());
    if index == LINE_NUMBER {
        let numbers: Vec<i64> = (0..lines.len() as i64).collect();
        return match dtype {
            DType::I64 => Tensor::from_slice([lines.len()], &numbers).map_err(failed),
            other => Err(format!("line numbers are int64, but the table has {other}").into()),
        };
    }
    let cell = |line: &Bytes| -> Option<Bytes> {
        if index == WHOLE_LINE {
            return Some(line.clone());
        }
        let cell = line.split(|&byte| byte == delimiter).nth(usize::try_from(index).ok()?)?;
        Some(line.slice_ref(cell))
    };
    let cells = lines.iter().map(cell).collect::<Option<Vec<Bytes>>>();
    let cells = cells.ok_or_else(|| format!("a line of the file has no column {index}"))?;
    macro_rules! numbers {
        ($t:ty) => {{
            let parse = |cell: &Bytes| std::str::from_utf8(cell).ok()?.trim().parse::<$t>().ok();
            let numbers = cells.iter().map(parse).collect::<Option<Vec<$t>>>();
            let numbers = numbers.ok_or("a value of the file is not a number")?;
            Tensor::from_slice([numbers.len()], &numbers).map_err(failed)
        }};
    }
    match dtype {
        DType::String => Tensor::from_strings([cells.len()], cells).map_err(failed),
        DType::I32 => numbers!(i32),
        DType::I64 => numbers!(i64),
        DType::F32 => numbers!(f32),
        DType::F64 => numbers!(f64),
        other => Err(format!("tables of {other} are not read from files").into()),
    }
}

pub(super) fn find(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let table = n.table(0)?;
    let (x, default) = (n.tensor(i, 1)?, n.tensor(i, 2)?);
    let (keys, values) = (i.model.tables[table].keys.clone(), i.model.tables[table].values.clone());
    let (keys, values) = (i.b.constant(keys), i.b.constant(values));
    one(i.b.push(Lookup { buckets: 0 }, &[x, keys, values, default]))
}

pub(super) fn size(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let size = i.model.tables[n.table(0)?].keys.len() as i64;
    one(i.b.constant(Tensor::scalar(size)))
}

/// All keys and all values.
pub(super) fn export(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let table = n.table(0)?;
    let (keys, values) = (i.model.tables[table].keys.clone(), i.model.tables[table].values.clone());
    Ok([keys, values].map(|tensor| Value::Tensor(i.b.constant(tensor))).to_vec())
}
