//! Whether a model fits, told before it is loaded.

use super::Error;
use crate::{
    formats::{LoadedModel, TensorInfo, assumed_shape},
    graph::{Budget, Cpu, Estimate, Reserved},
    tensor::Shape,
};
use std::sync::Arc;

/// A model that is this many times smaller than what is left needs no closer look: making a plan only to see what it
/// takes costs time.
const CLEARLY_SMALLER: usize = 8;
const CLEARLY_SMALL: usize = 64 << 20;

/// What a model will take: that of its signature that takes most, with inputs of the shapes that `shape_of` says.
/// Nothing is packed for it.
///
/// # Errors
/// When no signature can be planned for these shapes.
pub fn estimate(
    model: &LoadedModel,
    backend: &Cpu,
    shape_of: &dyn Fn(&TensorInfo, Option<&[Option<usize>]>) -> Shape,
) -> Result<Estimate, Error> {
    let mut most: Option<Estimate> = None;
    let mut failure = Error::invalid_argument("the model has no signature to call");
    for signature in model.signatures.values() {
        let inputs = signature.inputs.iter().zip(signature.graph.inputs());
        let shapes: Vec<Shape> = inputs
            .map(|(info, input)| shape_of(info, input.shape.as_deref().or(info.shape.as_deref())))
            .collect();
        match backend.estimate(signature.graph.clone(), &shapes) {
            Ok(found) if most.is_none_or(|most| found.total() > most.total()) => most = Some(found),
            Ok(_) => {}
            Err(error) => failure = error.into(),
        }
    }
    most.ok_or(failure)
}

/// Takes what a model will hold from the budget; a run for one example has to fit beside it.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` with the numbers.
pub fn reserve(model: &LoadedModel, backend: &Cpu, budget: &Arc<Budget>) -> Result<Reserved, Error> {
    let clearly_fits = model
        .weight_bytes
        .checked_mul(CLEARLY_SMALLER)
        .and_then(|bytes| bytes.checked_add(CLEARLY_SMALL))
        .is_some_and(|bytes| bytes <= budget.left());
    let needed = match clearly_fits {
        true => Estimate { packed: model.weight_bytes, ..Estimate::default() },
        false => estimate(model, backend, &|_, declared| assumed_shape(declared, 1))
            .unwrap_or(Estimate { packed: model.weight_bytes, ..Estimate::default() }),
    };
    let left = budget.left();
    let reserved = budget.reserve(needed.held()).filter(|_| needed.total() <= left);
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    reserved.ok_or_else(|| {
        Error::resource_exhausted(format!(
            "the model needs about {:.1} MB of memory ({:.1} MB of weights, {:.1} MB for a run), but of --memory_limit, \
             {:.1} MB, only {:.1} MB are left. It is not loaded. Raise the limit, serve fewer models, or let \
             --swap_policy=unload_first make room before a new version is loaded",
            megabytes(needed.total()),
            megabytes(needed.held()),
            megabytes(needed.total() - needed.held()),
            megabytes(budget.limit()),
            megabytes(left)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        formats::built_in,
        kernels::{Threads, best},
        models::Code,
    };

    #[test]
    fn a_model_takes_its_part_or_is_refused_with_numbers() {
        let model = built_in::MODELS[1].load().unwrap();
        let cpu = Cpu::new(best(), Threads::single());
        let budget = Budget::new(100);
        let error = reserve(&model, &cpu, &budget).unwrap_err();
        assert_eq!((error.code, budget.used()), (Code::ResourceExhausted, 0));
        assert!(error.message.contains("--memory_limit, 0.0 MB"), "{error}");
        let budget = Budget::new(100_000);
        let reserved = reserve(&model, &cpu, &budget).unwrap();
        assert!((model.weight_bytes / 2..2 * model.weight_bytes).contains(&budget.used()));
        drop(reserved);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_run_counts_with_its_batch() {
        let model = built_in::MODELS[1].load().unwrap();
        let cpu = Cpu::new(best(), Threads::single());
        let of = |batch| estimate(&model, &cpu, &|_, declared| assumed_shape(declared, batch)).unwrap();
        assert_eq!(of(1).held(), of(1000).held());
        // Four inputs of floats are at least what a run copies into one.
        assert!(of(1000).run >= 16_000 && of(1000).run > 100 * of(1).run, "{:?}", of(1000));
    }
}
