//! The body of classify and regress: JSON objects become serialized `tf.Example`s.
//!
//! The kind of a feature is that of its first value. Where the body has a `context`, its bytes
//! stand before each example's, which makes them one message in which the example's features win.

use super::{
    predict,
    tensors::{base64, dump, is_base64, string},
};
use crate::{
    api::json::{Conversion, Kind, Number, Value},
    models::Error,
    proto::tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List, feature},
};
use bytes::{Bytes, BytesMut};
use prost::Message;

/// What classify and regress are asked.
pub(super) struct Examples {
    pub(super) signature: Option<String>,
    /// Serialized `tf.Example`s.
    pub(super) examples: Vec<Bytes>,
}

/// Reads a body.
///
/// # Errors
/// `INVALID_ARGUMENT` for JSON that is broken, lacks `examples`, or holds values that no feature
/// can.
pub(super) fn parse(body: &Bytes, conversion: Conversion) -> Result<Examples, Error> {
    let document = predict::parse(body)?;
    let root = document.root();
    let signature = predict::signature_name(root)?;
    let read = |value| example(value, body, conversion);
    let context = root.find("context").map(read).transpose()?;
    let format_error = |text: &str| Error::invalid_argument(format!("JSON Value: {} {text}", dump(root)));
    let list = match root.find("examples") {
        // The text is the same for regress.
        None => {
            return Err(format_error(
                "When method is classify, key 'examples' is expected and was not found",
            ));
        }
        Some(list) if list.kind() != Kind::Array => {
            return Err(format_error("Expecting 'examples' value to be an list/array"));
        }
        Some(list) if list.is_empty() => return Err(format_error("'examples' value is an empty array")),
        Some(list) => list,
    };
    let context = context.map(|context| context.encode_to_vec()).unwrap_or_default();
    let serialize = |value| {
        let example = read(value)?;
        let mut bytes = BytesMut::with_capacity(context.len() + example.encoded_len());
        bytes.extend_from_slice(&context);
        example.encode(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
        Ok(bytes.freeze())
    };
    let examples = list.items().map(serialize).collect::<Result<_, Error>>()?;
    Ok(Examples { signature, examples })
}

fn example(value: Value<'_>, body: &Bytes, conversion: Conversion) -> Result<Example, Error> {
    if value.kind() != Kind::Object {
        return Err(Error::invalid_argument(format!(
            "Example must be JSON object but got JSON {}",
            value.kind().name()
        )));
    }
    let mut features = Features::default();
    for (name, content) in value.members() {
        let name = super::shown(&name).into_owned();
        let mut reader = FeatureReader { name: &name, kind: None, body, conversion };
        if content.kind() == Kind::Array {
            content.items().try_for_each(|item| reader.add(item))?;
        } else {
            reader.add(content)?;
        }
        let feature = Feature { kind: reader.kind };
        features.feature.insert(name, feature);
    }
    // Without a feature the message of features is not set.
    Ok(Example { features: Some(features).filter(|features| !features.feature.is_empty()) })
}

struct FeatureReader<'a> {
    name: &'a str,
    kind: Option<feature::Kind>,
    body: &'a Bytes,
    conversion: Conversion,
}

impl FeatureReader<'_> {
    fn add(&mut self, value: Value<'_>) -> Result<(), Error> {
        match value.kind() {
            Kind::True => self.integer(1),
            Kind::False => self.integer(0),
            Kind::String => self.bytes(|reader| Ok(string(value, reader.body))),
            Kind::Object if is_base64(value) => self.bytes(|_| base64(value)),
            kind @ (Kind::Null | Kind::Array | Kind::Object) => Err(Error::invalid_argument(format!(
                "Feature: {} has element with unexpected JSON type: {}",
                self.name,
                kind.name()
            ))),
            Kind::Number => match value.number(self.conversion) {
                Number::Double(_) => self.float(value),
                Number::Negative(integer) => self.integer(integer),
                Number::Positive(integer) => match i64::try_from(integer) {
                    Ok(integer) => self.integer(integer),
                    Err(_) if !matches!(self.kind, None | Some(feature::Kind::Int64List(_))) => {
                        Err(self.incompatible())
                    }
                    Err(_) => Err(Error::invalid_argument(format!(
                        "Feature: {} has uint64_t element. Only int64_t is supported.",
                        self.name
                    ))),
                },
            },
        }
    }

    fn integer(&mut self, value: i64) -> Result<(), Error> {
        match self.kind.get_or_insert_with(|| feature::Kind::Int64List(Int64List::default())) {
            feature::Kind::Int64List(list) => list.value.push(value),
            _ => return Err(self.incompatible()),
        }
        Ok(())
    }

    fn float(&mut self, value: Value<'_>) -> Result<(), Error> {
        match self.kind.get_or_insert_with(|| feature::Kind::FloatList(FloatList::default())) {
            feature::Kind::FloatList(list) => {
                list.value.push(value.read_number::<f32>(self.conversion).unwrap_or(f32::NAN));
            }
            _ => return Err(self.incompatible()),
        }
        Ok(())
    }

    fn bytes(&mut self, read: impl FnOnce(&Self) -> Result<Bytes, Error>) -> Result<(), Error> {
        if !matches!(self.kind, None | Some(feature::Kind::BytesList(_))) {
            return Err(self.incompatible());
        }
        let value = read(self)?;
        if let feature::Kind::BytesList(list) =
            self.kind.get_or_insert_with(|| feature::Kind::BytesList(BytesList::default()))
        {
            list.value.push(value);
        }
        Ok(())
    }

    fn incompatible(&self) -> Error {
        let expected = match self.kind {
            Some(feature::Kind::BytesList(_)) => "bytes",
            Some(feature::Kind::FloatList(_)) => "float",
            Some(feature::Kind::Int64List(_)) => "int64",
            None => "UNKNOWN",
        };
        Error::invalid_argument(format!(
            "Unexpected element type in feature: {} expecting type: {expected}",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Result<Examples, Error> {
        parse(&Bytes::copy_from_slice(body.as_bytes()), Conversion::Exact)
    }

    fn refused(body: &str) -> String {
        parsed(body).err().expect(body).message.into_owned()
    }

    /// Recorded from TensorFlow Serving.
    #[test]
    fn refusals() {
        for (body, expected) in [
            (
                r#"{"examples":[{"names":[10,null]}]}"#,
                "Feature: names has element with unexpected JSON type: Null",
            ),
            (
                r#"{"examples":[{"names":[10,10.0]}]}"#,
                "Unexpected element type in feature: names expecting type: int64",
            ),
            (
                r#"{"examples":[{"names":[[10],20]}]}"#,
                "Feature: names has element with unexpected JSON type: Array",
            ),
            (
                r#"{"examples":[{"names":[20,18446744073709551603]}]}"#,
                "Feature: names has uint64_t element. Only int64_t is supported.",
            ),
            (
                r#"{"foo":1}"#,
                "JSON Value: {\n    \"foo\": 1\n} When method is classify, key 'examples' is expected and was not found",
            ),
            (
                r#"{"examples":[]}"#,
                "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
            ),
            (
                r#"{"examples":[{"x":[1.0,"a"]}]}"#,
                "Unexpected element type in feature: x expecting type: float",
            ),
            (
                r#"{"examples":[{"x":["a",true]}]}"#,
                "Unexpected element type in feature: x expecting type: bytes",
            ),
            (
                r#"{"examples":[{"x":[1.5,18446744073709551603]}]}"#,
                "Unexpected element type in feature: x expecting type: float",
            ),
            (r#"{"examples":[{"x":{"b64":"a"}}]}"#, "Unable to base64 decode"),
            (r#"{"examples":[{"x":{"a":1}}]}"#, "Feature: x has element with unexpected JSON type: Object"),
            (r#"{"examples":[[]]}"#, "Example must be JSON object but got JSON Array"),
            (r#"{"context":1,"examples":[]}"#, "Example must be JSON object but got JSON Number"),
        ] {
            assert_eq!(refused(body), expected, "{body}");
        }
    }

    /// The bytes that TensorFlow's own clients send for `{"x": 80.0}`.
    #[test]
    fn serialized() {
        let examples = parsed(r#"{"signature_name":"s","examples":[{"x":80.0},{}]}"#).unwrap();
        assert_eq!(examples.signature.as_deref(), Some("s"));
        let expected = crate::api::json::base64::decode(b"Cg8KDQoBeBIIEgYKBAAAoEI=").unwrap();
        assert_eq!(examples.examples, [Bytes::from(expected), Bytes::new()]);
    }

    #[test]
    fn context_is_merged() {
        let body = r#"{"context":{"x":[1.0,NaN],"y":"c"},"examples":[{"x":2.5,"z":[true,-1],"e":[]},{}]}"#;
        let examples = parsed(body).unwrap().examples;
        let merged = Example::decode(examples[0].clone()).unwrap().features.unwrap().feature;
        let kind = |name: &str| merged[name].kind.clone();
        assert_eq!(kind("x"), Some(feature::Kind::FloatList(FloatList { value: vec![2.5] })));
        assert_eq!(kind("y"), Some(feature::Kind::BytesList(BytesList { value: vec!["c".into()] })));
        assert_eq!(kind("z"), Some(feature::Kind::Int64List(Int64List { value: vec![1, -1] })));
        assert_eq!(kind("e"), None);
        let context = Example::decode(examples[1].clone()).unwrap().features.unwrap().feature;
        assert_eq!(context.len(), 2);
    }
}
