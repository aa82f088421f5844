//! Classify and regress: examples in, classes or values out.

use super::{TfsRest, examples};
use crate::{
    api::json::write::Writer,
    models::{self, Class, Error, ModelRef, Patience},
};
use bytes::Bytes;

impl TfsRest {
    /// Runs classify and writes its answer.
    pub(super) fn classify(
        &self,
        model: &ModelRef,
        body: &Bytes,
        patience: &Patience,
    ) -> Result<Vec<u8>, Error> {
        let request = examples::parse(body, self.conversion())?;
        let servable = self.registry.find(model)?;
        let results = models::classify(&servable, request.signature.as_deref(), request.examples, patience)?;
        classifications(&results)
    }

    /// Runs regress and writes its answer.
    pub(super) fn regress(
        &self,
        model: &ModelRef,
        body: &Bytes,
        patience: &Patience,
    ) -> Result<Vec<u8>, Error> {
        let request = examples::parse(body, self.conversion())?;
        let servable = self.registry.find(model)?;
        let results = models::regress(&servable, request.signature.as_deref(), request.examples, patience)?;
        regressions(&results)
    }
}

// The key is `results`, although TensorFlow Serving's own documentation says `result`.

fn classifications(results: &[Vec<Class>]) -> Result<Vec<u8>, Error> {
    if results.is_empty() {
        return Err(Error::invalid_argument("Cannot convert empty ClassificationResults to JSON"));
    }
    let mut writer = Writer::new(4);
    writer.begin_object();
    writer.key(b"results");
    writer.begin_array();
    for classes in results {
        writer.single_line_arrays(true);
        writer.begin_array();
        for class in classes {
            writer.begin_array();
            writer.string(&class.label);
            writer.f32(class.score);
            writer.end_array();
        }
        writer.end_array();
        writer.single_line_arrays(false);
    }
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}

fn regressions(results: &[f32]) -> Result<Vec<u8>, Error> {
    if results.is_empty() {
        return Err(Error::invalid_argument("Cannot convert empty RegressionResults to JSON"));
    }
    let mut writer = Writer::new(4);
    writer.begin_object();
    writer.key(b"results");
    writer.single_line_arrays(true);
    writer.begin_array();
    results.iter().for_each(|&value| writer.f32(value));
    writer.end_array();
    writer.end_object();
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from TensorFlow Serving.
    #[test]
    fn layouts() {
        let class = |label: &'static str, score| Class { label: Bytes::from_static(label.as_bytes()), score };
        let results = [vec![class("car", 0.2), class("bike", 0.7)], vec![class("", 12.0)]];
        assert_eq!(
            classifications(&results).unwrap(),
            b"{\n    \"results\": [[[\"car\", 0.2], [\"bike\", 0.7]], [[\"\", 12.0]]\n    ]\n}"
        );
        assert_eq!(
            regressions(&[0.2, f32::INFINITY, 1.0, f32::NAN]).unwrap(),
            b"{\n    \"results\": [0.2, Infinity, 1.0, NaN]\n}"
        );
        assert!(classifications(&[]).is_err() && regressions(&[]).is_err());
    }
}
