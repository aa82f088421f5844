//! What a request carries: the fields of a form, a JSON text, or one image. Content types are hints at most; clients are
//! often wrong about them.

use super::error::Failure;
use crate::{
    api::json::{Document, Kind, Value, base64},
    models::{
        Error, Signature, TensorInfo,
        image::{Placement, image_input, images_to_tensor},
    },
    tensor::{DType, Tensor},
    wire::{Request, gzip, multipart},
};
use bytes::Bytes;

/// Numbers of one JSON tensor.
const MAX_ELEMENTS: usize = 1 << 24;
const MAX_RANK: usize = 8;

/// A body before it is known what it is for.
pub(super) enum Body {
    /// Fields with their contents; a name may occur more than once.
    Form(Vec<(String, Bytes)>),
    /// Any JSON.
    Json(Bytes),
    /// An image by itself.
    Image(Bytes),
}

/// Tensors by input, and where pictures lie in them.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) tensors: Vec<(String, Tensor)>,
    pub(super) placements: Vec<Placement>,
}

/// Reads the body of a request.
pub(super) fn read(request: &Request) -> Result<Body, Failure> {
    let mut body = request.body.clone();
    if request.headers.has_token("content-encoding", "gzip") {
        body = gzip::inflate(&body, super::MAX_BODY)
            .map_err(|error| Failure::Refused(error.to_string()))?
            .into();
    }
    if body.is_empty() {
        return Err(Failure::Empty);
    }
    let content_type = request.headers.get_str("content-type").unwrap_or_default();
    if content_type.trim_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        let parts =
            multipart::parse(content_type, &body).map_err(|error| Failure::Refused(error.to_string()))?;
        if parts.is_empty() {
            return Err(Failure::Empty);
        }
        return Ok(Body::Form(parts.into_iter().map(|part| (part.name, part.content)).collect()));
    }
    if is_image(&body) {
        return Ok(Body::Image(body));
    }
    Document::parse(&body).map_err(|_| Failure::Json)?;
    Ok(Body::Json(body))
}

/// Whether bytes begin as an image file does; no JSON does.
fn is_image(body: &[u8]) -> bool {
    [&b"\xff\xd8\xff"[..], b"\x89PNG", b"GIF8", b"BM", b"RIFF"].iter().any(|magic| body.starts_with(magic))
}

impl Body {
    /// Names of what it holds: fields, keys, or the keys of the first row of a table.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Body::Form(fields) => fields.iter().map(|(name, _)| name.clone()).collect(),
            Body::Image(_) => Vec::new(),
            Body::Json(text) => {
                let Ok(document) = Document::parse(text) else { return Vec::new() };
                let root = document.root();
                let keys = |value: Value<'_>| {
                    value.members().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
                };
                match super::table::rows_of(root) {
                    Some(rows) => rows.items().next().map(keys).unwrap_or_default(),
                    None => keys(root),
                }
            }
        }
    }
}

/// The tensors of a form, an image or a JSON object that is no table.
pub(super) fn inputs(signature: &Signature, body: &Body) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::default();
    match body {
        Body::Image(file) => {
            let mut takers = signature.inputs.iter().filter(|info| takes_files(info));
            match (takers.next(), takers.next()) {
                (Some(info), None) => inputs.files(info, &[file.clone()])?,
                _ => {
                    return Err(Failure::Refused(
                        "an image alone needs a model with one input for it".into(),
                    ));
                }
            }
        }
        Body::Form(fields) => {
            let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            names.dedup();
            for info in &signature.inputs {
                let Some(name) = name_for(signature, info, &names) else { continue };
                let of_field = fields.iter().filter(|(field, _)| field == name);
                let contents: Vec<Bytes> = of_field.map(|(_, content)| content.clone()).collect();
                if takes_files(info) {
                    inputs.files(info, &contents)?;
                } else if let [content] = &*contents {
                    inputs.json(info, content)?;
                } else {
                    return Err(Failure::Refused(format!("field {name} is given more than once")));
                }
            }
        }
        Body::Json(text) => {
            let document = Document::parse(text).map_err(|_| Failure::Json)?;
            let root = document.root();
            let members: Vec<(String, Value<'_>)> = root
                .members()
                .map(|(key, value)| (String::from_utf8_lossy(&key).into_owned(), value))
                .collect();
            if root.kind() != Kind::Object {
                return Err(Failure::Refused("the body has to be a JSON object".into()));
            }
            let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            for info in &signature.inputs {
                let Some(name) = name_for(signature, info, &names) else { continue };
                if let Some((_, value)) = members.iter().find(|(member, _)| member == name) {
                    inputs.value(info, *value)?;
                }
            }
        }
    }
    let missing = |info: &&TensorInfo| {
        !signature.defaults.contains_key(&info.name)
            && !inputs.tensors.iter().any(|(name, _)| *name == info.name)
    };
    match signature.inputs.iter().find(missing) {
        None => Ok(inputs),
        Some(info) => {
            let wanted: Vec<&str> = signature.inputs.iter().map(|info| info.name.as_str()).collect();
            Err(Failure::Refused(format!(
                "nothing is given for the input {}; the model takes {}",
                info.name,
                wanted.join(", ")
            )))
        }
    }
}

/// The field for an input: its own name; for the only input, whatever the only field is called.
fn name_for<'n>(signature: &Signature, info: &TensorInfo, names: &[&'n str]) -> Option<&'n str> {
    let own = names.iter().find(|name| **name == info.name).copied();
    own.or_else(|| match (&*signature.inputs, names) {
        ([_], [only]) => Some(*only),
        _ => None,
    })
}

fn takes_files(info: &TensorInfo) -> bool {
    info.dtype == Some(DType::String) || image_input(info).is_some()
}

impl Inputs {
    fn files(&mut self, info: &TensorInfo, contents: &[Bytes]) -> Result<(), Failure> {
        let tensor = match image_input(info) {
            Some(how) => {
                let (tensor, placements) = images_to_tensor(info, &how, contents)?;
                self.placements.extend(placements);
                tensor
            }
            None => strings(info, contents.to_vec())?,
        };
        self.tensors.push((info.name.clone(), tensor));
        Ok(())
    }

    /// A field that holds a JSON value, such as a number.
    fn json(&mut self, info: &TensorInfo, text: &[u8]) -> Result<(), Failure> {
        let document = Document::parse(text)
            .map_err(|_| Failure::Refused(format!("field {} is no JSON value", info.name)))?;
        self.value(info, document.root())
    }

    fn value(&mut self, info: &TensorInfo, value: Value<'_>) -> Result<(), Failure> {
        let is_text = |value: &Value<'_>| value.kind() == Kind::String;
        let texts = match value.kind() {
            Kind::String => Some(vec![value]),
            Kind::Array if !value.is_empty() && value.items().all(|item| is_text(&item)) => {
                Some(value.items().collect())
            }
            _ => None,
        };
        match texts {
            Some(texts) if image_input(info).is_some() => {
                let files: Option<Vec<Bytes>> =
                    texts.iter().map(|text| from_base64(&text.string()?)).collect();
                let files = files.ok_or_else(|| Failure::Refused(format!("{} is not base64", info.name)))?;
                self.files(info, &files)
            }
            Some(texts) if info.dtype == Some(DType::String) => {
                let content = |text: &Value<'_>| Bytes::from(text.string().unwrap_or_default().into_owned());
                let tensor = strings(info, texts.iter().map(content).collect())?;
                self.tensors.push((info.name.clone(), tensor));
                Ok(())
            }
            _ => {
                let tensor = numbers(info, value)?;
                self.tensors.push((info.name.clone(), tensor));
                Ok(())
            }
        }
    }
}

/// The bytes of base64, also of a `data:` URL.
fn from_base64(text: &[u8]) -> Option<Bytes> {
    let text = match text.starts_with(b"data:") {
        true => text.split(|byte| *byte == b',').nth(1)?,
        false => text,
    };
    base64::decode(text).map(Bytes::from)
}

/// A tensor of strings, scalar where the input is one.
fn strings(info: &TensorInfo, values: Vec<Bytes>) -> Result<Tensor, Error> {
    let scalar = info.shape.as_ref().is_some_and(Vec::is_empty) && values.len() == 1;
    let shape: &[usize] = if scalar { &[] } else { &[values.len()] };
    Tensor::from_strings(shape, values).map_err(|error| Error::internal(error.to_string()))
}

/// A tensor of nested lists of numbers, which may be written as strings.
fn numbers(info: &TensorInfo, value: Value<'_>) -> Result<Tensor, Error> {
    let mut shape = Vec::new();
    let mut next = Some(value);
    while let Some(list) = next.filter(|value| value.kind() == Kind::Array) {
        if shape.len() == MAX_RANK {
            return Err(Error::invalid_argument(format!(
                "lists for {} nest deeper than {MAX_RANK}",
                info.name
            )));
        }
        shape.push(list.len());
        next = list.items().next();
    }
    let mut values = Vec::new();
    flatten(value, &shape, &mut values)
        .map_err(|text| Error::invalid_argument(format!("input {}: {text}", info.name)))?;
    tensor_of(info, shape, &values)
}

fn flatten(value: Value<'_>, shape: &[usize], values: &mut Vec<f64>) -> Result<(), &'static str> {
    match shape {
        [] => {
            if values.len() == MAX_ELEMENTS {
                return Err("there are too many numbers");
            }
            values.push(number(value).ok_or("a number is expected")?);
            Ok(())
        }
        [count, rest @ ..] if value.kind() == Kind::Array && value.len() == *count => {
            value.items().try_for_each(|item| flatten(item, rest, values))
        }
        _ => Err("lists of uneven length"),
    }
}

/// A number, also one that is written as a string, and true and false.
pub(super) fn number(value: Value<'_>) -> Option<f64> {
    match value.kind() {
        Kind::Number => value.read_number::<f64>(crate::api::json::Conversion::Exact),
        Kind::String => std::str::from_utf8(&value.string()?).ok()?.trim().parse().ok(),
        Kind::True => Some(1.0),
        Kind::False => Some(0.0),
        _ => None,
    }
}

/// Numbers in the type of an input. Whole numbers are exact up to 2^53.
pub(super) fn tensor_of(info: &TensorInfo, shape: Vec<usize>, values: &[f64]) -> Result<Tensor, Error> {
    macro_rules! converted {
        ($convert:expr) => {
            Tensor::from_slice(shape, &values.iter().map($convert).collect::<Vec<_>>())
        };
    }
    macro_rules! whole {
        ($rust:ty) => {{
            let fits = |value: &f64| {
                value.fract() == 0.0 && (<$rust>::MIN as f64..=<$rust>::MAX as f64).contains(value)
            };
            if let Some(wrong) = values.iter().find(|value| !fits(value)) {
                return Err(Error::invalid_argument(format!(
                    "input {}: {wrong} is not of type {}",
                    info.name,
                    stringify!($rust)
                )));
            }
            converted!(|&value| value as $rust)
        }};
    }
    let tensor = match info.dtype {
        Some(DType::F32) => converted!(|&value| value as f32),
        Some(DType::F64) => Tensor::from_slice(shape, values),
        Some(DType::F16) => converted!(|&value| half::f16::from_f64(value)),
        Some(DType::I64) => whole!(i64),
        Some(DType::I32) => whole!(i32),
        Some(DType::I16) => whole!(i16),
        Some(DType::I8) => whole!(i8),
        Some(DType::U8) => whole!(u8),
        Some(DType::U16) => whole!(u16),
        Some(DType::U32) => whole!(u32),
        Some(DType::Bool) => {
            let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value != 0.0)).collect();
            crate::tensor::Buffer::copy_of(&bytes)
                .and_then(|buffer| Tensor::from_buffer(DType::Bool, shape, buffer))
        }
        _ => {
            return Err(Error::unimplemented(format!(
                "numbers for input {} of this element type",
                info.name
            )));
        }
    };
    tensor.map_err(|error| Error::invalid_argument(format!("input {}: {error}", info.name)))
}
