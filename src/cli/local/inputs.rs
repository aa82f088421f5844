//! Inputs for a run by hand: from an archive of arrays, and made up where it has none.

use super::{GivenShape, LocalError, ModelArguments};
use crate::{
    formats::{LoadedSignature, assumed_shape, npz},
    tensor::{Buffer, Bytes, DType, Shape, Tensor, buffer::AlignedBytes},
};
use std::{collections::BTreeMap, sync::Arc};

/// One tensor per input of the signature, and the outputs that the archive expects, by name.
pub(super) fn inputs(
    signature: &LoadedSignature,
    arguments: &ModelArguments,
    mut given: Given,
) -> Result<(Vec<Tensor>, BTreeMap<String, Tensor>), LocalError> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut tensors = Vec::with_capacity(signature.inputs.len());
    for (info, input) in signature.inputs.iter().zip(signature.graph.inputs()) {
        let default = signature.defaults.get(&info.name);
        let tensor = match (given.inputs.remove(&info.name), default) {
            (Some(tensor), _) => tensor,
            (None, Some(default)) => default.clone(),
            (None, None) => {
                let declared = input.shape.as_deref().or(info.shape.as_deref());
                let shape = shape_for(&info.name, declared, &arguments.shapes, arguments.batch);
                made_up(input.dtype, shape, &mut random)?
            }
        };
        tensors.push(tensor);
    }
    if let Some(name) = given.inputs.keys().next() {
        let known: Vec<&str> = signature.inputs.iter().map(|info| info.name.as_str()).collect();
        let known = known.join("\", \"");
        return Err(LocalError::Misfit(format!(
            "the model has no input \"{name}\"; its inputs are \"{known}\""
        )));
    }
    Ok((tensors, given.outputs))
}

/// The arrays of an archive by the names that a signature has for them.
#[derive(Default)]
pub(super) struct Given {
    inputs: BTreeMap<String, Tensor>,
    outputs: BTreeMap<String, Tensor>,
}

impl Given {
    /// Reads the archive that is given, if one is.
    pub(super) fn read(arguments: &ModelArguments) -> Result<Self, LocalError> {
        let Some(path) = &arguments.input else { return Ok(Self::default()) };
        let arrays = npz::read(path)?;
        let case = arguments.case.as_ref().map(|case| format!("{case}/")).unwrap_or_default();
        let named = arrays.keys().any(|name| name.starts_with(&format!("{case}in/")));
        let mut given = Self::default();
        for (name, tensor) in arrays {
            let Some(name) = name.strip_prefix(&case) else { continue };
            if let Some(output) = name.strip_prefix("out/") {
                given.outputs.insert(output.to_owned(), tensor);
            } else if let Some(input) = name.strip_prefix("in/") {
                given.inputs.insert(input.to_owned(), tensor);
            } else if !named {
                given.inputs.insert(name.to_owned(), tensor);
            }
        }
        if given.inputs.is_empty() {
            let path = path.display();
            return Err(LocalError::Misfit(format!("{path} has no array {case}in/NAME or {case}NAME")));
        }
        Ok(given)
    }
}

/// The shape that is given for an input, else what is assumed for the declared one.
pub fn shape_for(
    name: &str,
    declared: Option<&[Option<usize>]>,
    shapes: &[GivenShape],
    batch: usize,
) -> Shape {
    match shapes.iter().find(|given| given.name == name) {
        Some(given) => given.dims.iter().copied().collect(),
        None => assumed_shape(declared, batch),
    }
}

/// Floats between -1 and 1, integers 0 and 1 (indices that every table has), empty strings.
fn made_up(dtype: DType, shape: Shape, random: &mut Random) -> Result<Tensor, LocalError> {
    let Some(size) = dtype.size() else {
        let elements = shape.checked_elements().unwrap_or(0);
        return Ok(Tensor::from_strings(shape, vec![Bytes::new(); elements])?);
    };
    let Some(len) = shape.checked_elements().and_then(|elements| elements.checked_mul(size)) else {
        return Err(crate::tensor::TensorError::TooLarge(shape).into());
    };
    let mut bytes = AlignedBytes::zeroed(len)?;
    for element in bytes.as_mut_slice().chunks_exact_mut(size) {
        let bit = u8::from(random.next() < 0.5);
        let float = random.next() * 2.0 - 1.0;
        match dtype {
            DType::F16 => element.copy_from_slice(&half::f16::from_f64(float).to_le_bytes()),
            DType::BF16 => element.copy_from_slice(&half::bf16::from_f64(float).to_le_bytes()),
            DType::F32 => element.copy_from_slice(&(float as f32).to_le_bytes()),
            DType::F64 => element.copy_from_slice(&float.to_le_bytes()),
            DType::Complex64 | DType::Complex128 => {}
            _ => element[0] = bit,
        }
    }
    Ok(Tensor::from_buffer(dtype, shape, Buffer::from_aligned(Arc::new(bytes)))?)
}

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    /// The next number from 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::built_in;

    fn arguments(shapes: &[(&str, &[usize])]) -> ModelArguments {
        let shapes = shapes.iter().map(|(name, dims)| super::super::arguments::GivenShape {
            name: (*name).to_owned(),
            dims: dims.to_vec(),
        });
        ModelArguments {
            model: "m".into(),
            input: None,
            case: None,
            signature: None,
            threads: 1,
            batch: 3,
            as_imported: false,
            brain_floats: false,
            selection: crate::graph::Selection::default(),
            shapes: shapes.collect(),
        }
    }

    #[test]
    fn open_dimensions_are_the_batch_or_given() {
        let model = built_in::MODELS[1].load().unwrap();
        let signature = &model.signatures["serving_default"];
        let (tensors, expected) =
            inputs(signature, &arguments(&[("petal_width", &[5])]), Given::default()).unwrap();
        let shapes: Vec<Vec<usize>> = tensors.iter().map(|tensor| tensor.shape().to_vec()).collect();
        assert_eq!(shapes, [[3], [5], [3], [3]]);
        assert!(expected.is_empty());
        assert!(tensors[0].as_slice::<f32>().unwrap().iter().all(|value| (-1.0..1.0).contains(value)));
        let declared = [None, None, Some(7)];
        assert_eq!(shape_for("x", Some(&declared), &[], 3).to_vec(), [3, 1, 7]);
    }
}
