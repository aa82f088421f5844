//! kinglet's own folder: every SavedModel that loads survives being saved as one, and comes back
//! with bit-equal outputs.

mod common;

use common::{run, shared, version_folders};
use kinglet::{
    formats::{LoadOptions, LoadedModel, LoadedSignature, load, safetensors},
    graph::Input,
    tensor::{DType, Tensor},
};
use std::{collections::BTreeMap, path::Path};

#[test]
fn saved_models_come_back_equal() {
    let Some(shared) = shared() else { return };
    let mut folders = Vec::new();
    for kind in ["models/tfs", "models/tfs/synthetic", "models/saved_model"] {
        version_folders(&shared.join(kind), &mut folders);
    }
    let mut compared = 0;
    for folder in &folders {
        let Ok(model) = load(folder, &LoadOptions::default()) else { continue };
        let saved = tempfile::tempdir().unwrap();
        if let Err(error) = safetensors::save(&model, saved.path(), None) {
            panic!("{}: {error}", folder.display());
        }
        let again = load(saved.path(), &LoadOptions::default())
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        assert_eq!(again.platform, "kinglet");
        compared += compare(folder, &model, &again);
    }
    assert!(compared > 0, "no signature of {} folders could be compared", folders.len());
}

/// Number of signatures that ran and gave the same bits.
fn compare(folder: &Path, model: &LoadedModel, again: &LoadedModel) -> usize {
    let names = |model: &LoadedModel| model.signatures.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(again), names(model), "{}", folder.display());
    let mut compared = 0;
    for (name, signature) in &model.signatures {
        let copy = &again.signatures[name];
        let place = format!("{} {name}", folder.display());
        assert_eq!(copy.definition.method_name, signature.definition.method_name, "{place}");
        assert_eq!((&copy.inputs, &copy.outputs), (&signature.inputs, &signature.outputs), "{place}");
        assert_eq!(copy.graph.operator_counts(), signature.graph.operator_counts(), "{place}");
        let Some(inputs) = made_up(signature) else { continue };
        match (run(signature, &inputs), run(copy, &inputs)) {
            (Ok(expected), Ok(found)) => {
                assert_eq!(found, expected, "{place}");
                compared += 1;
            }
            (Err(expected), Err(found)) => assert_eq!(found.to_string(), expected.to_string(), "{place}"),
            (expected, found) => panic!("{place}: {:?}, then {:?}", expected.is_ok(), found.is_ok()),
        }
    }
    compared
}

/// Numbers for every input; `None` where there is a string, for which none fits every model.
fn made_up(signature: &LoadedSignature) -> Option<BTreeMap<String, Tensor>> {
    let tensor = |input: &Input| {
        let dims = input.shape.clone().unwrap_or_else(|| vec![None]);
        let dims: Vec<usize> = dims.iter().map(|dim| dim.unwrap_or(2)).collect();
        match input.dtype {
            DType::String => None,
            DType::F32 => {
                let values: Vec<f32> =
                    (0..dims.iter().product()).map(|at| (at % 7) as f32 / 7.0 - 0.3).collect();
                Tensor::from_slice(dims, &values).ok()
            }
            other => Tensor::zeros(other, dims).ok(),
        }
    };
    signature.graph.inputs().iter().map(|input| Some((input.name.clone(), tensor(input)?))).collect()
}
