//! Output tensors as JSON, straight from their memory.

use super::predict::Layout;
use crate::{
    api::json::{write::Writer, write_tensor},
    models::Error,
    tensor::Tensor,
};

/// Writes the answer to predict in the layout of its request.
///
/// # Errors
/// `INVALID_ARGUMENT` for no tensor at all, for rows whose tensors differ in their first dimension
/// or have none, and for dtypes that have no form in JSON.
pub(super) fn write(outputs: &[(String, Tensor)], layout: Layout, strict: bool) -> Result<Vec<u8>, Error> {
    if outputs.is_empty() {
        return Err(Error::invalid_argument("Cannot convert empty tensor map to JSON"));
    }
    let mut writer = Writer::new(4);
    writer.begin_object();
    match layout {
        Layout::Row => rows(outputs, strict, &mut writer)?,
        Layout::Columnar => columns(outputs, strict, &mut writer)?,
    }
    writer.end_object();
    Ok(writer.finish())
}

fn rows(outputs: &[(String, Tensor)], strict: bool, writer: &mut Writer) -> Result<(), Error> {
    let batch = batch_size(outputs)?;
    let named = outputs.len() > 1;
    writer.key(b"predictions");
    writer.begin_array();
    for row in 0..batch {
        if named {
            writer.begin_object();
        }
        writer.single_line_arrays(true);
        for (name, tensor) in outputs {
            if named {
                writer.key(name.as_bytes());
            }
            write_tensor(name, tensor, Some(row), strict, writer)?;
        }
        writer.single_line_arrays(false);
        if named {
            writer.end_object();
        }
    }
    writer.end_array();
    Ok(())
}

fn batch_size(outputs: &[(String, Tensor)]) -> Result<usize, Error> {
    let mut batch = None;
    for (name, tensor) in outputs {
        let Some(&size) = tensor.shape().first() else {
            return Err(Error::invalid_argument(format!("Tensor name: {name} has no shape information ")));
        };
        if let Some(expected) = batch.replace(size)
            && expected != size
        {
            return Err(Error::invalid_argument(format!(
                "Tensor name: {name} has inconsistent batch size: {size} expecting: {expected}"
            )));
        }
    }
    Ok(batch.unwrap_or(0))
}

fn columns(outputs: &[(String, Tensor)], strict: bool, writer: &mut Writer) -> Result<(), Error> {
    let named = outputs.len() > 1;
    writer.key(b"outputs");
    if named {
        writer.begin_object();
    }
    for (name, tensor) in outputs {
        if named {
            writer.key(name.as_bytes());
        }
        write_tensor(name, tensor, None, strict, writer)?;
    }
    if named {
        writer.end_object();
    }
    Ok(())
}
