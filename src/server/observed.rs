//! Programs that record how long they run and how many examples they get.

use crate::{
    models::{Error, Patience, Program, Servable, Stats},
    tensor::Tensor,
};
use std::{sync::Arc, time::Instant};

struct Observed {
    inner: Arc<dyn Program>,
    stats: Arc<Stats>,
    model: String,
    version: String,
    signature: String,
    api: &'static str,
}

/// Makes every signature of a servable record its runs.
pub(super) fn observed(mut servable: Servable, stats: &Arc<Stats>) -> Servable {
    for signature in servable.signatures.values_mut() {
        let api = match signature.definition.method_name.as_str() {
            "tensorflow/serving/classify" => "Classify",
            "tensorflow/serving/regress" => "Regress",
            _ => "Predict",
        };
        let inner = signature.program.clone();
        let (model, version) = (servable.name.clone(), servable.version.to_string());
        let (stats, signature_name) = (stats.clone(), signature.name.clone());
        signature.program =
            Arc::new(Observed { inner, stats, model, version, signature: signature_name, api });
    }
    servable
}

impl Program for Observed {
    fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        patience: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error> {
        let started = Instant::now();
        self.inner.run(inputs, wanted, patience, outputs)?;
        self.stats.run(&self.model, &self.version, &self.signature, self.api, started.elapsed());
        // TensorFlow Serving counts examples where a request is a list of them.
        if self.api != "Predict" {
            let examples = inputs.first().and_then(|input| input.shape().first().copied());
            self.stats.examples(&self.model, examples.unwrap_or(1));
        }
        Ok(())
    }
}
