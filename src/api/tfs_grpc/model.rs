//! What models there are: `GetModelMetadata`, `GetModelStatus`, `HandleReloadConfigRequest`.

use super::{
    TfsGrpc, parse,
    request::{missing_spec, model_ref},
};
use crate::{
    models::{Error, Patience, VersionStatus},
    proto::tensorflow::{
        error,
        serving::{
            GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
            Metric, ModelSpec, ModelVersionStatus, ReloadConfigRequest, ReloadConfigResponse,
            SignatureDefMap, StatusProto, metric, model_server_config::Config, model_spec::VersionChoice,
            model_version_status::State,
        },
    },
    tensor::Bytes,
};
use prost::Message;
use prost_types::Any;

/// The one kind of metadata there is.
const SIGNATURE_DEF: &str = "signature_def";
const SIGNATURE_DEF_TYPE: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

pub(super) fn metadata(surface: &TfsGrpc, message: Bytes, _: &Patience) -> Result<Bytes, Error> {
    let request = parse::<GetModelMetadataRequest>(message)?;
    let spec = request.model_spec.ok_or_else(missing_spec)?;
    if request.metadata_field.is_empty() {
        return Err(Error::invalid_argument(
            "GetModelMetadataRequest must specify at least one metadata_field",
        ));
    }
    if let Some(other) = request.metadata_field.iter().find(|field| *field != SIGNATURE_DEF) {
        return Err(Error::invalid_argument(format!("Metadata field {other} is not supported")));
    }
    let servable = surface.registry.find(&model_ref(Some(&spec))?)?;
    let signatures = SignatureDefMap { signature_def: servable.definitions.clone() };
    let any = Any { type_url: SIGNATURE_DEF_TYPE.to_owned(), value: signatures.encode_to_vec() };
    let response = GetModelMetadataResponse {
        model_spec: Some(ModelSpec {
            name: servable.name.clone(),
            version_choice: Some(VersionChoice::Version(servable.version)),
            ..ModelSpec::default()
        }),
        metadata: [(SIGNATURE_DEF.to_owned(), any)].into(),
    };
    Ok(response.encode_to_vec().into())
}

pub(super) fn status(surface: &TfsGrpc, message: Bytes, _: &Patience) -> Result<Bytes, Error> {
    let spec = parse::<GetModelStatusRequest>(message)?.model_spec.ok_or_else(missing_spec)?;
    let version = match spec.version_choice {
        Some(VersionChoice::Version(version)) => Some(version),
        // A label is not looked at here.
        Some(VersionChoice::VersionLabel(_)) | None => None,
    };
    let statuses = surface.registry.status(&spec.name, version)?;
    let response =
        GetModelStatusResponse { model_version_status: statuses.into_iter().map(version_status).collect() };
    Ok(response.encode_to_vec().into())
}

pub(super) fn reload(surface: &TfsGrpc, message: Bytes, patience: &Patience) -> Result<Bytes, Error> {
    let ReloadConfigRequest { config, metric_names } = parse(message)?;
    let config = config.unwrap_or_default();
    let Some(Config::ModelConfigList(models)) = &config.config else {
        return Err(Error::invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is \
             currently supported",
        ));
    };
    for model in &models.config {
        log::info!("new configuration: model {} at {}", model.name, model.base_path);
    }
    let admin = surface
        .admin
        .as_ref()
        .ok_or_else(|| Error::failed_precondition("This server's models cannot be changed while it runs."))?;
    let total = |name: &str| surface.stats.as_ref().and_then(|stats| stats.counted(name));
    let before: Vec<Option<u64>> = metric_names.iter().map(|name| total(name)).collect();
    admin.reload(config, patience).inspect_err(|error| log::error!("new configuration refused: {error}"))?;
    // Counters that do not exist are left out.
    let increase = |(name, before): (String, Option<u64>)| {
        let increase = total(&name)?.saturating_sub(before?);
        let value_increase =
            Some(metric::ValueIncrease::Int64ValueIncrease(i64::try_from(increase).unwrap_or(i64::MAX)));
        Some(Metric { name, value_increase })
    };
    let metric = metric_names.into_iter().zip(before).filter_map(increase).collect();
    let response = ReloadConfigResponse { status: Some(status_proto(None)), metric };
    Ok(response.encode_to_vec().into())
}

fn version_status(status: VersionStatus) -> ModelVersionStatus {
    ModelVersionStatus {
        version: status.version,
        // The numbers are the same.
        state: State::try_from(status.state as i32).unwrap_or(State::Unknown) as i32,
        status: Some(status_proto(status.error.as_ref())),
    }
}

fn status_proto(failure: Option<&Error>) -> StatusProto {
    match failure {
        None => StatusProto { error_code: error::Code::Ok as i32, error_message: String::new() },
        Some(error) => {
            StatusProto { error_code: error.code as i32, error_message: error.message.clone().into_owned() }
        }
    }
}
