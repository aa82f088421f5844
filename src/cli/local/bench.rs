//! `kinglet bench`: how long a model takes, and where.

use super::{BenchArguments, LocalError, model::Prepared, table};
use crate::{formats::npz, graph::RunOptions, kernels::best, ops::Profile};
use serde::Serialize;
use std::{
    io::{BufRead, Write},
    time::{Duration, Instant},
};

/// What a bench found; times are of whole runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The middle run.
    pub median_ms: f64,
    /// 99 of 100 runs are not slower.
    pub p99_ms: f64,
    /// The fastest run.
    pub min_ms: f64,
    /// Mean time that the calling thread had a core for, where Linux tells: what other processes do counts less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    /// From the path to the end of the first run, which plans and packs weights.
    pub load_ms: f64,
    /// The most memory that the process ever had.
    pub peak_rss_bytes: u64,
    /// Runs that were timed.
    pub iterations: usize,
    /// Threads of a run.
    pub threads: usize,
    /// Operators, where a profile is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<table::Row>>,
}

/// Times the model and writes what was found to `text`.
///
/// # Errors
/// What is wrong with the model, the archive or the inputs.
pub fn bench(arguments: &BenchArguments, text: &mut dyn Write) -> Result<(), LocalError> {
    let prepared = Prepared::load(&arguments.model)?;
    if let Some(path) = &arguments.output {
        npz::write(path, prepared.named_outputs())?;
    }
    if arguments.interactive {
        return interactive(&prepared, arguments, text);
    }
    let mut outputs = prepared.outputs.clone();
    for _ in 1..arguments.warm_up {
        prepared.run(&mut outputs, &RunOptions::default())?;
    }
    let mut measured = measure(&prepared, arguments, arguments.iterations)?;
    let profile = Profile::default();
    if arguments.profile {
        let options = RunOptions { profile: Some(&profile), ..RunOptions::default() };
        for _ in 0..arguments.iterations {
            prepared.run(&mut outputs, &options)?;
        }
    }
    let steps = profile.steps();
    let rows =
        table::rows(&steps, arguments.iterations, best().measure_peak() * arguments.model.threads as f64);
    if arguments.json {
        measured.profile = arguments.profile.then_some(rows);
        writeln!(text, "{}", json(&measured))?;
        return Ok(());
    }
    let Measured { median_ms, p99_ms, min_ms, load_ms, peak_rss_bytes, .. } = measured;
    writeln!(text, "median {median_ms:.4} ms   p99 {p99_ms:.4} ms   min {min_ms:.4} ms")?;
    let (threads, isa) = (arguments.model.threads, best().name);
    let memory = peak_rss_bytes as f64 / 1e6;
    writeln!(text, "load {load_ms:.1} ms   peak memory {memory:.1} MB   {threads} threads, {isa}")?;
    if arguments.profile {
        table::write(&rows, text)?;
    }
    Ok(())
}

/// Answers each number on a line with so many timed runs, so that another engine can take turns.
fn interactive(
    prepared: &Prepared,
    arguments: &BenchArguments,
    text: &mut dyn Write,
) -> Result<(), LocalError> {
    let ready = measure(prepared, arguments, arguments.warm_up.max(1))?;
    writeln!(text, "{}", json(&ready))?;
    text.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Ok(iterations) = line.trim().parse::<usize>() else {
            return Err(LocalError::Misfit(format!("`{line}` is not a number of runs")));
        };
        writeln!(text, "{}", json(&measure(prepared, arguments, iterations.max(1))?))?;
        text.flush()?;
    }
    Ok(())
}

fn measure(
    prepared: &Prepared,
    arguments: &BenchArguments,
    iterations: usize,
) -> Result<Measured, LocalError> {
    let mut outputs = prepared.outputs.clone();
    let mut times = Vec::with_capacity(iterations);
    let before = thread_time();
    for _ in 0..iterations {
        outputs.clear();
        let started = Instant::now();
        prepared.run(&mut outputs, &RunOptions::default())?;
        times.push(started.elapsed());
    }
    let cpu_ms =
        before.zip(thread_time()).map(|(before, after)| (after - before) as f64 / 1e6 / iterations as f64);
    times.sort();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        milliseconds(times.get(index).copied().unwrap_or_default())
    };
    Ok(Measured {
        median_ms: at(0.5),
        p99_ms: at(0.99),
        min_ms: at(0.0),
        cpu_ms,
        load_ms: milliseconds(prepared.load_time),
        peak_rss_bytes: peak_memory().unwrap_or(0),
        iterations,
        threads: arguments.model.threads,
        profile: None,
    })
}

fn json(measured: &Measured) -> String {
    serde_json::to_string(measured).unwrap_or_default()
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Nanoseconds that this thread had a core for.
fn thread_time() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The highest resident memory of this process, as Linux counts it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
