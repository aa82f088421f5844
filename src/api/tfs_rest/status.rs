//! States of models and their versions, in protobuf's JSON layout.

use crate::{
    api::json::write::Writer,
    models::{Error, ModelRef, Registry, State, VersionChoice, VersionStatus},
};

/// The versions of one model. A label is not looked at.
pub(super) fn model(registry: &Registry, model: &ModelRef) -> Result<Vec<u8>, Error> {
    let version = match model.version {
        VersionChoice::Specific(version) => Some(version),
        VersionChoice::Latest | VersionChoice::Label(_) => None,
    };
    let statuses = registry.status(&model.name, version)?;
    let mut writer = Writer::new(1);
    writer.begin_object();
    write_statuses(&statuses, &mut writer);
    writer.end_object();
    Ok(with_newline(writer))
}

/// Every model with its versions; TensorFlow Serving has no such call.
pub(super) fn all_models(registry: &Registry) -> Vec<u8> {
    let mut writer = Writer::new(1);
    writer.begin_object();
    writer.key(b"models");
    writer.begin_array();
    for name in registry.names() {
        writer.begin_object();
        writer.key(b"name");
        writer.protobuf_string(&name);
        write_statuses(&registry.status(&name, None).unwrap_or_default(), &mut writer);
        if let Some(problem) = registry.problem(&name) {
            writer.key(b"error");
            writer.protobuf_string(&problem);
        }
        writer.end_object();
    }
    writer.end_array();
    writer.end_object();
    with_newline(writer)
}

fn write_statuses(statuses: &[VersionStatus], writer: &mut Writer) {
    writer.key(b"model_version_status");
    writer.begin_array();
    for status in statuses {
        let (code, message) = match &status.error {
            None => ("OK", ""),
            Some(error) => (error.code.name(), &*error.message),
        };
        writer.begin_object();
        writer.key(b"version");
        writer.protobuf_string(&status.version.to_string());
        writer.key(b"state");
        writer.protobuf_string(state_name(status.state));
        writer.key(b"status");
        writer.begin_object();
        writer.key(b"error_code");
        writer.protobuf_string(code);
        writer.key(b"error_message");
        writer.protobuf_string(message);
        writer.end_object();
        writer.end_object();
    }
    writer.end_array();
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Start => "START",
        State::Loading => "LOADING",
        State::Available => "AVAILABLE",
        State::Unloading => "UNLOADING",
        State::End => "END",
    }
}

fn with_newline(writer: Writer) -> Vec<u8> {
    let mut body = writer.finish();
    body.push(b'\n');
    body
}
