//! Graphs as bodies of branches and loops.

use super::{
    Graph, GraphError, RunOptions,
    run::{Cpu, CpuProgram},
};
use crate::{
    ops::{
        OpError, Operator, RunContext, Tensors,
        control::{Body, Subprogram},
    },
    tensor::Tensor,
};
use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

/// A graph that is compiled when it first runs, for the machine that runs it.
struct Subgraph {
    graph: Arc<Graph>,
    program: OnceLock<CpuProgram>,
}

impl Graph {
    /// This graph as the body of a branch or a loop. Its variables are those of the graph around it
    /// when both are built with the same [`super::Builder::set_states`].
    pub fn into_body(self) -> Body {
        Body(Arc::new(Subgraph { graph: Arc::new(self), program: OnceLock::new() }))
    }

    /// The graph that became this body; `None` for a body of which only the name is known.
    pub fn of_body(body: &Body) -> Option<&Arc<Graph>> {
        body.0.as_any().downcast_ref::<Subgraph>().map(|subgraph| &subgraph.graph)
    }
}

impl fmt::Debug for Subgraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subgraph({:?})", self.graph.operator_counts())
    }
}

impl Subprogram for Subgraph {
    fn run(&self, inputs: &[Tensor], context: &RunContext<'_>) -> Result<Tensors, OpError> {
        let cpu = || {
            let cpu = Cpu::new(context.kernels, context.threads.clone());
            cpu.with_memory_limit(context.memory_limit).body(self.graph.clone())
        };
        let mut outputs = Vec::with_capacity(self.graph.outputs.len());
        let options =
            RunOptions { deadline: context.deadline, cancelled: context.cancelled, profile: context.profile };
        self.program.get_or_init(cpu).run_body(inputs, &mut outputs, &options).map_err(
            |error| match error {
                GraphError::Deadline => OpError::Deadline,
                GraphError::Cancelled => OpError::Cancelled,
                other => OpError::invalid(other.to_string()),
            },
        )?;
        Ok(outputs)
    }

    fn stateful(&self) -> bool {
        self.graph.nodes.iter().any(|node| node.op.stateful())
    }

    fn assigns(&self) -> bool {
        self.graph.nodes.iter().any(|node| node.op.assigns())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{Backend, Builder},
        kernels::{self, Binary, Compare, Threads},
        ops::{
            self,
            control::{If, Loop, Scan, While},
            state::{AssignState, Assignment, States},
        },
        tensor::DType,
    };
    use std::time::Instant;

    /// A graph made by `make` from inputs of these types to its outputs.
    fn graph(
        inputs: &[DType],
        make: impl Fn(&mut Builder, &[crate::graph::ValueId]) -> Vec<crate::graph::ValueId>,
    ) -> Graph {
        let mut b = Builder::new();
        let values: Vec<_> = inputs.iter().map(|&dtype| b.input("x", dtype, None)).collect();
        let outputs = make(&mut b, &values);
        b.finish(outputs.into_iter().map(|value| (String::new(), value)).collect())
    }

    fn run(graph: Graph, inputs: &[Tensor], options: &RunOptions<'_>) -> Result<Vec<Tensor>, GraphError> {
        let program = Cpu::new(kernels::best(), Threads::single()).compile(Arc::new(graph))?;
        let mut outputs = Vec::new();
        program.run(inputs, &mut outputs, options)?;
        Ok(outputs)
    }

    fn binary(op: Binary) -> ops::binary::Binary {
        ops::binary::Binary(op)
    }

    #[test]
    fn branches() {
        let branch = |op| graph(&[DType::F32; 2], move |b, x| vec![b.push(binary(op), x)]).into_body();
        let choose = If { then_branch: branch(Binary::Add), else_branch: branch(Binary::Mul) };
        let outer = graph(&[DType::Bool, DType::F32, DType::F32], |b, x| {
            let chosen = b.push(choose.clone(), x);
            vec![b.push(binary(Binary::Add), &[chosen, x[1]])]
        });
        for (condition, expected) in [(true, 2.0f32 + 3.0 + 2.0), (false, 2.0 * 3.0 + 2.0)] {
            let inputs = [Tensor::scalar(condition), Tensor::scalar(2.0f32), Tensor::scalar(3.0f32)];
            let y = run(outer.clone(), &inputs, &RunOptions::default()).unwrap();
            assert_eq!(y, [Tensor::scalar(expected)]);
        }
    }

    /// `while i < n { i += 1; sum += i }`, for ever when `n` is not a number.
    fn sum_up_to() -> Graph {
        let types = [DType::F32; 3];
        let condition =
            graph(&types, |b, x| vec![b.push(ops::binary::Compare(Compare::NotEqual), &[x[0], x[2]])]);
        let body = graph(&types, |b, x| {
            let one = b.scalar(1.0);
            let i = b.push(binary(Binary::Add), &[x[0], one]);
            vec![i, b.push(binary(Binary::Add), &[x[1], i]), x[2]]
        });
        let (condition, body) = (condition.into_body(), body.into_body());
        graph(&types, move |b, x| {
            b.push_many(While { condition: condition.clone(), body: body.clone() }, x, 3)
        })
    }

    #[test]
    fn while_loops_end_with_their_condition_or_the_deadline() {
        let inputs = |n: f32| [Tensor::scalar(0.0f32), Tensor::scalar(0.0f32), Tensor::scalar(n)];
        let y = run(sum_up_to(), &inputs(10.0), &RunOptions::default()).unwrap();
        assert_eq!(y[1], Tensor::scalar(55.0f32));
        let soon = Some(Instant::now() + std::time::Duration::from_millis(20));
        let endless =
            run(sum_up_to(), &inputs(f32::NAN), &RunOptions { deadline: soon, ..RunOptions::default() });
        assert_eq!(endless, Err(GraphError::Deadline));
    }

    #[test]
    fn a_loop_of_constants_without_end_is_not_run_by_planning() {
        let outer = graph(&[DType::F32], |b, x| {
            let [zero, never] = [0.0, f32::NAN].map(|value| b.scalar(value));
            let body = sum_up_to().nodes[0].op.clone();
            let sums = b.push_many(body, &[zero, zero, never], 3);
            vec![b.push(binary(Binary::Add), &[x[0], sums[1]])]
        });
        let soon = Some(Instant::now() + std::time::Duration::from_millis(500));
        let endless =
            run(outer, &[Tensor::scalar(1.0f32)], &RunOptions { deadline: soon, ..RunOptions::default() });
        assert_eq!(endless, Err(GraphError::Deadline));
    }

    #[test]
    fn bodies_share_the_variables_and_the_lock_of_the_graph_around_them() {
        let states = Arc::new(States::new(vec![Tensor::scalar(1.0f32)]));
        let branch = |assignment| {
            let mut b = Builder::new();
            b.set_states(states.clone());
            let x = b.input("x", DType::F32, None);
            let y = b.push(AssignState { cell: 0, assignment }, &[x]);
            b.finish(vec![(String::new(), y)]).into_body()
        };
        let choose = If { then_branch: branch(Assignment::Add), else_branch: branch(Assignment::Sub) };
        assert!(choose.assigns());
        let mut b = Builder::new();
        b.set_states(states.clone());
        let inputs = [b.input("c", DType::Bool, None), b.input("x", DType::F32, None)];
        let y = b.push(choose, &inputs);
        let graph = b.finish(vec![(String::new(), y)]);
        for (condition, expected) in [(true, 6.0f32), (false, 1.0)] {
            let inputs = [Tensor::scalar(condition), Tensor::scalar(5.0f32)];
            let y = run(graph.clone(), &inputs, &RunOptions::default()).unwrap();
            assert_eq!(y, [Tensor::scalar(expected)]);
            assert_eq!(states.values(), y);
        }
    }

    #[test]
    fn onnx_loops_and_scans_stack_what_each_round_makes() {
        // Each round adds the outer value and puts out the sum.
        let body = graph(&[DType::I64, DType::Bool, DType::F32, DType::F32], |b, x| {
            let sum = b.push(binary(Binary::Add), &[x[2], x[3]]);
            vec![x[1], sum, sum]
        });
        let op = Loop {
            body: body.into_body(),
            carried: 1,
            scans: vec![DType::F32],
            limited: true,
            conditional: false,
        };
        let looping = graph(&[DType::I64, DType::F32, DType::F32], |b, x| b.push_many(op.clone(), x, 2));
        let inputs = [Tensor::scalar(3i64), Tensor::scalar(1.0f32), Tensor::scalar(2.0f32)];
        let y = run(looping.clone(), &inputs, &RunOptions::default()).unwrap();
        assert_eq!(y, [Tensor::scalar(7.0f32), Tensor::from_slice([3], &[3.0f32, 5.0, 7.0]).unwrap()]);

        let never = [Tensor::scalar(0i64), Tensor::scalar(1.0f32), Tensor::scalar(2.0f32)];
        let y = run(looping, &never, &RunOptions::default()).unwrap();
        assert_eq!(y, [Tensor::scalar(1.0f32), Tensor::empty(DType::F32)]);

        // A running sum, read from the back and written from the back.
        let body = graph(&[DType::F32; 2], |b, x| {
            let sum = b.push(binary(Binary::Add), x);
            vec![sum, sum]
        });
        let op = Scan { body: body.into_body(), states: 1, scanned: vec![true], written: vec![true] };
        let outer = graph(&[DType::F32; 2], |b, x| b.push_many(op.clone(), x, 2));
        let x = Tensor::from_slice([3, 1], &[1.0f32, 2.0, 4.0]).unwrap();
        let start = Tensor::from_slice([1], &[0.0f32]).unwrap();
        let y = run(outer, &[start, x], &RunOptions::default()).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [7.0]);
        assert_eq!(y[1], Tensor::from_slice([3, 1], &[7.0f32, 6.0, 4.0]).unwrap());
    }
}
