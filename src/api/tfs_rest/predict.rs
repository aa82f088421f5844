//! The body of predict: rows (`instances`) or columns (`inputs`), and the request it makes.

use super::{
    TfsRest, outputs, shown,
    tensors::{Builder, Collected, dump, is_base64},
};
use crate::{
    api::json::{Document, Kind, SyntaxError, Value},
    models::{
        self, DEFAULT_SIGNATURE, Error, ModelRef, Patience, Request, Servable, Signature, image::takes_images,
    },
    tensor::{DType, Shape, Tensor},
};
use bytes::Bytes;

/// How a request gives its tensors, and wants them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A list of examples, each with a value for every tensor.
    Row,
    /// A tensor for every name.
    Columnar,
}

impl TfsRest {
    /// Runs predict and writes its answer.
    pub(super) fn predict(
        &self,
        model: ModelRef,
        body: &Bytes,
        patience: &Patience,
    ) -> Result<Vec<u8>, Error> {
        // That the model is missing is told only after what is wrong with the body.
        let servable = self.registry.find(&model);
        let dtype = servable.as_ref().ok().and_then(|servable| foreseen_dtype(servable, body));
        let (document, mut collected) =
            checked(body, |body| Collected::parse(body, dtype, self.conversion()), |(document, _)| document)?;
        let root = document.root();
        let wanted = signature_name(root)?;
        let servable = servable?;
        let name = wanted.as_deref().unwrap_or(DEFAULT_SIGNATURE);
        let no_inputs = || {
            let shown = wanted.as_deref().unwrap_or("DEFAULT");
            Error::invalid_argument(format!("Failed to get input map for signature: {shown}"))
        };
        let signature = match servable.signature(name) {
            Some(signature) if signature.inputs.is_empty() => return Err(no_inputs()),
            Some(signature) => signature,
            None if servable.definitions.get(name).is_some_and(|definition| definition.inputs.is_empty()) => {
                return Err(no_inputs());
            }
            None => {
                return Err(Error::invalid_argument(format!(
                    "Serving signature name: \"{name}\" not found in signature def"
                )));
            }
        };
        let (layout, inputs) = self.inputs(root, signature, body, &mut collected)?;
        let request = Request {
            model,
            signature: wanted.clone(),
            inputs,
            outputs: Vec::new(),
            patience: patience.clone(),
        };
        let response = models::predict(&servable, request)?;
        outputs::write(&response.outputs, layout, self.config.strict)
    }

    fn inputs(
        &self,
        root: Value<'_>,
        signature: &Signature,
        body: &Bytes,
        collected: &mut Collected,
    ) -> Result<(Layout, Vec<(String, Tensor)>), Error> {
        let format_error = |text: &str| Error::invalid_argument(format!("JSON Value: {} {text}", dump(root)));
        match (root.find("instances"), root.find("inputs")) {
            (Some(_), Some(_)) => Err(format_error(
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
            )),
            (Some(instances), None) if instances.kind() != Kind::Array => {
                Err(format_error("Expecting 'instances' to be an list/array"))
            }
            (Some(instances), None) if instances.is_empty() => {
                Err(format_error("No values in 'instances' array"))
            }
            (Some(instances), None) => Ok((Layout::Row, self.rows(instances, signature, body, collected)?)),
            (None, Some(inputs)) => Ok((Layout::Columnar, self.columns(inputs, signature, body, collected)?)),
            (None, None) => Err(Error::invalid_argument("Missing 'inputs' or 'instances' key")),
        }
    }

    fn rows(
        &self,
        instances: Value<'_>,
        signature: &Signature,
        body: &Bytes,
        collected: &mut Collected,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        // One tensor's rows are the tensor.
        if let [info] = &*signature.inputs
            && let Some(tensor) = collected.tensor(instances, info.dtype)
        {
            return Ok(vec![(info.name.clone(), tensor)]);
        }
        let mut columns = self.new_columns(signature, body);
        let is_named = |item: Value<'_>| item.kind() == Kind::Object && !is_base64(item);
        let mut named = false;
        for (number, item) in instances.items().enumerate() {
            if number == 0 {
                if item.kind() != Kind::Object && columns.len() > 1 {
                    return Err(Error::invalid_argument(
                        "instances is a plain list, but expecting list of objects as multiple \
                         input tensors required as per tensorinfo_map",
                    ));
                }
                named = is_named(item);
            }
            match (named, is_named(item)) {
                (true, true) => add_object(&mut columns, item, number)?,
                (false, false) => {
                    let Some(column) = columns.first_mut() else { continue };
                    column.add(item).map_err(|error| failed(number, None, &error))?;
                }
                (true, false) => {
                    return Err(Error::invalid_argument(format!(
                        "Expecting object but got list at item {number} of input list"
                    )));
                }
                (false, true) => {
                    return Err(Error::invalid_argument(format!(
                        "Expecting value/list but got object at item {number} of input list"
                    )));
                }
            }
        }
        columns.into_iter().filter_map(|column| column.finish(instances.len()).transpose()).collect()
    }

    fn columns(
        &self,
        inputs: Value<'_>,
        signature: &Signature,
        body: &Bytes,
        collected: &mut Collected,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let columns = self.new_columns(signature, body);
        let named = inputs.kind() == Kind::Object && !is_base64(inputs);
        if !named && columns.len() > 1 {
            return Err(Error::invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors \
                 required as per tensorinfo_map",
            ));
        }
        let tensor = |Column { name, dtype, builder, files, .. }: Column<'_>| {
            let value = if named { inputs.find(name) } else { Some(inputs) };
            let value = value.ok_or_else(|| {
                Error::invalid_argument(format!("Missing named input: {name} in 'inputs' object."))
            })?;
            if let Some(tensor) = collected.tensor(value, dtype) {
                return Ok((name.to_owned(), tensor));
            }
            let mut builder = match files {
                Some(files) if is_base64(value) || value.items().next().is_some_and(is_base64) => files,
                _ => builder,
            };
            let (shape, _) = builder.append(value)?;
            Ok((name.to_owned(), builder.finish(shape)?))
        };
        columns.into_iter().map(tensor).collect()
    }

    fn new_columns<'a>(&self, signature: &'a Signature, body: &'a Bytes) -> Vec<Column<'a>> {
        let conversion = self.conversion();
        let column = |info: &'a models::TensorInfo| Column {
            name: &info.name,
            dtype: info.dtype,
            builder: Builder::new(info, &signature.definition, body, conversion),
            files: takes_images(info).then(|| {
                let info = models::TensorInfo { dtype: Some(DType::String), ..info.clone() };
                Builder::new(&info, &signature.definition, body, conversion)
            }),
            item: None,
            last_row: None,
        };
        signature.inputs.iter().map(column).collect()
    }
}

/// One input tensor, row by row.
struct Column<'a> {
    name: &'a str,
    dtype: Option<DType>,
    builder: Builder<'a>,
    /// For an input of pixels: takes image files instead.
    files: Option<Builder<'a>>,
    /// Shape and number of elements that the first row gave.
    item: Option<(Shape, usize)>,
    /// The row that gave it a value last.
    last_row: Option<usize>,
}

impl Column<'_> {
    fn add(&mut self, value: Value<'_>) -> Result<(), Error> {
        if self.item.is_none()
            && is_base64(value)
            && let Some(files) = self.files.take()
        {
            self.builder = files;
        }
        let (shape, size) = self.builder.append(value)?;
        match &self.item {
            None => self.item = Some((shape, size)),
            Some((_, expected)) if *expected != size => {
                return Err(Error::invalid_argument(format!(
                    "Expecting tensor size: {expected} but got: {size}"
                )));
            }
            Some((expected, _)) if *expected != shape => {
                return Err(Error::invalid_argument(format!("Expecting shape {expected} but got: {shape}")));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The tensor of all rows; `None` for one that no row named.
    fn finish(self, rows: usize) -> Result<Option<(String, Tensor)>, Error> {
        let Some((mut shape, _)) = self.item else { return Ok(None) };
        shape.insert(0, rows);
        Ok(Some((self.name.to_owned(), self.builder.finish(shape)?)))
    }
}

fn add_object(columns: &mut [Column<'_>], object: Value<'_>, number: usize) -> Result<(), Error> {
    for (key, value) in object.members() {
        let column = columns.iter_mut().find(|column| column.name.as_bytes() == &*key);
        let result = match column {
            None => Err(Error::invalid_argument(format!(
                "JSON object: does not have named input: {}",
                shown(&key)
            ))),
            Some(column) => {
                column.last_row = Some(number);
                column.add(value)
            }
        };
        result.map_err(|error| failed(number, Some(&shown(&key)), &error))?;
    }
    if columns.iter().all(|column| column.last_row == Some(number)) {
        return Ok(());
    }
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    Err(Error::invalid_argument(format!(
        "Failed to process element: {number} of 'instances' list. JSON object: {} keys must be equal to: {}",
        dump(object),
        names.join(",")
    )))
}

fn failed(number: usize, key: Option<&str>, error: &Error) -> Error {
    let key = key.map(|key| format!(" key: {key}")).unwrap_or_default();
    Error::invalid_argument(format!(
        "Failed to process element: {number}{key} of 'instances' list. Error: {error}"
    ))
}

/// Parses a body whose top level must be an object.
pub(super) fn parse(body: &[u8]) -> Result<Document<'_>, Error> {
    checked(body, Document::parse, |document| document)
}

fn checked<'b, T>(
    body: &'b [u8],
    parse: impl FnOnce(&'b [u8]) -> Result<T, SyntaxError>,
    document: impl FnOnce(&T) -> &Document<'b>,
) -> Result<T, Error> {
    if body.is_empty() {
        return Err(Error::invalid_argument("JSON Parse error: The document is empty"));
    }
    let parsed =
        parse(body).map_err(|error| Error::invalid_argument(format!("JSON Parse error: {error}")))?;
    let root = document(&parsed).root();
    if root.kind() != Kind::Object {
        let message = format!("JSON Value: {} Is not object", dump(root));
        return Err(Error::invalid_argument(message));
    }
    Ok(parsed)
}

/// The type of the signature's inputs, as far as can be told before the body is parsed. A wrong
/// guess costs time and nothing else.
fn foreseen_dtype(servable: &Servable, body: &[u8]) -> Option<DType> {
    const KEY: &[u8] = b"\"signature_name\"";
    let name = match memchr::memmem::find(body, KEY) {
        None => DEFAULT_SIGNATURE,
        Some(at) => {
            let value = body.get(at + KEY.len()..)?.trim_ascii_start().strip_prefix(b":")?;
            let value = value.trim_ascii_start().strip_prefix(b"\"")?;
            std::str::from_utf8(value.get(..memchr::memchr(b'"', value)?)?).ok()?
        }
    };
    let mut dtypes = servable.signature(name)?.inputs.iter().map(|info| info.dtype);
    let first = dtypes.next()??;
    dtypes.all(|dtype| dtype == Some(first)).then_some(first)
}

/// The signature that the body names; an empty name is none.
pub(super) fn signature_name(root: Value<'_>) -> Result<Option<String>, Error> {
    let Some(value) = root.find("signature_name") else { return Ok(None) };
    match value.string() {
        Some(name) => Ok(Some(shown(&name).into_owned()).filter(|name| !name.is_empty())),
        None => Err(Error::invalid_argument(format!(
            "JSON Value: {} not formatted correctly. 'signature_name' key must be a string value.",
            dump(root)
        ))),
    }
}
