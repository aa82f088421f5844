//! The models that are part of the binary, so that a first start has something to answer.
//! weights/MANIFEST.md describes them.

use super::{FormatError, LoadedModel, safetensors};
use crate::tensor::Buffer;
use std::path::Path;

/// A model in the binary.
#[derive(Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: i64,
    model: &'static str,
    weights: Option<&'static Aligned<[u8]>>,
}

/// Makes weights in the binary as aligned as a mapped file, so that they are used in place.
#[derive(Debug)]
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! file {
    ($name:literal, $version:literal, $file:literal) => {
        concat!("../../weights/", $name, "/", $version, "/", $file)
    };
}

macro_rules! model {
    ($name:literal, $version:literal $(, $weights:literal)?) => {
        BuiltIn {
            name: $name,
            version: $version,
            model: include_str!(file!($name, $version, "model.json")),
            weights: model!(@weights $name, $version $(, $weights)?),
        }
    };
    (@weights $name:literal, $version:literal) => { None };
    (@weights $name:literal, $version:literal, $weights:literal) => {{
        static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!(file!($name, $version, $weights)));
        Some(WEIGHTS)
    }};
}

/// All of them.
pub static MODELS: [BuiltIn; 3] = [
    model!("half_plus_three", 123),
    model!("iris", 1, "model.safetensors"),
    model!("digits", 1, "model.safetensors"),
];

impl BuiltIn {
    /// Reads the model. An error means that the binary was built from a broken folder.
    pub fn load(&self) -> Result<LoadedModel, FormatError> {
        let place = format!("built-in {}/{}", self.name, self.version);
        let weights = self.weights.map(|weights| Buffer::from_static(&weights.0));
        safetensors::load_parts(Path::new(&place), self.model, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{Backend, Cpu, RunOptions},
        kernels::{Threads, available},
        tensor::{Bytes, DType, Tensor},
    };
    use serde_json::Value;

    /// Inputs and NumPy's answers; `train.py` writes them.
    fn cases(model: &str) -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/expected.json");
        let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        expected[model].as_array().unwrap().clone()
    }

    fn flatten(value: &Value, dims: &mut Vec<usize>, depth: usize, leaves: &mut Vec<Value>) {
        let Some(items) = value.as_array() else { return leaves.push(value.clone()) };
        if dims.len() == depth {
            dims.push(items.len());
        }
        items.iter().for_each(|item| flatten(item, dims, depth + 1, leaves));
    }

    fn tensor(value: &Value, dtype: DType) -> Tensor {
        let (mut dims, mut leaves) = (Vec::new(), Vec::new());
        flatten(value, &mut dims, 0, &mut leaves);
        match dtype {
            DType::F32 => {
                let values: Vec<f32> = leaves.iter().map(|leaf| leaf.as_f64().unwrap() as f32).collect();
                Tensor::from_slice(dims, &values).unwrap()
            }
            DType::I64 => {
                let values: Vec<i64> = leaves.iter().map(|leaf| leaf.as_i64().unwrap()).collect();
                Tensor::from_slice(dims, &values).unwrap()
            }
            _ => {
                let text = |leaf: &Value| Bytes::from(leaf.as_str().unwrap().to_owned());
                Tensor::from_strings(dims, leaves.iter().map(text).collect()).unwrap()
            }
        }
    }

    #[test]
    fn every_model_gives_numpys_answers_on_every_tier() {
        for built_in in &MODELS {
            let model = built_in.load().unwrap();
            let signature = &model.signatures["serving_default"];
            for case in cases(built_in.name) {
                let inputs: Vec<Tensor> = signature
                    .inputs
                    .iter()
                    .map(|info| tensor(&case["inputs"][&info.name], info.dtype.unwrap()))
                    .collect();
                for &table in available() {
                    let program =
                        Cpu::new(table, Threads::single()).compile(signature.graph.clone()).unwrap();
                    let mut outputs = Vec::new();
                    program.run(&inputs, &mut outputs, &RunOptions::default()).unwrap();
                    for (info, output) in signature.outputs.iter().zip(&outputs) {
                        let expected = tensor(&case["outputs"][&info.name], info.dtype.unwrap());
                        assert_same(output, &expected, built_in.name);
                    }
                }
            }
        }
    }

    fn assert_same(output: &Tensor, expected: &Tensor, name: &str) {
        assert_eq!((output.dtype(), output.shape()), (expected.dtype(), expected.shape()), "{name}");
        match (output.as_slice::<f32>(), expected.as_slice::<f32>()) {
            (Ok(output), Ok(expected)) => {
                for (a, b) in output.iter().zip(expected) {
                    assert!((a - b).abs() <= 2e-6, "{name}: {a} instead of {b}");
                }
            }
            _ => assert_eq!(output, expected, "{name}"),
        }
    }

    #[test]
    fn weights_are_used_in_place() {
        for built_in in MODELS.iter().filter(|built_in| built_in.weights.is_some()) {
            let range = built_in.weights.unwrap().0.as_ptr_range();
            let model = built_in.load().unwrap();
            let graph = &model.signatures["serving_default"].graph;
            let large: Vec<&Tensor> = graph.constants().values().filter(|tensor| tensor.len() > 8).collect();
            assert!(!large.is_empty());
            assert!(
                large.iter().all(|tensor| range.contains(&tensor.as_bytes().as_ptr())),
                "{}",
                built_in.name
            );
        }
    }

    #[test]
    fn half_plus_three_regresses_examples() {
        let model = MODELS[0].load().unwrap();
        let signature = &model.signatures["tensorflow/serving/regress"];
        // Example { features { feature { key: "x" value { float_list { value: 1 } } } } }
        let one = Bytes::from_static(b"\x0a\x0f\x0a\x0d\x0a\x01x\x12\x08\x12\x06\x0a\x04\x00\x00\x80\x3f");
        let program = Cpu::new(available()[0], Threads::single()).compile(signature.graph.clone()).unwrap();
        let mut outputs = Vec::new();
        let inputs = [Tensor::from_strings([1], vec![one]).unwrap()];
        program.run(&inputs, &mut outputs, &RunOptions::default()).unwrap();
        assert_eq!(outputs[0].as_slice::<f32>().unwrap(), [3.5]);
    }
}
