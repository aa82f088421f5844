//! Classify and regress: serialized `tf.Example`s through a signature with the conventional names
//! `inputs`, `classes`, `scores` and `outputs`, and the checks of what comes back.
//!
//! Texts and order of the checks are TensorFlow Serving's; a signature's method name is not looked at.

use super::{
    Error, Patience, Recorded, Servable, Signature, data_type,
    record::recorder_of,
    run::{CLASSIFY, REGRESS, dtype_mismatch, run, signature_name},
    signature_text::SignatureText,
};
use crate::tensor::{Bytes, DType, Tensor};

/// One class of one example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Its label; empty when the signature has no `classes` output.
    pub label: Bytes,
    /// Its score; 0 when the signature has no `scores` output.
    pub score: f32,
}

/// Classifies serialized `tf.Example`s: the classes of each.
///
/// # Errors
/// `INVALID_ARGUMENT` for an unknown signature, no examples, a signature with another number of
/// inputs or outputs, and outputs that are not `[examples, classes]` of strings (`classes`) or
/// floats (`scores`); `FAILED_PRECONDITION` for a signature without the conventional names; and
/// what the program refuses, which includes Examples that lack a feature.
pub fn classify(
    servable: &Servable,
    signature: Option<&str>,
    examples: Vec<Bytes>,
    patience: &Patience,
) -> Result<Vec<Vec<Class>>, Error> {
    let signature = find(servable, signature, "classification", CLASSIFY)?;
    let outputs = ClassifyOutputs::of(signature)?;
    let count = examples.len();
    let recorded = recorder_of(servable).map(|recorder| (recorder, examples.clone()));
    let classes = outputs.collect(&run_examples(signature, &outputs.wanted(), examples, patience)?, count)?;
    if let Some((recorder, examples)) = recorded {
        let call = Recorded::Classify { signature: &signature.name, examples: &examples, classes: &classes };
        recorder.record(servable, &call);
    }
    Ok(classes)
}

/// Regresses serialized `tf.Example`s: one value each.
///
/// # Errors
/// As [`classify`]; the output must be floats of shape `[examples]` or `[examples, 1]`.
pub fn regress(
    servable: &Servable,
    signature: Option<&str>,
    examples: Vec<Bytes>,
    patience: &Patience,
) -> Result<Vec<f32>, Error> {
    let signature = find(servable, signature, "regression", REGRESS)?;
    let output = regress_output(signature)?;
    let count = examples.len();
    let recorded = recorder_of(servable).map(|recorder| (recorder, examples.clone()));
    let values = regressions(&run_examples(signature, &[output], examples, patience)?, count)?;
    if let Some((recorder, examples)) = recorded {
        let call = Recorded::Regress { signature: &signature.name, examples: &examples, values: &values };
        recorder.record(servable, &call);
    }
    Ok(values)
}

fn find<'a>(
    servable: &'a Servable,
    signature: Option<&str>,
    kind: &str,
    method: &str,
) -> Result<&'a Signature, Error> {
    let name = signature_name(signature);
    let signature = servable
        .signature(name)
        .ok_or_else(|| Error::invalid_argument(format!("No signature was found with the name: {name}")))?;
    if servable.check_method_names && signature.method_name() != method {
        return Err(Error::invalid_argument(format!(
            "Expected {kind} signature method_name to be {method}. Was: {}",
            signature.method_name()
        )));
    }
    Ok(signature)
}

/// Feeds Examples to a signature's only input.
pub(super) fn run_examples(
    signature: &Signature,
    wanted: &[usize],
    examples: Vec<Bytes>,
    patience: &Patience,
) -> Result<Vec<Tensor>, Error> {
    if examples.is_empty() {
        return Err(Error::invalid_argument("Input is empty."));
    }
    let input = Tensor::from_strings([examples.len()], examples)
        .map_err(|error| Error::internal(error.to_string()))?;
    let inputs = [input];
    // Published models declare a float input here and take strings, so the declared type does not
    // refuse a request; it only explains a refusal.
    run(signature, &inputs, wanted, patience).map_err(|error| match error.code {
        super::Code::DeadlineExceeded | super::Code::Cancelled => error,
        _ => dtype_mismatch(signature, &inputs).unwrap_or(error),
    })
}

/// Where a classification signature has its results.
pub(super) struct ClassifyOutputs {
    classes: Option<usize>,
    scores: Option<usize>,
}

impl ClassifyOutputs {
    /// Finds `classes` and `scores` among a signature's outputs.
    pub(super) fn of(signature: &Signature) -> Result<Self, Error> {
        one_input(signature)?;
        if !(1..=2).contains(&signature.outputs.len()) {
            return Err(Error::invalid_argument(format!(
                "Expected one or two output Tensors, found {}",
                signature.outputs.len()
            )));
        }
        let definition = SignatureText(&signature.definition);
        if signature.inputs.iter().all(|info| info.name != "inputs") {
            return Err(Error::failed_precondition(format!(
                "No classification inputs found in SignatureDef: {definition}"
            )));
        }
        let found = Self { classes: output(signature, "classes"), scores: output(signature, "scores") };
        if found.classes.is_none() && found.scores.is_none() {
            return Err(Error::failed_precondition(format!(
                "Expected classification signature outputs to contain at least one of \"classes\" or \
                 \"scores\". Signature was: {definition}"
            )));
        }
        Ok(found)
    }

    /// Output positions to run, `classes` first.
    pub(super) fn wanted(&self) -> Vec<usize> {
        self.classes.into_iter().chain(self.scores).collect()
    }

    /// Checks the tensors at [`Self::wanted`] and turns them into classes per example.
    pub(super) fn collect(&self, tensors: &[Tensor], examples: usize) -> Result<Vec<Vec<Class>>, Error> {
        let mut tensors = tensors.iter();
        let classes = self.classes.and_then(|_| tensors.next());
        let scores = self.scores.and_then(|_| tensors.next());
        for (name, tensor, expected) in [("classes", classes, DType::String), ("scores", scores, DType::F32)]
        {
            if let Some(tensor) = tensor {
                check_matrix(name, tensor, expected, examples)?;
            }
        }
        let width = |tensor: Option<&Tensor>| tensor.and_then(|tensor| tensor.shape().get(1).copied());
        if let (Some(labels), Some(values)) = (width(classes), width(scores))
            && labels != values
        {
            return Err(Error::invalid_argument(format!(
                "Tensors class and score should match in dim_size(1). Got {labels} vs. {values}"
            )));
        }
        let count = width(classes).or(width(scores)).unwrap_or(0);
        if count == 0 {
            return Ok(vec![Vec::new(); examples]);
        }
        let wrong = |error: crate::tensor::TensorError| Error::internal(error.to_string());
        let labels = classes.map(Tensor::as_strings).transpose().map_err(wrong)?;
        let values = scores.map(Tensor::as_slice::<f32>).transpose().map_err(wrong)?;
        let class = |position: usize| Class {
            label: labels.and_then(|labels| labels.get(position)).cloned().unwrap_or_default(),
            score: values.and_then(|values| values.get(position)).copied().unwrap_or_default(),
        };
        Ok((0..examples).map(|row| (row * count..(row + 1) * count).map(class).collect()).collect())
    }
}

fn check_matrix(name: &str, tensor: &Tensor, expected: DType, examples: usize) -> Result<(), Error> {
    let [rows, _] = tensor.shape()[..] else {
        return Err(Error::invalid_argument(format!(
            "Expected Tensor shape: [batch_size num_classes] but got {}",
            tensor.shape()
        )));
    };
    if tensor.dtype() != expected {
        return Err(Error::invalid_argument(format!(
            "Expected {name} Tensor of {}. Got: {}",
            data_type(expected).as_str_name(),
            data_type(tensor.dtype()).as_str_name()
        )));
    }
    if rows != examples {
        return Err(Error::invalid_argument(format!(
            "Expected {name} output batch size of {examples}. Got: {rows}"
        )));
    }
    Ok(())
}

/// The position of a regression signature's `outputs`.
pub(super) fn regress_output(signature: &Signature) -> Result<usize, Error> {
    one_input(signature)?;
    if signature.outputs.len() != 1 {
        return Err(Error::invalid_argument("Expected one output Tensor."));
    }
    let definition = SignatureText(&signature.definition);
    if signature.inputs.iter().all(|info| info.name != "inputs") {
        return Err(Error::failed_precondition(format!(
            "No regression inputs found in SignatureDef: {definition}"
        )));
    }
    output(signature, "outputs").ok_or_else(|| {
        Error::failed_precondition(format!("No regression outputs found in SignatureDef: {definition}"))
    })
}

/// Checks the one tensor of a regression: a float per example.
pub(super) fn regressions(tensors: &[Tensor], examples: usize) -> Result<Vec<f32>, Error> {
    let [tensor] = tensors else {
        return Err(Error::invalid_argument(
            "Expected output_tensors and output_tensor_names to have the same size.",
        ));
    };
    let ([rows] | [rows, 1]) = tensor.shape()[..] else {
        return Err(Error::invalid_argument(format!(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {}",
            tensor.shape()
        )));
    };
    if rows != examples {
        return Err(Error::invalid_argument(format!(
            "Input batch size did not match output batch size: {examples} vs. {rows}"
        )));
    }
    tensor.as_slice::<f32>().map(<[f32]>::to_vec).map_err(|_| {
        Error::invalid_argument(format!(
            "Expected output Tensor of DT_FLOAT.  Got: {}",
            data_type(tensor.dtype()).as_str_name()
        ))
    })
}

fn one_input(signature: &Signature) -> Result<(), Error> {
    match signature.inputs.len() {
        1 => Ok(()),
        _ => Err(Error::invalid_argument("Expected one input Tensor.")),
    }
}

fn output(signature: &Signature, name: &str) -> Option<usize> {
    signature.outputs.iter().position(|info| info.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{
        Code,
        fakes::{self, Returns},
    };

    const STRINGS: [(&str, &str, DType); 1] = [("inputs", "tf_example:0", DType::String)];

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    fn labels(shape: &[usize], values: &[&'static str]) -> Tensor {
        Tensor::from_strings(shape, values.iter().map(|&value| Bytes::from(value)).collect()).unwrap()
    }

    fn classifier(outputs: Vec<(&str, Tensor)>) -> Servable {
        let infos: Vec<_> = outputs.iter().map(|(name, tensor)| (*name, *name, tensor.dtype())).collect();
        let tensors = outputs.iter().map(|(_, tensor)| tensor.clone()).collect();
        let signature = fakes::signature("serving_default", &STRINGS, &infos, Returns::tensors(tensors));
        fakes::servable("m", 1, [signature])
    }

    fn two() -> Vec<Bytes> {
        vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]
    }

    fn classified(outputs: Vec<(&str, Tensor)>) -> Result<Vec<Vec<Class>>, (Code, String)> {
        classify(&classifier(outputs), None, two(), &Patience::default())
            .map_err(|error| (error.code, error.message.into_owned()))
    }

    fn regressed(output: Tensor) -> Result<Vec<f32>, (Code, String)> {
        regress(&classifier(vec![("outputs", output)]), None, two(), &Patience::default())
            .map_err(|error| (error.code, error.message.into_owned()))
    }

    fn invalid<T>(message: &str) -> Result<T, (Code, String)> {
        Err((Code::InvalidArgument, message.to_owned()))
    }

    #[test]
    fn classes_carry_labels_and_scores() {
        let both = classified(vec![
            ("classes", labels(&[2, 2], &["p", "q", "r", "s"])),
            ("scores", floats(&[2, 2], &[0.1, 0.9, 0.8, 0.2])),
        ]);
        let class = |label: &'static str, score| Class { label: label.into(), score };
        assert_eq!(both.unwrap(), [[class("p", 0.1), class("q", 0.9)], [class("r", 0.8), class("s", 0.2)]]);
        let scores = classified(vec![("scores", floats(&[2, 1], &[3.0, 4.0]))]).unwrap();
        assert_eq!(scores, [[class("", 3.0)], [class("", 4.0)]]);
        let names = classified(vec![("classes", labels(&[2, 1], &["p", "q"]))]).unwrap();
        assert_eq!(names, [[class("p", 0.0)], [class("q", 0.0)]]);
        let none = classified(vec![("scores", floats(&[2, 0], &[]))]).unwrap();
        assert_eq!(none, vec![Vec::new(), Vec::new()]);
    }

    #[test]
    fn classification_outputs_are_checked() {
        assert_eq!(
            classified(vec![("scores", floats(&[2], &[1.0, 2.0]))]),
            invalid("Expected Tensor shape: [batch_size num_classes] but got [2]")
        );
        assert_eq!(
            classified(vec![("scores", Tensor::from_slice([2, 1], &[1i32, 2]).unwrap())]),
            invalid("Expected scores Tensor of DT_FLOAT. Got: DT_INT32")
        );
        assert_eq!(
            classified(vec![("classes", floats(&[2, 1], &[1.0, 2.0]))]),
            invalid("Expected classes Tensor of DT_STRING. Got: DT_FLOAT")
        );
        assert_eq!(
            classified(vec![("scores", floats(&[3, 1], &[1.0, 2.0, 3.0]))]),
            invalid("Expected scores output batch size of 2. Got: 3")
        );
        assert_eq!(
            classified(vec![
                ("classes", labels(&[2, 1], &["p", "q"])),
                ("scores", floats(&[2, 2], &[0.0; 4]))
            ]),
            invalid("Tensors class and score should match in dim_size(1). Got 1 vs. 2")
        );
        let three = ["classes", "scores", "y"].map(|name| (name, floats(&[2, 1], &[0.0; 2])));
        assert_eq!(classified(three.into()), invalid("Expected one or two output Tensors, found 3"));
        let (code, message) = classified(vec![("y", floats(&[2, 1], &[0.0; 2]))]).unwrap_err();
        assert_eq!(code, Code::FailedPrecondition);
        let start = "Expected classification signature outputs to contain at least one of \"classes\" or \
                     \"scores\". Signature was: inputs {\n  key: \"inputs\"\n";
        assert!(message.starts_with(start), "{message}");
    }

    #[test]
    fn regression_outputs_are_checked() {
        assert_eq!(regressed(floats(&[2], &[1.0, 2.0])), Ok(vec![1.0, 2.0]));
        assert_eq!(regressed(floats(&[2, 1], &[1.0, 2.0])), Ok(vec![1.0, 2.0]));
        assert_eq!(
            regressed(floats(&[1, 3], &[0.0; 3])),
            invalid(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,3]"
            )
        );
        assert_eq!(
            regressed(floats(&[1], &[0.0])),
            invalid("Input batch size did not match output batch size: 2 vs. 1")
        );
        assert_eq!(
            regressed(Tensor::from_slice([2], &[1i32, 2]).unwrap()),
            invalid("Expected output Tensor of DT_FLOAT.  Got: DT_INT32")
        );
    }

    #[test]
    fn signatures_must_follow_the_convention() {
        let patience = Patience::default();
        let outputs = [("outputs", "y", DType::F32)];
        let two_inputs = [("inputs", "a", DType::String), ("more", "b", DType::String)];
        let named = [("x", "x", DType::String)];
        let servable = fakes::servable(
            "m",
            1,
            [
                fakes::signature("two_inputs", &two_inputs, &outputs, Returns::inputs()),
                fakes::signature("two_outputs", &STRINGS, &[outputs[0], outputs[0]], Returns::inputs()),
                fakes::signature("named", &named, &outputs, Returns::inputs()),
                fakes::signature("odd", &STRINGS, &[("y", "y", DType::F32)], Returns::inputs()),
            ],
        );
        let refusal = |name: &str, examples| regress(&servable, Some(name), examples, &patience).unwrap_err();
        assert_eq!(
            refusal("X", two()).to_string(),
            "INVALID_ARGUMENT: No signature was found with the name: X"
        );
        assert_eq!(refusal("two_inputs", two()).message, "Expected one input Tensor.");
        assert_eq!(refusal("two_outputs", two()).message, "Expected one output Tensor.");
        let inputs = refusal("named", two()).to_string();
        assert!(
            inputs.starts_with("FAILED_PRECONDITION: No regression inputs found in SignatureDef: "),
            "{inputs}"
        );
        let outputs = refusal("odd", two()).to_string();
        assert!(
            outputs.starts_with("FAILED_PRECONDITION: No regression outputs found in SignatureDef: "),
            "{outputs}"
        );
    }

    #[test]
    fn examples_are_needed_and_reach_the_program() {
        let signature = fakes::signature(
            "serving_default",
            &STRINGS,
            &[("outputs", "y", DType::F32)],
            Returns::from_fn(|inputs| {
                let lengths = inputs[0].as_strings().unwrap().iter().map(|text| text.len() as f32);
                Ok(vec![Tensor::from_slice([inputs[0].len()], &lengths.collect::<Vec<_>>()).unwrap()])
            }),
        );
        let servable = fakes::servable("m", 1, [signature]);
        let patience = Patience::default();
        let empty = regress(&servable, None, Vec::new(), &patience).unwrap_err();
        assert_eq!(empty.to_string(), "INVALID_ARGUMENT: Input is empty.");
        let examples = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"d")];
        assert_eq!(regress(&servable, None, examples, &patience).unwrap(), [3.0, 1.0]);
    }

    #[test]
    fn a_refused_numeric_input_is_explained() {
        let numeric = [("inputs", "x2:0", DType::F32)];
        let refuses = Returns::from_fn(|_| Err(Error::internal("step 3: not a float")));
        let signature =
            fakes::signature("serving_default", &numeric, &[("outputs", "y", DType::F32)], refuses);
        let servable = fakes::servable("m", 1, [signature]);
        let error = regress(&servable, None, two(), &Patience::default()).unwrap_err();
        assert_eq!(error.to_string(), "INVALID_ARGUMENT: Expects arg[0] to be float but string is provided");
    }
}
