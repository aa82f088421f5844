//! Stand-ins for the models of the recorded cases.

use crate::{
    models::{
        Error, Registry, Servable, Signature, State,
        fakes::{Returns, servable, signature},
    },
    proto::tensorflow::{Example, feature::Kind},
    tensor::{Bytes, DType, Tensor},
};
use prost::Message;
use std::{collections::BTreeMap, sync::Arc};

/// All of them.
pub(super) fn registry() -> Arc<Registry> {
    let registry = Registry::new();
    registry.publish(half_plus("hp2v", 123, 2.0));
    registry.publish(half_plus("hp2v_all", 123, 2.0));
    registry.publish(half_plus("hp2v_all", 124, 3.0));
    registry.publish(half_plus("half_plus_two", 123, 2.0));
    registry.publish(half_plus("half_plus_two_tf2", 123, 2.0));
    registry.publish(half_plus("half_plus_three", 123, 3.0));
    registry.publish(dtypes());
    registry.publish(multi_io());
    registry.publish(classify_labels());
    registry.publish(counter());
    registry.set_status("bad", 123, State::End, Some(Error::not_found("Could not find SavedModel")));
    let labels = |all: &[(&str, i64)]| all.iter().map(|(l, v)| (l.to_string(), *v)).collect();
    let labels = BTreeMap::from([
        ("hp2v".to_owned(), labels(&[("some_label", 123)])),
        ("hp2v_all".to_owned(), labels(&[("stable", 123), ("canary", 124)])),
    ]);
    registry.set_labels(&labels, false).unwrap();
    Arc::new(registry)
}

fn half_plus(name: &str, version: i64, addend: f32) -> Servable {
    let numbers = move |inputs: &[Tensor]| {
        let halves: Vec<f32> =
            inputs[0].as_slice::<f32>().unwrap().iter().map(|x| x / 2.0 + addend).collect();
        Ok(vec![Tensor::from_slice(inputs[0].shape().clone(), &halves).unwrap()])
    };
    let examples = move |inputs: &[Tensor]| {
        let halves: Vec<f32> = features(&inputs[0], 1)?.iter().map(|x| x / 2.0 + addend).collect();
        Ok(vec![Tensor::from_slice([halves.len(), 1], &halves).unwrap()])
    };
    let on_examples = |name: &str, output: &str| {
        signature(
            name,
            &[("inputs", "tf_example:0", DType::String)],
            &[(output, "y:0", DType::F32)],
            Returns::from_fn(examples),
        )
    };
    let mut model = servable(
        name,
        version,
        [
            signature(
                "serving_default",
                &[("x", "x:0", DType::F32)],
                &[("y", "y:0", DType::F32)],
                Returns::from_fn(numbers),
            ),
            on_examples("regress_x_to_y", "outputs"),
            on_examples("tensorflow/serving/regress", "outputs"),
            on_examples("classify_x_to_y", "scores"),
        ],
    );
    model.definitions.insert("__saved_model_init_op".into(), Default::default());
    model
}

/// The float feature `x` of each Example.
fn features(examples: &Tensor, count: usize) -> Result<Vec<f32>, Error> {
    let mut all = Vec::new();
    for example in examples.as_strings().map_err(|error| Error::invalid_argument(error.to_string()))? {
        let example = Example::decode(example.clone()).unwrap();
        let x = example.features.unwrap_or_default().feature.remove("x").and_then(|feature| feature.kind);
        match x {
            Some(Kind::FloatList(list)) if list.value.len() == count => all.extend(list.value),
            Some(Kind::FloatList(list)) => {
                return Err(Error::invalid_argument(format!(
                    "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  \
                     Values size: {} but output shape: [{count}]",
                    list.value.len()
                )));
            }
            _ => {
                return Err(Error::invalid_argument(
                    "Name: <unknown>, Feature: x (data type: float) is required but could not be found.",
                ));
            }
        }
    }
    Ok(all)
}

fn dtypes() -> Servable {
    let identities = DType::ALL.map(|dtype| {
        let name = match dtype {
            DType::F16 => "float16",
            DType::F32 => "float32",
            DType::F64 => "float64",
            other => other.name(),
        };
        identity(&format!("id_{name}"), dtype, "y")
    });
    let f = |shape: &[usize], values: &[f32]| Tensor::from_slice(shape, values).unwrap();
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    servable(
        "dtypes",
        1,
        identities.into_iter().chain([
            identity("id_bytes", DType::String, "out_bytes"),
            identity("shape_n2", DType::F32, "y"),
            from_float("nonfinite", &["y"], vec![f(&[2, 2], &[nan, infinity, 3.0, -infinity])]),
            from_float("scalar_out", &["y"], vec![f(&[], &[7.5])]),
            from_float("empty_out", &["y"], vec![f(&[0], &[])]),
            from_float("no_out", &[], vec![]),
            from_float("two_out_mismatch", &["a", "b"], vec![f(&[1], &[1.0]), f(&[3], &[1.0, 2.0, 3.0])]),
        ]),
    )
}

fn identity(name: &str, dtype: DType, output: &str) -> Signature {
    signature(name, &[("x", "x:0", dtype)], &[(output, "y:0", dtype)], Returns::inputs())
}

/// From one float input to these tensors.
fn from_float(name: &str, outputs: &[&str], tensors: Vec<Tensor>) -> Signature {
    let outputs: Vec<_> = outputs.iter().map(|&output| (output, "y:0", DType::F32)).collect();
    signature(name, &[("x", "x:0", DType::F32)], &outputs, Returns::tensors(tensors))
}

fn multi_io() -> Servable {
    let all = signature(
        "serving_default",
        &[
            ("dbl_tensor", "d:0", DType::F64),
            ("float_tensor", "f:0", DType::F32),
            ("int_tensor", "i:0", DType::I32),
            ("str_tensor", "s:0", DType::String),
        ],
        &[
            ("dbl_out", "d:0", DType::F64),
            ("float_out", "f:0", DType::F32),
            ("int_out", "i:0", DType::I32),
            ("str_out", "s:0", DType::String),
            ("str_out_bytes", "s:0", DType::String),
        ],
        Returns::from_fn(|inputs| Ok([inputs, &inputs[3..]].concat())),
    );
    let two = signature(
        "two_in",
        &[("int_tensor", "i:0", DType::I32), ("str_tensor", "s:0", DType::String)],
        &[("int_out", "i:0", DType::I32), ("str_out", "s:0", DType::String)],
        Returns::inputs(),
    );
    servable("multi_io", 1, [all, two])
}

fn classify_labels() -> Servable {
    let classify = |inputs: &[Tensor]| {
        let scores = features(&inputs[0], 3)?;
        let count = scores.len() / 3;
        let labels = ["car", "bike", "bus"].map(|label| Bytes::from_static(label.as_bytes()));
        Ok(vec![
            Tensor::from_strings([count, 3], vec![labels; count].concat()).unwrap(),
            Tensor::from_slice([count, 3], &scores).unwrap(),
        ])
    };
    let sum = |inputs: &[Tensor]| {
        let sums: Vec<f32> = features(&inputs[0], 3)?.chunks(3).map(|chunk| chunk.iter().sum()).collect();
        Ok(vec![Tensor::from_slice([sums.len()], &sums).unwrap()])
    };
    let inputs = [("inputs", "tf_example:0", DType::String)];
    servable(
        "classify_labels",
        1,
        [
            signature(
                "serving_default",
                &inputs,
                &[("classes", "c:0", DType::String), ("scores", "s:0", DType::F32)],
                Returns::from_fn(classify),
            ),
            signature("regress_sum", &inputs, &[("outputs", "o:0", DType::F32)], Returns::from_fn(sum)),
        ],
    )
}

fn counter() -> Servable {
    let count = || Returns::tensors(vec![Tensor::scalar(1.0f32)]);
    servable(
        "counter",
        1,
        [
            signature("incr_counter", &[], &[("output", "c:0", DType::F32)], count()),
            signature(
                "incr_counter_by",
                &[("delta", "d:0", DType::F32)],
                &[("output", "c:0", DType::F32)],
                count(),
            ),
        ],
    )
}
