//! A model's signatures as protobuf's JSON printer shows them: every field without presence is
//! printed, 64-bit integers are strings, enums go by name, map entries in order of their keys.

use crate::{
    api::json::write::Writer,
    models::{Error, ModelRef, Registry},
    proto::tensorflow::{
        DataType, SignatureDef, TensorInfo, TensorProto, TensorShapeProto, tensor_info::Encoding,
    },
};
use std::collections::BTreeMap;

/// Name, version and all signatures of a model.
pub(super) fn metadata(registry: &Registry, model: &ModelRef) -> Result<Vec<u8>, Error> {
    let servable = registry.find(model)?;
    let mut spec = Writer::new(1);
    spec.begin_object();
    spec.key(b"name");
    spec.protobuf_string(&servable.name);
    spec.key(b"version");
    spec.protobuf_string(&servable.version.to_string());
    spec.key(b"signature_name");
    spec.protobuf_string("");
    spec.end_object();

    let mut signatures = Writer::new(1);
    signatures.begin_object();
    signatures.key(b"signature_def");
    map(&servable.definitions, &mut signatures, signature);
    signatures.end_object();

    // TensorFlow Serving joins the two texts by hand, without further indent.
    let parts: [&[u8]; 5] = [
        b"{\n\"model_spec\":",
        &spec.finish(),
        b"\n,\n\"metadata\": {\"signature_def\": ",
        &signatures.finish(),
        b"\n}\n}\n",
    ];
    Ok(parts.concat())
}

fn map<V>(entries: &BTreeMap<String, V>, writer: &mut Writer, write: fn(&V, &mut Writer)) {
    writer.begin_object();
    for (key, value) in entries {
        writer.protobuf_string(key);
        write(value, writer);
    }
    writer.end_object();
}

fn list<V>(name: &str, values: &[V], writer: &mut Writer, write: fn(&V, &mut Writer)) {
    writer.key(name.as_bytes());
    writer.begin_array();
    values.iter().for_each(|value| write(value, writer));
    writer.end_array();
}

fn signature(definition: &SignatureDef, writer: &mut Writer) {
    writer.begin_object();
    writer.key(b"inputs");
    map(&definition.inputs, writer, tensor_info);
    writer.key(b"outputs");
    map(&definition.outputs, writer, tensor_info);
    writer.key(b"method_name");
    writer.protobuf_string(&definition.method_name);
    writer.key(b"defaults");
    map(&definition.defaults, writer, tensor);
    writer.end_object();
}

fn tensor_info(info: &TensorInfo, writer: &mut Writer) {
    writer.begin_object();
    match &info.encoding {
        Some(Encoding::Name(name)) => {
            writer.key(b"name");
            writer.protobuf_string(name);
        }
        Some(Encoding::CooSparse(sparse)) => {
            writer.key(b"coo_sparse");
            writer.begin_object();
            for (key, value) in [
                ("values_tensor_name", &sparse.values_tensor_name),
                ("indices_tensor_name", &sparse.indices_tensor_name),
                ("dense_shape_tensor_name", &sparse.dense_shape_tensor_name),
            ] {
                writer.key(key.as_bytes());
                writer.protobuf_string(value);
            }
            writer.end_object();
        }
        // Its type description is not kept by the loader; the components are what clients can use.
        Some(Encoding::CompositeTensor(composite)) => {
            writer.key(b"composite_tensor");
            writer.begin_object();
            list("components", &composite.components, writer, leaf_tensor_info);
            writer.end_object();
        }
        None => {}
    }
    dtype_and_shape(info.dtype, info.tensor_shape.as_ref(), writer);
    writer.end_object();
}

/// A component of a composite tensor; composites within are not followed, so nesting is bounded.
fn leaf_tensor_info(info: &TensorInfo, writer: &mut Writer) {
    writer.begin_object();
    if let Some(Encoding::Name(name)) = &info.encoding {
        writer.key(b"name");
        writer.protobuf_string(name);
    }
    dtype_and_shape(info.dtype, info.tensor_shape.as_ref(), writer);
    writer.end_object();
}

fn dtype_and_shape(dtype: i32, shape: Option<&TensorShapeProto>, writer: &mut Writer) {
    writer.key(b"dtype");
    match dtype_name(dtype) {
        Some(name) => writer.protobuf_string(&name),
        None => writer.signed(dtype.into()),
    }
    if let Some(shape) = shape {
        writer.key(b"tensor_shape");
        writer.begin_object();
        list("dim", &shape.dim, writer, |dim, writer| {
            writer.begin_object();
            writer.key(b"size");
            writer.protobuf_string(&dim.size.to_string());
            writer.key(b"name");
            writer.protobuf_string(&dim.name);
            writer.end_object();
        });
        writer.key(b"unknown_rank");
        writer.boolean(shape.unknown_rank);
        writer.end_object();
    }
}

/// `DT_FLOAT`; a type that is 100 above another is a reference to it, of TensorFlow 1.
pub(super) fn dtype_name(dtype: i32) -> Option<String> {
    const REFERENCE: i32 = 100;
    match DataType::try_from(dtype) {
        Ok(known) => Some(known.as_str_name().to_owned()),
        Err(_) => {
            let base = dtype.checked_sub(REFERENCE).filter(|&base| base > 0)?;
            Some(format!("{}_REF", DataType::try_from(base).ok()?.as_str_name()))
        }
    }
}

fn tensor(value: &TensorProto, writer: &mut Writer) {
    let unsigned = |value: &u32, writer: &mut Writer| writer.unsigned((*value).into());
    let signed = |value: &i32, writer: &mut Writer| writer.signed((*value).into());
    writer.begin_object();
    dtype_and_shape(value.dtype, value.tensor_shape.as_ref(), writer);
    writer.key(b"version_number");
    writer.signed(value.version_number.into());
    writer.key(b"tensor_content");
    writer.base64_string(&value.tensor_content);
    list("half_val", &value.half_val, writer, signed);
    list("float_val", &value.float_val, writer, float);
    list("double_val", &value.double_val, writer, double);
    list("int_val", &value.int_val, writer, signed);
    list("string_val", &value.string_val, writer, |value, writer| writer.base64_string(value));
    list("scomplex_val", &value.scomplex_val, writer, float);
    list("int64_val", &value.int64_val, writer, |value, writer| writer.protobuf_string(&value.to_string()));
    list("bool_val", &value.bool_val, writer, |value, writer| writer.boolean(*value));
    list("dcomplex_val", &value.dcomplex_val, writer, double);
    for absent in ["resource_handle_val", "variant_val"] {
        list::<()>(absent, &[], writer, |_, _| {});
    }
    list("uint32_val", &value.uint32_val, writer, unsigned);
    list("uint64_val", &value.uint64_val, writer, |value, writer| writer.protobuf_string(&value.to_string()));
    writer.key(b"float8_val");
    writer.base64_string(&value.float8_val);
    writer.end_object();
}

fn float(value: &f32, writer: &mut Writer) {
    if value.is_finite() {
        writer.trimmed(|writer| writer.f32(*value));
    } else {
        double(&f64::from(*value), writer);
    }
}

/// Without the `.0` of integers; what is not finite is a string.
fn double(value: &f64, writer: &mut Writer) {
    match value {
        finite if finite.is_finite() => writer.trimmed(|writer| writer.f64(*finite)),
        nan if nan.is_nan() => writer.protobuf_string("NaN"),
        negative if *negative < 0.0 => writer.protobuf_string("-Infinity"),
        _ => writer.protobuf_string("Infinity"),
    }
}
