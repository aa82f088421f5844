//! `kinglet run`: one run, its outputs in words and in an archive of arrays, compared with those expected.

use super::{
    LocalError, RunArguments,
    model::{InputsAreRead, Prepared},
};
use crate::{
    formats::npz,
    tensor::{DType, Tensor},
};
use std::io::Write;

/// Elements shown of an output.
const SHOWN: usize = 8;

/// Runs the model once and tells what comes out.
///
/// # Errors
/// What is wrong with the model, the archive or the inputs; also when an expected output is not met.
pub fn run(arguments: &RunArguments, text: &mut dyn Write) -> Result<(), LocalError> {
    let prepared = Prepared::load(&arguments.model, InputsAreRead::Meanwhile)?;
    let mut wrong = Vec::new();
    for (name, tensor) in prepared.named_outputs() {
        writeln!(text, "{name}  {} {}  {}", tensor.dtype(), tensor.shape(), shown(tensor))?;
        let Some(expected) = prepared.expected.get(name) else { continue };
        match difference(expected, tensor) {
            Some(difference) => {
                writeln!(text, "{name}  differs by at most {difference:.2e} of the expected output's scale")?;
                if difference > TOLERANCE {
                    wrong.push(name);
                }
            }
            None => {
                let (dtype, shape) = (expected.dtype(), expected.shape());
                writeln!(text, "{name}  is not the expected {dtype} {shape} {}", shown(expected))?;
                wrong.push(name);
            }
        }
    }
    if let Some(path) = &arguments.output {
        npz::write(path, prepared.named_outputs())?;
    }
    match wrong.as_slice() {
        [] => Ok(()),
        names => Err(LocalError::Misfit(format!("not the expected outputs: {}", names.join(", ")))),
    }
}

/// What two engines may differ by in single precision, relative to the largest value.
pub(super) const TOLERANCE: f64 = 1e-4;

/// The largest difference of two tensors relative to the largest expected value; 0 for the same, `None` where
/// they cannot be compared or other than floats differ.
pub(super) fn difference(expected: &Tensor, found: &Tensor) -> Option<f64> {
    if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
        return None;
    }
    let (Some(a), Some(b)) = (floats(expected), floats(found)) else {
        return (expected == found).then_some(0.0);
    };
    let scale =
        a.iter().filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, |max, value| max.max(value.abs()));
    let mut largest = 0.0f64;
    for (a, b) in a.iter().zip(&b) {
        if a != b && !(a.is_nan() && b.is_nan()) {
            let difference = (a - b).abs();
            // An infinity or NaN where none is expected.
            largest = if difference.is_finite() { largest.max(difference / scale) } else { f64::INFINITY };
        }
    }
    Some(largest)
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::F32 => Some(tensor.as_slice::<f32>().ok()?.iter().map(|&value| f64::from(value)).collect()),
        DType::F64 => Some(tensor.as_slice::<f64>().ok()?.to_vec()),
        DType::F16 => Some(tensor.as_slice::<half::f16>().ok()?.iter().map(|value| value.to_f64()).collect()),
        DType::BF16 => {
            Some(tensor.as_slice::<half::bf16>().ok()?.iter().map(|value| value.to_f64()).collect())
        }
        _ => None,
    }
}

/// The first elements in words.
fn shown(tensor: &Tensor) -> String {
    let texts: Vec<String> = if let Ok(strings) = tensor.as_strings() {
        strings.iter().take(SHOWN).map(|value| format!("\"{}\"", value.escape_ascii())).collect()
    } else if let Some(values) = floats(tensor) {
        values.iter().take(SHOWN).map(|value| format!("{value:.5}")).collect()
    } else if let Ok(values) = tensor.to_i64_vec() {
        values.iter().take(SHOWN).map(i64::to_string).collect()
    } else {
        Vec::new()
    };
    format!("{}{}", texts.join(" "), if tensor.len() > SHOWN { " .." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_scale() {
        let tensor = |values: &[f32]| Tensor::from_slice([values.len()], values).unwrap();
        let found = difference(&tensor(&[100.0, 1.0, f32::NAN]), &tensor(&[100.0, 1.5, f32::NAN])).unwrap();
        assert!((found - 0.005).abs() < 1e-9);
        assert_eq!(difference(&tensor(&[1.0]), &tensor(&[f32::NAN])), Some(f64::INFINITY));
        assert_eq!(difference(&tensor(&[1.0]), &tensor(&[1.0, 2.0])), None);
        assert_eq!(difference(&Tensor::scalar(1i32), &Tensor::scalar(2i32)), None);
        assert_eq!(shown(&tensor(&[1.0, 2.5])), "1.00000 2.50000");
    }
}
