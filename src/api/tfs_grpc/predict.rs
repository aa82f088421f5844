//! `PredictionService/Predict`.

use super::{
    TfsGrpc,
    request::{PredictMessage, model_ref},
};
use crate::{
    api::{
        protobuf::{delimited_len, put_delimited},
        tensor_proto::{Budget, DecodeError, Form, TensorWriter, decode},
    },
    models::{self, Error, Patience, Request, Response},
    proto::tensorflow::serving::{ModelSpec, model_spec::VersionChoice},
    tensor::{Bytes, Tensor},
};
use bytes::{BufMut, BytesMut};
use prost::Message;
use std::collections::BTreeMap;

/// Fields of `PredictResponse` and of the entries of its map.
mod field {
    pub(super) const OUTPUTS: u32 = 1;
    pub(super) const MODEL_SPEC: u32 = 2;
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

pub(super) fn predict(surface: &TfsGrpc, message: Bytes, patience: &Patience) -> Result<Bytes, Error> {
    let PredictMessage { spec, inputs, output_filter } = PredictMessage::read(message)?;
    let model = model_ref(spec.as_ref())?;
    let signature = spec.map(|spec| spec.signature_name);
    let servable = surface.registry.find(&model)?;
    let budget = Budget::new(surface.options.request_memory);
    let inputs = decode_all(&inputs, budget).map_err(|error| {
        // A wrong signature or alias is reported before the tensors are looked at.
        let aliases: Vec<&str> = inputs.keys().map(String::as_str).collect();
        models::check_inputs(&servable, signature.as_deref(), &aliases).err().unwrap_or(error)
    })?;
    let request = Request { model, signature, inputs, outputs: output_filter, patience: patience.clone() };
    let response = models::predict(&servable, request)?;
    Ok(encode(&response, surface.options.form))
}

fn decode_all(inputs: &BTreeMap<String, Bytes>, mut budget: Budget) -> Result<Vec<(String, Tensor)>, Error> {
    let tensor = |(alias, message): (&String, &Bytes)| match decode(message, &mut budget) {
        Ok(tensor) => Ok((alias.clone(), tensor)),
        Err(DecodeError::Malformed(malformed)) => Err(malformed.into()),
        Err(_) => Err(Error::invalid_argument(format!("tensor parsing error: {alias}"))),
    };
    inputs.iter().map(tensor).collect()
}

/// The model, version and signature that answered.
pub(super) fn model_spec(name: &str, version: i64, signature: &str) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        signature_name: signature.to_owned(),
        version_choice: Some(VersionChoice::Version(version)),
    }
}

pub(super) fn encode(response: &Response, form: Form) -> Bytes {
    let spec = model_spec(&response.model, response.version, &response.signature).encode_to_vec();
    let tensors: Vec<(&str, TensorWriter<'_>)> = response
        .outputs
        .iter()
        .map(|(alias, tensor)| (alias.as_str(), TensorWriter::new(tensor, form)))
        .collect();
    let entry_len = |alias: &str, tensor: &TensorWriter<'_>| {
        delimited_len(field::KEY, alias.len()) + delimited_len(field::VALUE, tensor.len())
    };
    let entries: usize =
        tensors.iter().map(|(alias, tensor)| delimited_len(field::OUTPUTS, entry_len(alias, tensor))).sum();
    let mut out = BytesMut::with_capacity(entries + delimited_len(field::MODEL_SPEC, spec.len()));
    for (alias, tensor) in &tensors {
        put_delimited(&mut out, field::OUTPUTS, entry_len(alias, tensor));
        put_delimited(&mut out, field::KEY, alias.len());
        out.put_slice(alias.as_bytes());
        put_delimited(&mut out, field::VALUE, tensor.len());
        tensor.write(&mut out);
    }
    put_delimited(&mut out, field::MODEL_SPEC, spec.len());
    out.put_slice(&spec);
    out.freeze()
}
