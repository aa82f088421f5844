//! Models that several callers run on one pool at once. See scripts/race-test.sh.

#[path = "../../support/small_models.rs"]
mod small_models;

use graph::{Backend, Cpu, Graph, RunOptions};
use kernels::Threads;
use race::{graph, kernels, ops, tensor};
use std::sync::Arc;
use tensor::Tensor;

/// Callers that run the same program at the same time.
const CALLERS: usize = 3;
const RUNS: usize = 5;

fn results(graph: &Arc<Graph>, inputs: &[Tensor], threads: &Threads, callers: usize) -> Vec<Vec<Tensor>> {
    let program = Cpu::new(kernels::best(), threads.clone()).compile(graph.clone()).unwrap();
    let run = || {
        let mut outputs = Vec::new();
        (0..RUNS).for_each(|_| {
            outputs.clear();
            program.run(inputs, &mut outputs, &RunOptions::default()).unwrap();
        });
        outputs
    };
    // Planned and packed before: who has to wait for a Mutex takes it within the standard library, which the sanitizer does
    // not see, so all that was made behind it would look like a race.
    run();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(run)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

#[test]
fn models_on_one_pool() {
    for (name, graph, inputs) in small_models::all() {
        let graph = Arc::new(graph);
        let expected = results(&graph, &inputs, &Threads::single(), 1).remove(0);
        let threads = Threads::new(3);
        for callers in [1, CALLERS] {
            for found in results(&graph, &inputs, &threads, callers) {
                for (expected, found) in expected.iter().zip(&found) {
                    let close = expected
                        .as_slice::<f32>()
                        .unwrap()
                        .iter()
                        .zip(found.as_slice::<f32>().unwrap())
                        .all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0));
                    assert!(close, "{name}");
                }
            }
        }
    }
}
