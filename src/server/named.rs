//! Which model and method a request names, for metrics; read without decoding the request itself.

use crate::models::Code;

/// A message whose first field is a `ModelSpec`: all of PredictionService but MultiInference.
#[derive(Clone, PartialEq, prost::Message)]
struct Addressed {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<Spec>,
}

/// A MultiInference request, whose tasks are [`Addressed`].
#[derive(Clone, PartialEq, prost::Message)]
struct Tasks {
    #[prost(message, repeated, tag = "1")]
    tasks: Vec<Addressed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Spec {
    #[prost(string, tag = "1")]
    name: String,
}

/// Method and model of a call that runs a model; `None` for other calls.
pub(super) fn of_grpc(path: &str, message: &[u8]) -> Option<(&'static str, String)> {
    use prost::Message;
    let api = match path.strip_prefix("/tensorflow.serving.PredictionService/")? {
        "Predict" => "Predict",
        "Classify" => "Classify",
        "Regress" => "Regress",
        "MultiInference" => "MultiInference",
        _ => return None,
    };
    let spec = if api == "MultiInference" {
        Tasks::decode(message).ok().and_then(|tasks| tasks.tasks.into_iter().next()?.model_spec)
    } else {
        Addressed::decode(message).ok().and_then(|message| message.model_spec)
    };
    Some((api, spec.map(|spec| spec.name).unwrap_or_default()))
}

/// The model that a gRPC message addresses, of every method that addresses one; for the scopes of tokens.
pub(super) fn model_of_grpc(path: &str, message: &[u8]) -> Option<String> {
    use prost::Message;
    let addressed = match path {
        "/tensorflow.serving.PredictionService/GetModelMetadata"
        | "/tensorflow.serving.ModelService/GetModelStatus" => Addressed::decode(message).ok()?.model_spec,
        _ => return of_grpc(path, message).map(|(_, model)| model),
    };
    addressed.map(|spec| spec.name)
}

/// Method (empty for status and metadata) and model of a REST path; `None` outside `/v1/models/`.
pub(super) fn of_rest(path: &str) -> Option<(&'static str, String)> {
    const PREFIX: &str = "/v1/models/";
    let prefix = path.get(..PREFIX.len()).filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX))?;
    let rest = path.strip_prefix(prefix)?;
    let (place, verb) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let api = match verb {
        "predict" => "predict",
        "classify" => "classify",
        "regress" => "regress",
        _ => "",
    };
    let name = place.split('/').next().unwrap_or(place);
    Some((api, percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned()))
}

/// The canonical code behind an HTTP status; where several share one, the usual.
pub(super) fn code_of(status: u16) -> Code {
    match status {
        200..=299 => Code::Ok,
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensorflow::serving::{
        InferenceTask, ModelSpec, MultiInferenceRequest, PredictRequest,
    };
    use prost::Message;

    #[test]
    fn names_of_models() {
        let rest = |path| of_rest(path).map(|(api, name)| (api, name.to_owned()));
        assert_eq!(rest("/v1/models/m:predict"), Some(("predict", "m".to_owned())));
        assert_eq!(rest("/V1/models/a%2Fb/versions/3:regress"), Some(("regress", "a/b".to_owned())));
        assert_eq!(rest("/v1/models/m/metadata"), Some(("", "m".to_owned())));
        assert_eq!(rest("/v1/models"), None);
        assert_eq!(rest("/v1/modelé/m"), None);

        let model_spec = Some(ModelSpec { name: "m".into(), ..ModelSpec::default() });
        let predict = PredictRequest { model_spec: model_spec.clone(), ..PredictRequest::default() };
        let service = "/tensorflow.serving.PredictionService/";
        assert_eq!(
            of_grpc(&format!("{service}Predict"), &predict.encode_to_vec()),
            Some(("Predict", "m".to_owned()))
        );
        let task = InferenceTask { model_spec, ..InferenceTask::default() };
        let multi = MultiInferenceRequest { tasks: vec![task], input: None };
        assert_eq!(
            of_grpc(&format!("{service}MultiInference"), &multi.encode_to_vec()),
            Some(("MultiInference", "m".to_owned()))
        );
        assert_eq!(of_grpc(&format!("{service}Predict"), b"\xff"), Some(("Predict", String::new())));
        assert_eq!(of_grpc("/grpc.health.v1.Health/Check", b""), None);
    }

    #[test]
    fn codes_of_statuses_are_those_that_answer_with_them() {
        for code in Code::ALL {
            let status = code.http_status();
            assert_eq!(code_of(status).http_status(), status, "{}", code.name());
        }
    }
}
