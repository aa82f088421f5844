//! A signature definition in protobuf text format, for errors that show what a model declares.

use crate::proto::tensorflow::{DataType, SignatureDef, TensorInfo, TensorShapeProto, tensor_info::Encoding};
use std::fmt::{self, Write};

/// Nested composite tensors beyond this depth are left out.
const MAX_DEPTH: usize = 8;

/// Shows a definition as `protobuf`'s `DebugString` does: one field per line, indented by two.
pub(super) struct SignatureText<'a>(pub(super) &'a SignatureDef);

impl fmt::Display for SignatureText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text { out: f, depth: 0 };
        for (field, entries) in [("inputs", &self.0.inputs), ("outputs", &self.0.outputs)] {
            for (key, info) in entries {
                text.block(field, |text| {
                    text.string("key", key)?;
                    text.block("value", |text| tensor_info(text, info))
                })?;
            }
        }
        if !self.0.method_name.is_empty() {
            text.string("method_name", &self.0.method_name)?;
        }
        for (key, value) in &self.0.defaults {
            text.block("defaults", |text| {
                text.string("key", key)?;
                text.block("value", |text| {
                    text.data_type(value.dtype)?;
                    value.tensor_shape.iter().try_for_each(|shape| tensor_shape(text, shape))
                })
            })?;
        }
        Ok(())
    }
}

fn tensor_info(text: &mut Text<'_, '_>, info: &TensorInfo) -> fmt::Result {
    if let Some(Encoding::Name(name)) = &info.encoding {
        text.string("name", name)?;
    }
    text.data_type(info.dtype)?;
    if let Some(shape) = &info.tensor_shape {
        tensor_shape(text, shape)?;
    }
    match &info.encoding {
        Some(Encoding::CooSparse(sparse)) => text.block("coo_sparse", |text| {
            text.string("values_tensor_name", &sparse.values_tensor_name)?;
            text.string("indices_tensor_name", &sparse.indices_tensor_name)?;
            text.string("dense_shape_tensor_name", &sparse.dense_shape_tensor_name)
        }),
        Some(Encoding::CompositeTensor(composite)) if text.depth < MAX_DEPTH => {
            text.block("composite_tensor", |text| {
                composite
                    .components
                    .iter()
                    .try_for_each(|part| text.block("components", |text| tensor_info(text, part)))
            })
        }
        _ => Ok(()),
    }
}

fn tensor_shape(text: &mut Text<'_, '_>, shape: &TensorShapeProto) -> fmt::Result {
    text.block("tensor_shape", |text| {
        for dim in &shape.dim {
            text.block("dim", |text| {
                if dim.size != 0 {
                    text.line(format_args!("size: {}", dim.size))?;
                }
                if dim.name.is_empty() { Ok(()) } else { text.string("name", &dim.name) }
            })?;
        }
        if shape.unknown_rank { text.line(format_args!("unknown_rank: true")) } else { Ok(()) }
    })
}

struct Text<'a, 'f> {
    out: &'a mut fmt::Formatter<'f>,
    depth: usize,
}

impl Text<'_, '_> {
    fn line(&mut self, content: fmt::Arguments<'_>) -> fmt::Result {
        writeln!(self.out, "{:indent$}{content}", "", indent = 2 * self.depth)
    }

    fn block(&mut self, name: &str, body: impl FnOnce(&mut Self) -> fmt::Result) -> fmt::Result {
        self.line(format_args!("{name} {{"))?;
        self.depth += 1;
        body(self)?;
        self.depth -= 1;
        self.line(format_args!("}}"))
    }

    fn string(&mut self, name: &str, value: &str) -> fmt::Result {
        write!(self.out, "{:indent$}{name}: \"", "", indent = 2 * self.depth)?;
        for byte in value.bytes() {
            match byte {
                b'\n' => self.out.write_str("\\n")?,
                b'\r' => self.out.write_str("\\r")?,
                b'\t' => self.out.write_str("\\t")?,
                b'"' | b'\'' | b'\\' => write!(self.out, "\\{}", char::from(byte))?,
                0x20..0x7f => self.out.write_char(char::from(byte))?,
                _ => write!(self.out, "\\{byte:03o}")?,
            }
        }
        self.out.write_str("\"\n")
    }

    fn data_type(&mut self, tag: i32) -> fmt::Result {
        match DataType::try_from(tag) {
            Ok(DataType::DtInvalid) => Ok(()),
            Ok(known) => self.line(format_args!("dtype: {}", known.as_str_name())),
            Err(_) => self.line(format_args!("dtype: {tag}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensorflow::tensor_shape_proto::Dim;

    #[test]
    fn prints_what_protobuf_prints() {
        let info = TensorInfo {
            dtype: DataType::DtFloat as i32,
            tensor_shape: Some(TensorShapeProto {
                dim: vec![Dim { size: -1, name: String::new() }, Dim { size: 0, name: String::new() }],
                unknown_rank: false,
            }),
            encoding: Some(Encoding::Name("x:0".into())),
        };
        let definition = SignatureDef {
            inputs: [("a\"b".to_owned(), info)].into(),
            method_name: "tensorflow/serving/regress".into(),
            ..Default::default()
        };
        let expected = r#"inputs {
  key: "a\"b"
  value {
    name: "x:0"
    dtype: DT_FLOAT
    tensor_shape {
      dim {
        size: -1
      }
      dim {
      }
    }
  }
}
method_name: "tensorflow/serving/regress"
"#;
        assert_eq!(SignatureText(&definition).to_string(), expected);
    }
}
