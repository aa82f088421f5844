//! Fakes that the tests of this floor share.

use super::{Error, Patience, Program, Servable, Signature, TensorInfo, sidecar::Declared};
use crate::{
    proto::tensorflow::SignatureDef,
    tensor::{DType, Tensor},
};
use std::{collections::BTreeMap, sync::Arc};

/// Answers its inputs.
pub(crate) struct Identity;

impl Program for Identity {
    fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        _: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error> {
        for &index in wanted {
            outputs.push(inputs.get(index).cloned().ok_or_else(|| Error::internal("no such output"))?);
        }
        Ok(())
    }
}

/// A servable whose `serving_default` answers its one input `x` as `y`.
pub(crate) fn servable(name: &str, version: i64) -> Servable {
    servable_with(name, version, Arc::new(Identity))
}

/// A servable whose `serving_default` runs `program` on `x`, giving `y`.
pub(crate) fn servable_with(name: &str, version: i64, program: Arc<dyn Program>) -> Servable {
    let info = |name: &str| TensorInfo {
        name: name.into(),
        tensor: format!("{name}:0"),
        dtype: Some(DType::F32),
        shape: Some(vec![None]),
        image: None,
    };
    let signature = Signature {
        name: "serving_default".into(),
        inputs: vec![info("x")],
        outputs: vec![info("y")],
        defaults: BTreeMap::new(),
        definition: SignatureDef::default(),
        program,
    };
    Servable {
        name: name.into(),
        version,
        signatures: BTreeMap::from([(signature.name.clone(), signature)]),
        definitions: BTreeMap::new(),
        weight_bytes: 0,
        declared: Declared::default(),
    }
}
