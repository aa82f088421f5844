//! A profile as a table: each operator's time, and how near it comes to what the machine can do.

use super::bench::milliseconds;
use crate::ops::{Op, StepTime};
use serde::Serialize;
use std::{collections::BTreeMap, io::Write};

/// One operator of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name in the source model.
    pub node: String,
    /// The operator and what is fused into it.
    pub op: String,
    /// Shapes of its first two inputs and its first output.
    pub shapes: String,
    /// Mean time of a run.
    pub ms: f64,
    /// Share of the time of all operators.
    pub percent: f64,
    /// Of products and convolutions.
    pub gflops: Option<f64>,
    /// Of what the threads together can multiply and add in registers.
    pub percent_of_peak: Option<f64>,
}

/// Rows of a profile of `runs` runs, longest first; `peak` is in operations per second.
pub(super) fn rows(steps: &[StepTime], runs: usize, peak: f64) -> Vec<Row> {
    let total: f64 = steps.iter().map(|step| step.time.as_secs_f64()).sum();
    let row = |step: &StepTime| {
        let seconds = step.time.as_secs_f64();
        let rate = (step.operations > 0).then(|| step.operations as f64 / seconds);
        let inputs = step.shapes.inputs.iter().take(2).map(|shape| shape.to_string());
        let inputs = inputs.collect::<Vec<_>>().join(" ");
        let output = step.shapes.outputs.first().map(|shape| shape.to_string()).unwrap_or_default();
        Row {
            node: step.node.clone(),
            op: described(&step.op),
            shapes: format!("{inputs} -> {output}"),
            ms: milliseconds(step.time) / runs.max(1) as f64,
            percent: 100.0 * seconds / total,
            gflops: rate.map(|rate| rate / 1e9),
            percent_of_peak: rate.map(|rate| 100.0 * rate / peak),
        }
    };
    steps.iter().map(row).collect()
}

/// The operator with its function, and what is fused into it.
fn described(op: &Op) -> String {
    let fused = |fused: &crate::ops::Fused| {
        let residual = if fused.residual { "+Add" } else { "" };
        let activation = fused.activation.map(|function| format!("+{}", word(&function))).unwrap_or_default();
        let affine = if fused.affine.is_some() { "+Affine" } else { "" };
        format!("{}{residual}{activation}{affine}", if fused.bias { "+Bias" } else { "" })
    };
    match op {
        Op::InvertedResidual(block) => {
            let convs = [block.expand.as_deref(), Some(&*block.depthwise), block.project.as_deref()];
            let convs = convs.into_iter().flatten().map(|conv| match conv.groups {
                1 => format!("Conv{}", fused(&conv.fused)),
                groups => format!("Conv/{groups}{}", fused(&conv.fused)),
            });
            convs.collect::<Vec<_>>().join(", ")
        }
        Op::ScaleShift(op) => {
            format!(
                "Mul+Add{}",
                op.activation.map(|function| format!("+{}", word(&function))).unwrap_or_default()
            )
        }
        Op::GatedConv(gated) => format!("Mul+Conv{}", fused(&gated.conv.fused)),
        Op::Conv(conv) if conv.groups != 1 => format!("Conv/{}{}", conv.groups, fused(&conv.fused)),
        Op::Conv(conv) => format!("Conv{}", fused(&conv.fused)),
        Op::MatMul(product) => format!("MatMul{}", fused(&product.fused)),
        Op::Unary(unary) => word(&unary.0),
        Op::Binary(binary) => word(&binary.0),
        Op::Transpose(transpose) => format!("Transpose{:?}", transpose.perm).replace(", ", ""),
        other => other.name().to_owned(),
    }
}

/// The name of a variant.
fn word(variant: &impl std::fmt::Debug) -> String {
    let text = format!("{variant:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// Sums per kind of operator, then every operator.
pub(super) fn write(rows: &[Row], text: &mut dyn Write) -> std::io::Result<()> {
    let mut kinds: BTreeMap<&str, (usize, f64, f64)> = BTreeMap::new();
    for row in rows {
        let kind = kinds.entry(&row.op).or_default();
        *kind = (kind.0 + 1, kind.1 + row.ms, kind.2 + row.percent);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    writeln!(text, "\n{:>9} {:>6}  operators", "ms", "%")?;
    for (kind, (count, ms, percent)) in kinds {
        writeln!(text, "{ms:9.4} {percent:6.1}  {count} {kind}")?;
    }
    writeln!(text, "\n{:>9} {:>6} {:>8} {:>6}  operator", "ms", "%", "GFLOP/s", "% peak")?;
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        let (rate, share) = (number(row.gflops), number(row.percent_of_peak));
        let Row { node, op, shapes, ms, percent, .. } = row;
        writeln!(text, "{ms:9.4} {percent:6.1} {rate:>8} {share:>6}  {op}  {shapes}  {node}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ops::{StepShapes, matmul::MatMul},
        tensor::Shape,
    };
    use std::time::Duration;

    #[test]
    fn rates_are_of_the_peak() {
        let shapes = StepShapes {
            inputs: vec![Shape::from([1, 1000]), Shape::from([1000, 500])],
            outputs: vec![Shape::from([1, 500])],
        };
        let time = Duration::from_millis(1);
        let op = Op::MatMul(MatMul::default());
        let step =
            StepTime { node: "n".into(), op, shapes, position: 0, runs: 1, operations: 1_000_000, time };
        let rows = rows(&[step], 1, 4e9);
        assert_eq!((rows[0].ms, rows[0].gflops, rows[0].percent_of_peak), (1.0, Some(1.0), Some(25.0)));
        let mut text = Vec::new();
        write(&rows, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("MatMul  [1,1000] [1000,500] -> [1,500]  n"), "{text}");
    }
}
