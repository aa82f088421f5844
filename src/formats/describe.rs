//! A loaded model in words, for `kinglet inspect`.

use super::{LoadedModel, LoadedSignature, TensorInfo, identity::Identity};
use crate::{maps::Ordered, tensor::Tensor};
use std::fmt::Write;

/// Signatures with their tensors and operators, then parameters and memory.
pub fn describe(model: &LoadedModel) -> String {
    let mut text = format!("format: {}\n", model.platform);
    for (name, signature) in &model.signatures {
        describe_signature(name, signature, &mut text);
    }
    for name in model.definitions.keys().filter(|name| !model.signatures.contains_key(*name)) {
        line(&mut text, format_args!("signature {name} is run while loading and cannot be called"));
    }
    let parameters = distinct_parameters(model);
    line(&mut text, format_args!("parameters: {}", grouped(parameters)));
    line(&mut text, format_args!("memory of weights: {}", bytes_text(model.weight_bytes)));
    line(&mut text, format_args!("every operator is supported"));
    text
}

fn describe_signature(name: &str, signature: &LoadedSignature, text: &mut String) {
    line(text, format_args!("signature {name} ({})", signature.definition.method_name));
    let kinds = [("input ", &signature.inputs), ("output", &signature.outputs)];
    let width =
        kinds.iter().flat_map(|(_, infos)| infos.iter()).map(|info| info.name.len()).max().unwrap_or(0);
    for (kind, infos) in kinds {
        for info in infos {
            let default = if signature.defaults.contains_key(&info.name) { ", has a default" } else { "" };
            line(text, format_args!("  {kind} {:width$}  {}{default}", info.name, type_and_shape(info)));
        }
    }
    let counts = signature.graph.operator_counts();
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let listed: Vec<String> = counts.iter().map(|(op, count)| format!("{count} {op}")).collect();
    let nodes: usize = counts.iter().map(|(_, count)| count).sum();
    let separator = if listed.is_empty() { "" } else { ": " };
    line(text, format_args!("  {nodes} operators{separator}{}", listed.join(", ")));
}

fn type_and_shape(info: &TensorInfo) -> String {
    let dtype = info.dtype.map_or("unknown type", |dtype| dtype.name());
    match &info.shape {
        None => format!("{dtype} of any shape"),
        Some(dims) => {
            let dims: Vec<String> =
                dims.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string())).collect();
            format!("{dtype} [{}]", dims.join(", "))
        }
    }
}

/// Floating-point elements among the constants and variables, those that are shared counted once.
fn distinct_parameters(model: &LoadedModel) -> usize {
    let variables: Vec<Tensor> =
        model.signatures.values().flat_map(|signature| signature.graph.variables()).collect();
    let constants = model.signatures.values().flat_map(|signature| signature.graph.constants().values());
    let floats = constants.chain(&variables).filter(|tensor| tensor.dtype().is_float());
    let distinct = floats.map(|tensor| (Identity::of(tensor), tensor.len())).into_map();
    distinct.values().sum()
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{content}");
}

/// `17226` as `17,226`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let breaks = (1..digits.len()).rev().skip(2).step_by(3).into_set();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if breaks.contains(&position) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `17226` as `17.2 kB`.
pub fn bytes_text(count: usize) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::built_in;

    #[test]
    fn a_model_in_words() {
        let iris = &built_in::MODELS[1];
        assert_eq!(
            describe(&iris.load().unwrap()),
            "format: kinglet
signature serving_default (tensorflow/serving/predict)
  input  petal_length   float [?]
  input  petal_width    float [?]
  input  sepal_length   float [?]
  input  sepal_width    float [?]
  output label          string [?]
  output probabilities  float [?, 3]
  10 operators: 4 ExpandDims, 2 MatMul, 1 ArgReduce, 1 Concat, 1 Gather, 1 Softmax
parameters: 67
memory of weights: 389 bytes
every operator is supported
"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
