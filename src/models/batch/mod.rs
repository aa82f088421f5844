//! Requests that wait at the same time run as one batch.
//!
//! There are no batching threads: requests already have one each. A request that finds a free slot runs at
//! once, alone, so nobody waits for company that may not come. While all slots are busy requests collect in
//! lanes, one per signature and shape, so that different shapes neither mix nor block each other; whoever
//! frees a slot hands the oldest batch to its first request, which runs it for all.

mod parameters;
mod rows;
mod scheduler;

pub use parameters::BatchParameters;
pub use scheduler::Scheduler;

use super::{Error, Patience, Program, Servable, Stats};
use crate::tensor::{DType, Shape, Tensor};
use rows::{cut, join, rows_of};
use scheduler::{LaneKey, Task};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Makes every signature of a servable run in batches.
pub fn batched(
    mut servable: Servable,
    parameters: &Arc<BatchParameters>,
    scheduler: &Arc<Scheduler>,
    stats: &Arc<Stats>,
) -> Servable {
    for signature in servable.signatures.values_mut() {
        signature.program = Arc::new(Batched {
            inner: signature.program.clone(),
            stats: stats.clone(),
            labels: [servable.name.clone(), signature.name.clone()],
            parameters: parameters.clone(),
            scheduler: scheduler.clone(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        });
    }
    servable
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A program whose runs are batched along the first dimension of all inputs and outputs.
struct Batched {
    inner: Arc<dyn Program>,
    parameters: Arc<BatchParameters>,
    scheduler: Arc<Scheduler>,
    stats: Arc<Stats>,
    /// Model and signature, for the metrics.
    labels: [String; 2],
    /// Tells the lanes of signatures apart.
    id: u64,
}

impl Program for Batched {
    fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        patience: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error> {
        // What has no common first dimension runs alone.
        let Some(rows) = rows_of(inputs) else { return self.inner.run(inputs, wanted, patience, outputs) };
        let largest = self.parameters.largest_batch();
        if rows <= largest {
            outputs.append(&mut self.submit(inputs.to_vec(), rows, wanted, patience)?);
            return Ok(());
        }
        if !self.parameters.enable_large_batch_splitting {
            return Err(Error::invalid_argument(format!(
                "Task size {rows} is larger than maximum input batch size {largest}"
            )));
        }
        outputs.append(&mut self.split(inputs, rows, largest, wanted, patience)?);
        Ok(())
    }
}

impl Batched {
    fn split(
        &self,
        inputs: &[Tensor],
        rows: usize,
        largest: usize,
        wanted: &[usize],
        patience: &Patience,
    ) -> Result<Vec<Tensor>, Error> {
        let mut parts: Vec<Vec<Tensor>> = Vec::new();
        for start in (0..rows).step_by(largest.max(1)) {
            let count = largest.min(rows - start);
            let piece = inputs.iter().map(|input| cut(input, start, count)).collect::<Result<_, _>>()?;
            parts.push(self.submit(piece, count, wanted, patience)?);
        }
        (0..wanted.len())
            .map(|index| {
                let pieces: Vec<&Tensor> = parts.iter().filter_map(|part| part.get(index)).collect();
                join(&pieces, rows)
            })
            .collect()
    }

    fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        wanted: &[usize],
        patience: &Patience,
    ) -> Result<Vec<Tensor>, Error> {
        let key = LaneKey { id: self.id, wanted: wanted.to_vec(), shapes: self.shapes(&inputs) };
        let task = Task::new(inputs, rows, patience);
        self.scheduler.run(&self.parameters, key, task, &|tasks| self.run_batch(tasks, wanted))
    }

    /// What inputs have to agree in to share a batch.
    fn shapes(&self, inputs: &[Tensor]) -> Vec<(DType, Shape)> {
        let shape = |tensor: &Tensor| -> Shape {
            let inner = tensor.shape().iter().skip(1);
            // Strings are never padded.
            if self.parameters.pad_variable_length_inputs && tensor.dtype() != DType::String {
                inner.map(|_| 0).collect()
            } else {
                inner.copied().collect()
            }
        };
        inputs.iter().map(|tensor| (tensor.dtype(), shape(tensor))).collect()
    }

    /// Runs tasks together; when that fails, one by one, so that a request fails only by its own values.
    fn run_batch(&self, tasks: &[&Task], wanted: &[usize]) -> Vec<Result<Vec<Tensor>, Error>> {
        let [model, signature] = &self.labels;
        let rows = tasks.iter().map(|task| task.rows).sum();
        self.stats.batch(model, signature, rows, tasks.iter().map(|task| task.queued.elapsed()));
        match self.run_together(tasks, wanted) {
            Err(_) if tasks.len() > 1 => tasks
                .iter()
                .map(|task| {
                    let mut alone = self.run_together(&[task], wanted)?;
                    alone.pop().ok_or_else(|| Error::internal("a batch without a result"))
                })
                .collect(),
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn run_together(&self, tasks: &[&Task], wanted: &[usize]) -> Result<Vec<Vec<Tensor>>, Error> {
        let total: usize = tasks.iter().map(|task| task.rows).sum();
        let padded = self.parameters.padded(total);
        let mut outputs = Vec::with_capacity(wanted.len());
        let patience = patience_of(tasks);
        if let ([task], true) = (tasks, padded == total) {
            self.inner.run(&task.inputs, wanted, &patience, &mut outputs)?;
            return Ok(vec![outputs]);
        }
        let count = tasks.first().map_or(0, |task| task.inputs.len());
        let inputs = (0..count)
            .map(|index| {
                let parts: Vec<&Tensor> = tasks.iter().filter_map(|task| task.inputs.get(index)).collect();
                join(&parts, padded)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.inner.run(&inputs, wanted, &patience, &mut outputs)?;
        check_outputs(&outputs, padded)?;
        let mut start = 0;
        tasks
            .iter()
            .map(|task| {
                let cuts = outputs.iter().map(|output| cut(output, start, task.rows)).collect();
                start += task.rows;
                cuts
            })
            .collect()
    }
}

/// A batch runs as long as one of its callers waits; who gives up alone cannot end it.
fn patience_of(tasks: &[&Task]) -> Patience {
    if let [task] = tasks {
        return task.patience.clone();
    }
    let deadlines = tasks.iter().map(|task| task.patience.deadline).collect::<Option<Vec<_>>>();
    Patience::until(deadlines.and_then(|all| all.into_iter().max()))
}

fn check_outputs(outputs: &[Tensor], rows: usize) -> Result<(), Error> {
    for output in outputs {
        match output.shape().first() {
            None => {
                return Err(Error::failed_precondition("Batched output tensor has 0 dimensions"));
            }
            Some(found) if *found != rows => {
                return Err(Error::failed_precondition(
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of \
                     the input tensors",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
