//! `kinglet convert`: any model as a folder of kinglet's own format, and what that changes.

use super::{
    ConvertArguments, LocalError, ModelArguments,
    inputs::{Given, inputs},
    run::{TOLERANCE, difference},
};
use crate::{
    formats::{LoadedSignature, bytes_text, signed},
    graph::{Backend, Cpu, RunOptions},
    kernels::{Threads, best},
    models::convert::{Conversion, Written, meant, version_folder},
    tensor::Tensor,
};
use std::{io::Write, path::Path, sync::Arc};

/// Converts, or with `--dry_run` only tells what would come of it.
///
/// # Errors
/// The model cannot be loaded, written or compared, or the destination is there already.
pub fn convert(arguments: &ConvertArguments, text: &mut dyn Write) -> Result<(), LocalError> {
    let key = arguments.sign_key.as_deref().map(signed::PrivateKey::read).transpose()?.map(Arc::new);
    let conversion = Conversion { narrow: arguments.weights, panels: arguments.panels, key };
    let cpu = Cpu::new(best(), Threads::new(arguments.model.threads));
    let temporary;
    let destination = match arguments.dry_run {
        false => arguments.destination.clone(),
        true => {
            temporary = Scratch::new()?;
            temporary.0.join("1")
        }
    };
    let written = conversion.write(&arguments.model.model, &destination, &cpu)?;
    let told = tell(arguments, &written, &cpu, text);
    if arguments.dry_run || told.is_err() {
        written.discard()?;
        return told;
    }
    let place = written.publish()?;
    writeln!(text, "written to {}", place.display())?;
    Ok(())
}

/// A folder for a trial.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self, LocalError> {
        let path = std::env::temp_dir().join(format!("kinglet-convert-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tell(
    arguments: &ConvertArguments,
    written: &Written,
    cpu: &Cpu,
    text: &mut dyn Write,
) -> Result<(), LocalError> {
    let source = meant(&arguments.model.model);
    let size = size_of_all(&source)?;
    writeln!(text, "size    {} -> {}", bytes_text(size), bytes_text(written.bytes as usize))?;
    let memory = [&written.source, &written.copy].map(|model| bytes_text(model.weight_bytes));
    writeln!(
        text,
        "memory  {} -> {}, mapped and shared by all processes that serve it",
        memory[0], memory[1]
    )?;
    for (name, signature) in &written.source.signatures {
        let Some(copy) = written.copy.signatures.get(name) else { continue };
        if arguments.model.signature.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        match compare(signature, copy, &arguments.model, cpu) {
            Ok(differences) => {
                for (output, difference) in differences {
                    let words = match difference {
                        Some(0.0) => "equal, bit by bit".to_owned(),
                        Some(difference) => {
                            format!("differs by at most {difference:.1e} of its largest value")
                        }
                        None => "differs in type, shape or text".to_owned(),
                    };
                    writeln!(text, "output  {name}: {output} {words}")?;
                    if arguments.weights.is_none()
                        && difference.is_none_or(|difference| difference > TOLERANCE)
                    {
                        return Err(LocalError::Misfit(format!("{name}: {output} of the copy {words}")));
                    }
                }
            }
            Err(error) => {
                let kind = if arguments.model.input.is_some() { "given" } else { "random" };
                writeln!(text, "output  {name}: not compared, the model refuses {kind} inputs: {error}")?;
            }
        }
    }
    if arguments.dry_run {
        writeln!(
            text,
            "nothing is written; it would be {}",
            version_folder(&arguments.destination).display()
        )?;
    }
    Ok(())
}

/// For each output the largest difference, relative to its largest value.
fn compare(
    signature: &LoadedSignature,
    copy: &LoadedSignature,
    arguments: &ModelArguments,
    cpu: &Cpu,
) -> Result<Vec<(String, Option<f64>)>, LocalError> {
    let (tensors, _) = inputs(signature, arguments, Given::read(arguments)?)?;
    let run = |signature: &LoadedSignature| -> Result<Vec<Tensor>, LocalError> {
        let mut outputs = Vec::new();
        cpu.compile(signature.graph.clone())?.run(&tensors, &mut outputs, &RunOptions::default())?;
        Ok(outputs)
    };
    let (expected, found) = (run(signature)?, run(copy)?);
    let pairs = expected.iter().zip(&found).map(|(expected, found)| match expected == found {
        true => Some(0.0),
        false => difference(expected, found).map(|difference| difference.max(f64::MIN_POSITIVE)),
    });
    Ok(signature.outputs.iter().map(|info| info.name.clone()).zip(pairs).collect())
}

fn size_of_all(path: &Path) -> Result<usize, LocalError> {
    if path.is_file() {
        return Ok(std::fs::metadata(path)?.len() as usize);
    }
    Ok(signed::files_below(path)?.values().map(|file| file.len()).sum())
}
