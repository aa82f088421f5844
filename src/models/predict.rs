//! Predict: named tensors through one signature.
//!
//! Aliases, element types and the output filter are checked here with TensorFlow Serving's words;
//! shapes are not, they are the program's business, as there.

use super::{
    Error, Recorded, Request, Response, Servable, Signature,
    image::{image_input, images_to_tensor},
    record::recorder_of,
    run::{CLASSIFY, PREDICT, REGRESS, dtype_mismatch, run, signature_name},
};
use crate::{
    maps::Ordered,
    tensor::{DType, Tensor},
};

/// Runs a signature on named tensors. The request's model is not looked at: `servable` answers.
///
/// # Errors
/// `FAILED_PRECONDITION` for an unknown signature; `INVALID_ARGUMENT` for a wrong number of inputs,
/// an input alias that is missing and has no default or that the signature does not have, an
/// element type other than declared, and an unknown or repeated output alias; `DEADLINE_EXCEEDED`;
/// and what the program refuses.
pub fn predict(servable: &Servable, request: Request) -> Result<Response, Error> {
    let aliases: Vec<&str> = request.inputs.iter().map(|(alias, _)| alias.as_str()).collect();
    let signature = check_inputs(servable, request.signature.as_deref(), &aliases)?;
    let wanted = wanted_outputs(signature, &request.outputs)?;
    let mut inputs = in_signature_order(signature, &request.inputs)?;
    decode_images(signature, &mut inputs)?;
    if let Some(mismatch) = dtype_mismatch(signature, &inputs) {
        return Err(mismatch);
    }
    let recorder = recorder_of(servable);
    let tensors = run(signature, &inputs, &wanted, &request.patience)?;
    let names = wanted.iter().filter_map(|&position| signature.outputs.get(position));
    let response = Response {
        model: servable.name.clone(),
        version: servable.version,
        signature: signature.name.clone(),
        outputs: names.map(|info| info.name.clone()).zip(tensors).collect(),
    };
    if let Some(recorder) = recorder {
        let (inputs, filter) = (&request.inputs, &request.outputs);
        recorder.record(servable, &Recorded::Predict { inputs, filter, response: &response });
    }
    Ok(response)
}

/// Finds the signature and checks the aliases of a request's inputs, before any of their tensors
/// has been decoded. [`predict`] does this itself.
///
/// # Errors
/// `FAILED_PRECONDITION` for an unknown signature, `INVALID_ARGUMENT` for wrong aliases.
pub fn check_inputs<'a>(
    servable: &'a Servable,
    signature: Option<&str>,
    aliases: &[&str],
) -> Result<&'a Signature, Error> {
    let name = signature_name(signature);
    let signature = servable
        .signature(name)
        .ok_or_else(|| Error::failed_precondition(format!("Serving signature key \"{name}\" not found.")))?;
    if servable.check_method_names && ![PREDICT, CLASSIFY, REGRESS].contains(&signature.method_name()) {
        return Err(Error::internal(format!(
            "Expected prediction signature method_name to be one of {{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {}",
            signature.method_name()
        )));
    }
    let has_default = |alias: &str| signature.defaults.contains_key(alias);
    let sufficient = aliases.len() == signature.inputs.len()
        || aliases.len() < signature.inputs.len() && !signature.defaults.is_empty();
    if sufficient
        && signature
            .inputs
            .iter()
            .all(|info| aliases.contains(&info.name.as_str()) || has_default(&info.name))
        && aliases.iter().all(|alias| signature.inputs.iter().any(|info| info.name == *alias))
    {
        return Ok(signature);
    }
    Err(alias_error(signature, aliases))
}

/// Says what is wrong with the aliases, the first of TensorFlow Serving's checks that fails.
fn alias_error(signature: &Signature, aliases: &[&str]) -> Error {
    let given = aliases.iter().copied().into_set();
    let declared = signature.inputs.iter().map(|info| info.name.as_str()).into_set();
    let too_many = given.len() > declared.len();
    let too_few = given.len() < declared.len() && signature.defaults.is_empty();
    if too_many || too_few {
        return Error::invalid_argument(format!(
            "input size does not match signature: {}!={} len({{{}}}) != len({{{}}}). Sent extra: {{{}}}. \
             Missing but required: {{{}}}.",
            given.len(),
            declared.len(),
            list(given.iter()),
            list(declared.iter()),
            list(given.difference(&declared)),
            list(declared.difference(&given)),
        ));
    }
    let missing = signature
        .inputs
        .iter()
        .find(|info| !given.contains(info.name.as_str()) && !signature.defaults.contains_key(&info.name));
    if let Some(info) = missing {
        return Error::invalid_argument(format!(
            "Signature input alias: {}(feed name: {}) not found in request and no default value provided. \
             Inputs expected to be in the request {{{}}}, or default input alias set: {}",
            info.name,
            info.tensor,
            list(given.iter()),
            list(signature.defaults.keys()),
        ));
    }
    Error::invalid_argument(format!(
        "Inputs contains invalid name. Used request inputs: {}, request input: {}",
        list(given.intersection(&declared)),
        list(given.iter()),
    ))
}

/// Positions of the outputs a filter names, in its order; all for an empty filter.
fn wanted_outputs(signature: &Signature, filter: &[String]) -> Result<Vec<usize>, Error> {
    if filter.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut wanted = Vec::new();
    for alias in filter {
        let position = signature.outputs.iter().position(|info| info.name == *alias).ok_or_else(|| {
            Error::invalid_argument(format!(
                "output tensor alias not found in signature: {alias} Outputs expected to be in the set {{{}}}.",
                list(signature.outputs.iter().map(|info| &info.name)),
            ))
        })?;
        if wanted.contains(&position) {
            return Err(Error::invalid_argument(format!("duplicate output tensor alias: {alias}")));
        }
        wanted.push(position);
    }
    Ok(wanted)
}

/// Image files that were sent to inputs of pixels become pixels.
fn decode_images(signature: &Signature, inputs: &mut [Tensor]) -> Result<(), Error> {
    for (info, tensor) in signature.inputs.iter().zip(inputs) {
        if tensor.dtype() == DType::String
            && let Some(how) = image_input(info)
        {
            let files = tensor.as_strings().map_err(|error| Error::internal(error.to_string()))?;
            *tensor = images_to_tensor(info, &how, files)?.0;
        }
    }
    Ok(())
}

/// One tensor per signature input, defaults filled in.
fn in_signature_order(signature: &Signature, given: &[(String, Tensor)]) -> Result<Vec<Tensor>, Error> {
    let tensor_of = |alias: &str| {
        let sent = given.iter().find(|(name, _)| name == alias).map(|(_, tensor)| tensor);
        sent.or_else(|| signature.defaults.get(alias)).cloned()
    };
    let all: Option<Vec<Tensor>> = signature.inputs.iter().map(|info| tensor_of(&info.name)).collect();
    all.ok_or_else(|| Error::internal("an input passed its check and is missing"))
}

fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let mut joined = String::new();
    for name in names {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(name.as_ref());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{
        Code, Patience,
        fakes::{self, Returns},
    };
    use std::time::{Duration, Instant};

    fn servable() -> Servable {
        let mut signature = fakes::signature(
            "serving_default",
            &[("a", "a:0", DType::F32), ("b", "b:0", DType::I64)],
            &[("y", "y:0", DType::F32), ("z", "z:0", DType::I64)],
            Returns::inputs(),
        );
        signature.defaults.clear();
        let mut with_default = fakes::signature(
            "with_default",
            &[("a", "a:0", DType::F32), ("b", "b:0", DType::I64)],
            &[("y", "y:0", DType::F32), ("z", "z:0", DType::I64)],
            Returns::inputs(),
        );
        with_default.defaults.insert("b".into(), Tensor::scalar(7i64));
        fakes::servable("m", 3, [signature, with_default])
    }

    fn request(signature: Option<&str>, inputs: &[(&str, Tensor)], outputs: &[&str]) -> Request {
        Request {
            signature: signature.map(str::to_owned),
            inputs: inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            ..Request::default()
        }
    }

    fn refusal(signature: Option<&str>, inputs: &[(&str, Tensor)], outputs: &[&str]) -> (Code, String) {
        let error = predict(&servable(), request(signature, inputs, outputs)).unwrap_err();
        (error.code, error.message.into_owned())
    }

    #[test]
    fn answers_in_alphabetical_or_filter_order() {
        let (a, b) = (Tensor::scalar(1.5f32), Tensor::scalar(2i64));
        let inputs = [("b", b.clone()), ("a", a.clone())];
        let all = predict(&servable(), request(None, &inputs, &[])).unwrap();
        assert_eq!(all.outputs, [("y".to_owned(), a.clone()), ("z".to_owned(), b.clone())]);
        assert_eq!((all.model.as_str(), all.version, all.signature.as_str()), ("m", 3, "serving_default"));
        let filtered = predict(&servable(), request(Some(""), &inputs, &["z", "y"])).unwrap();
        assert_eq!(filtered.outputs, [("z".to_owned(), b), ("y".to_owned(), a)]);
    }

    #[test]
    fn defaults_fill_what_a_request_leaves_out() {
        let inputs = [("a", Tensor::scalar(1.5f32))];
        let response = predict(&servable(), request(Some("with_default"), &inputs, &["z"])).unwrap();
        assert_eq!(response.outputs, [("z".to_owned(), Tensor::scalar(7i64))]);
    }

    // The texts are TensorFlow Serving's.
    #[test]
    fn wrong_aliases_are_named() {
        let (a, b) = (Tensor::scalar(1.5f32), Tensor::scalar(2i64));
        assert_eq!(
            refusal(Some("X"), &[], &[]),
            (Code::FailedPrecondition, "Serving signature key \"X\" not found.".into())
        );
        assert_eq!(
            refusal(None, &[("a", a.clone())], &[]),
            (
                Code::InvalidArgument,
                "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. \
                 Missing but required: {b}."
                    .into()
            )
        );
        assert_eq!(
            refusal(None, &[("a", a.clone()), ("b", b.clone()), ("c", b.clone())], &[]).1,
            "input size does not match signature: 3!=2 len({a,b,c}) != len({a,b}). Sent extra: {c}. \
             Missing but required: {}."
        );
        assert_eq!(
            refusal(None, &[("a", a.clone()), ("c", b.clone())], &[]).1,
            "Signature input alias: b(feed name: b:0) not found in request and no default value provided. \
             Inputs expected to be in the request {a,c}, or default input alias set: "
        );
        assert_eq!(
            refusal(Some("with_default"), &[("a", a), ("c", b)], &[]).1,
            "Inputs contains invalid name. Used request inputs: a, request input: a,c"
        );
    }

    #[test]
    fn wrong_outputs_and_types_are_named() {
        let (a, b) = (Tensor::scalar(1.5f32), Tensor::scalar(2i64));
        let inputs = [("a", a.clone()), ("b", b.clone())];
        assert_eq!(
            refusal(None, &inputs, &["q"]).1,
            "output tensor alias not found in signature: q Outputs expected to be in the set {y,z}."
        );
        assert_eq!(refusal(None, &inputs, &["y", "y"]).1, "duplicate output tensor alias: y");
        let text = Tensor::from_strings([1], vec!["q".into()]).unwrap();
        assert_eq!(
            refusal(None, &[("a", text), ("b", b)], &[]),
            (Code::InvalidArgument, "Expects arg[0] to be float but string is provided".into())
        );
        assert_eq!(
            refusal(None, &[("a", a.clone()), ("b", a)], &[]).1,
            "Expects arg[1] to be int64 but float is provided"
        );
    }

    // The text is TensorFlow Serving's.
    #[test]
    fn method_names_are_checked_on_demand() {
        let inputs = [("a", Tensor::scalar(1.5f32)), ("b", Tensor::scalar(2i64))];
        let mut servable = servable();
        let signature = servable.signatures.get_mut("serving_default").unwrap();
        signature.definition.method_name = "other".into();
        assert!(predict(&servable, request(None, &inputs, &[])).is_ok());
        servable.check_method_names = true;
        assert_eq!(
            predict(&servable, request(None, &inputs, &[])).unwrap_err(),
            Error::internal(
                "Expected prediction signature method_name to be one of {tensorflow/serving/predict, \
                 tensorflow/serving/classify, tensorflow/serving/regress}. Was: other"
            )
        );
    }

    #[test]
    fn a_passed_deadline_ends_the_request() {
        let deadline = Instant::now().checked_sub(Duration::from_millis(1));
        let inputs = [("a", Tensor::scalar(1.5f32)), ("b", Tensor::scalar(2i64))];
        let late = Request { patience: Patience::until(deadline), ..request(None, &inputs, &[]) };
        assert_eq!(predict(&servable(), late).unwrap_err().code, Code::DeadlineExceeded);
    }
}
