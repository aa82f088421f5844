//! Tables: `{"data": {"req_data": [{..}, ..]}}`, one row of the model's inputs per element.
//!
//! Keys are mapped to inputs of that name, each one value per row; or, where the model takes one matrix, to its columns in
//! the order that kinglet.toml declares.

use super::{
    body::{number, tensor_of},
    error::Failure,
};
use crate::{
    api::json::{Document, Kind, Value, dump, write::Writer, write_tensor},
    models::{self, Error, Patience, Request, Response, Servable, Signature, TensorInfo, sidecar::Table},
    tensor::{DType, Tensor},
    wire,
};
use bytes::Bytes;

/// Rows of one request.
const MAX_ROWS: usize = 1 << 16;
const MAX_COLUMNS: usize = 1 << 14;

/// The rows of a body that is a table.
pub(super) fn rows_of(root: Value<'_>) -> Option<Value<'_>> {
    let wrapped = root.find("data").and_then(|data| data.find("req_data"));
    wrapped.or_else(|| root.find("req_data"))
}

/// Answers a table; `None` for other bodies.
pub(super) fn answer(
    servable: &Servable,
    signature: &Signature,
    text: &Bytes,
    patience: &Patience,
) -> Result<Option<wire::Response>, Failure> {
    let document = Document::parse(text).map_err(|_| Failure::Json)?;
    let root = document.root();
    let Some(rows) = rows_of(root) else { return Ok(None) };
    let rows: Vec<Value<'_>> = match rows.kind() {
        Kind::Array if rows.len() <= MAX_ROWS => rows.items().collect(),
        Kind::Array => return Err(Failure::Refused(format!("req_data has more than {MAX_ROWS} rows"))),
        _ => return Err(Failure::Refused("req_data has to be a list of objects".into())),
    };
    if rows.is_empty() || rows.iter().any(|row| row.kind() != Kind::Object) {
        return Err(Failure::Refused("req_data has to be a list of objects, at least one".into()));
    }
    let table = &servable.declared.table;
    let request = Request {
        signature: Some(signature.name.clone()),
        inputs: inputs(signature, table, &rows)?,
        patience: patience.clone(),
        ..Request::default()
    };
    let response = models::predict(servable, request)?;
    let body = write(root, &rows, table, &response)?;
    Ok(Some(wire::Response::new(200, "application/json", body)))
}

fn inputs(signature: &Signature, table: &Table, rows: &[Value<'_>]) -> Result<Vec<(String, Tensor)>, Error> {
    let has = |info: &&TensorInfo| rows.first().is_some_and(|row| row.find(&info.name).is_some());
    if let ([matrix], false) = (&*signature.inputs, signature.inputs.iter().any(|info| has(&info))) {
        return Ok(vec![(matrix.name.clone(), as_matrix(matrix, table, rows)?)]);
    }
    let given =
        signature.inputs.iter().filter(|info| has(info) || !signature.defaults.contains_key(&info.name));
    given.map(|info| Ok((info.name.clone(), column(info, rows)?))).collect()
}

/// One value, or one list of values, per row.
fn column(info: &TensorInfo, rows: &[Value<'_>]) -> Result<Tensor, Error> {
    let name = &info.name;
    let mut values = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let value = row.find(name);
        values.push(
            value
                .ok_or_else(|| Error::invalid_argument(format!("row {number} of req_data has no {name}")))?,
        );
    }
    let lists = values.first().is_some_and(|value| value.kind() == Kind::Array);
    let width = values.first().filter(|_| lists).map(|value| value.len());
    if values
        .iter()
        .any(|value| (value.kind() == Kind::Array) != lists || (lists && Some(value.len()) != width))
    {
        return Err(Error::invalid_argument(format!("rows of req_data differ in the length of {name}")));
    }
    let mut shape = vec![rows.len()];
    match width {
        Some(width) => shape.push(width),
        // One value per row for an input of one column.
        None if info.shape.as_ref().is_some_and(|dims| dims.len() == 2) => shape.push(1),
        None => {}
    }
    let leaves: Vec<Value<'_>> = if lists { values.iter().flat_map(Value::items).collect() } else { values };
    if info.dtype == Some(DType::String) {
        let text = |leaf: &Value<'_>| match leaf.string() {
            Some(text) => Bytes::from(text.into_owned()),
            // A number for a text is that number's text.
            None => Bytes::from(dump(*leaf)),
        };
        return Tensor::from_strings(shape, leaves.iter().map(text).collect())
            .map_err(|error| Error::internal(error.to_string()));
    }
    tensor_of(info, shape, &numbers(name, &leaves)?)
}

fn numbers(name: &str, leaves: &[Value<'_>]) -> Result<Vec<f64>, Error> {
    let number = |leaf: &Value<'_>| {
        number(*leaf).ok_or_else(|| {
            Error::invalid_argument(format!("{name}: {} is no number", String::from_utf8_lossy(&dump(*leaf))))
        })
    };
    leaves.iter().map(number).collect()
}

/// All columns side by side.
fn as_matrix(info: &TensorInfo, table: &Table, rows: &[Value<'_>]) -> Result<Tensor, Error> {
    let columns = match table.columns.is_empty() {
        false => table.columns.clone(),
        true => numbered(rows)?,
    };
    let width = info.shape.as_ref().and_then(|dims| dims.last().copied().flatten());
    if columns.len() > MAX_COLUMNS || width.is_some_and(|width| width != columns.len()) {
        return Err(Error::invalid_argument(format!(
            "the model takes {} columns, not {}",
            width.unwrap_or(MAX_COLUMNS),
            columns.len()
        )));
    }
    let mut values = Vec::with_capacity(rows.len().saturating_mul(columns.len()).min(1 << 24));
    for (number, row) in rows.iter().enumerate() {
        for name in &columns {
            let value = row
                .find(name)
                .ok_or_else(|| Error::invalid_argument(format!("row {number} of req_data has no {name}")))?;
            values.extend(numbers(name, &[value])?);
        }
    }
    tensor_of(info, vec![rows.len(), columns.len()], &values)
}

/// Columns `attr_1`, `attr_2` .. speak for themselves; others have to be declared.
fn numbered(rows: &[Value<'_>]) -> Result<Vec<String>, Error> {
    let number = |(key, _): (std::borrow::Cow<'_, [u8]>, Value<'_>)| {
        std::str::from_utf8(&key).ok()?.strip_prefix("attr_")?.parse::<usize>().ok()
    };
    let numbers: Option<Vec<usize>> = rows.first().and_then(|row| row.members().map(number).collect());
    let mut numbers = numbers.filter(|numbers| !numbers.is_empty()).ok_or_else(|| {
        Error::failed_precondition(
            "the model takes one matrix: kinglet.toml has to say which column is which, as in [table] columns = [\"a\", \"b\"]",
        )
    })?;
    numbers.sort_unstable();
    Ok(numbers.iter().map(|number| format!("attr_{number}")).collect())
}

/// In the form that the request came in.
fn write(root: Value<'_>, rows: &[Value<'_>], table: &Table, response: &Response) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(0);
    writer.begin_object();
    let meta = root.find("meta");
    let wrapped = root.find("data").is_some();
    if wrapped || meta.is_some() {
        let uuid = meta.and_then(|meta| meta.find("uuid")).and_then(|uuid| uuid.string()).unwrap_or_default();
        writer.key(b"meta");
        writer.begin_object();
        writer.key(b"uuid");
        writer.string(&uuid);
        writer.end_object();
    }
    if wrapped {
        writer.key(b"data");
        writer.begin_object();
    }
    writer.key(b"resp_data");
    writer.begin_array();
    for (number, row) in rows.iter().enumerate() {
        writer.begin_object();
        if table.echo {
            for (key, value) in row.members() {
                writer.key(&key);
                writer.raw(&dump(value));
            }
        }
        for (output, tensor) in &response.outputs {
            writer.key(table.names.get(output).unwrap_or(output).as_bytes());
            cell(&mut writer, table, output, tensor, number, rows.len())?;
        }
        writer.end_object();
    }
    writer.end_array();
    if wrapped {
        writer.end_object();
    }
    writer.end_object();
    Ok(writer.finish())
}

/// The part of an output that belongs to a row; an output without rows belongs to all.
fn cell(
    writer: &mut Writer,
    table: &Table,
    output: &str,
    tensor: &Tensor,
    row: usize,
    rows: usize,
) -> Result<(), Error> {
    let by_row = tensor.shape().first() == Some(&rows);
    if let (Some(labels), true) = (table.labels.get(output), by_row) {
        let width = tensor.len() / rows.max(1);
        let class = class_of(tensor, row, width)?;
        // An output of one number is the class itself.
        writer.string(labels.name(class, if width == 1 { labels.0.len() } else { width }).as_bytes());
        return Ok(());
    }
    writer.single_line_arrays(true);
    let single = by_row && tensor.len() == rows;
    let written = match single {
        // `[rows, 1]` is one value a row too.
        true => tensor
            .reshaped([rows])
            .map_err(|error| Error::internal(error.to_string()))
            .and_then(|flat| write_tensor(output, &flat, Some(row), false, writer)),
        false => write_tensor(output, tensor, by_row.then_some(row), false, writer),
    };
    writer.single_line_arrays(false);
    written
}

fn class_of(tensor: &Tensor, row: usize, width: usize) -> Result<usize, Error> {
    let failed = |error: crate::tensor::TensorError| {
        Error::failed_precondition(format!("kinglet.toml: labels: {error}"))
    };
    if !tensor.dtype().is_float() {
        let classes = tensor.to_i64_vec().map_err(failed)?;
        return Ok(classes.get(row * width).and_then(|class| usize::try_from(*class).ok()).unwrap_or(0));
    }
    let scores = tensor.as_slice::<f32>().map_err(failed)?;
    let scores = scores.get(row * width..(row + 1) * width).unwrap_or_default();
    if let [class] = scores {
        return Ok(class.round().max(0.0) as usize);
    }
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    Ok(best.map_or(0, |(class, _)| class))
}
