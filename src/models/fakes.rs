//! Servables for tests: programs that return what they are told to.

use super::{Error, Patience, Program, Servable, Signature, TensorInfo, data_type, sidecar::Declared};
use crate::{
    proto::tensorflow::{self, SignatureDef, tensor_info::Encoding},
    tensor::{DType, Tensor},
};
use std::{collections::BTreeMap, sync::Arc};

type Function = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>, Error> + Send + Sync;

/// A program made of a closure from inputs to all outputs.
pub(crate) struct Returns(Box<Function>);

impl Returns {
    /// Calls `function` for every run.
    pub(crate) fn from_fn(
        function: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(function))
    }

    /// Returns the inputs.
    pub(crate) fn inputs() -> Self {
        Self::from_fn(|inputs| Ok(inputs.to_vec()))
    }

    /// Returns the same tensors each time.
    pub(crate) fn tensors(tensors: Vec<Tensor>) -> Self {
        Self::from_fn(move |_| Ok(tensors.clone()))
    }
}

impl Program for Returns {
    fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        _: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error> {
        let all = (self.0)(inputs)?;
        outputs.extend(wanted.iter().filter_map(|&position| all.get(position).cloned()));
        Ok(())
    }
}

type Info<'a> = (&'a str, &'a str, DType);

/// A signature; each input and output is alias, graph tensor, element type.
pub(crate) fn signature(
    name: &str,
    inputs: &[Info<'_>],
    outputs: &[Info<'_>],
    program: Returns,
) -> Signature {
    let infos = |all: &[Info<'_>]| {
        let info = |&(name, tensor, dtype): &Info<'_>| TensorInfo {
            name: name.into(),
            tensor: tensor.into(),
            dtype: Some(dtype),
            taken: None,
            shape: None,
            image: None,
        };
        all.iter().map(info).collect::<Vec<_>>()
    };
    let definitions = |all: &[Info<'_>]| {
        let definition = |&(name, tensor, dtype): &Info<'_>| {
            let info = tensorflow::TensorInfo {
                dtype: data_type(dtype) as i32,
                tensor_shape: None,
                encoding: Some(Encoding::Name(tensor.into())),
            };
            (name.to_owned(), info)
        };
        all.iter().map(definition).collect::<BTreeMap<_, _>>()
    };
    Signature {
        name: name.into(),
        inputs: infos(inputs),
        outputs: infos(outputs),
        defaults: BTreeMap::new(),
        definition: SignatureDef {
            inputs: definitions(inputs),
            outputs: definitions(outputs),
            method_name: "tensorflow/serving/predict".into(),
            ..SignatureDef::default()
        },
        program: Arc::new(program),
    }
}

/// A servable of these signatures.
pub(crate) fn servable(
    name: &str,
    version: i64,
    signatures: impl IntoIterator<Item = Signature>,
) -> Servable {
    let signatures: BTreeMap<String, Signature> =
        signatures.into_iter().map(|signature| (signature.name.clone(), signature)).collect();
    let definitions =
        signatures.iter().map(|(name, signature)| (name.clone(), signature.definition.clone())).collect();
    Servable {
        name: name.into(),
        version,
        signatures,
        definitions,
        weight_bytes: 0,
        declared: Declared::default(),
        check_method_names: false,
        recorder: None,
        reserved: None,
    }
}

/// A servable whose `serving_default` answers its one input `x` as `y`.
pub(crate) fn echo(name: &str, version: i64) -> Servable {
    running(name, version, Arc::new(Returns::inputs()))
}

/// A servable whose `serving_default` runs `program` on `x`, giving `y`.
pub(crate) fn running(name: &str, version: i64, program: Arc<dyn Program>) -> Servable {
    let mut signature = signature(
        "serving_default",
        &[("x", "x:0", DType::F32)],
        &[("y", "y:0", DType::F32)],
        Returns::inputs(),
    );
    signature.program = program;
    servable(name, version, [signature])
}
