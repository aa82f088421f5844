//! `kinglet bench`: how long a model takes, and where.

use super::{
    BenchArguments, LocalError,
    model::{InputsAreRead, Prepared},
    table,
};
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
    /// 90 of 100 runs are not slower.
    pub p90_ms: f64,
    /// 99 of 100 runs are not slower.
    pub p99_ms: f64,
    /// The fastest run.
    pub min_ms: f64,
    /// The slowest run.
    pub max_ms: f64,
    /// All runs together, each its part.
    pub mean_ms: f64,
    /// Mean time that the calling thread had a core for, where Linux tells: what other processes do counts less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    /// From the path until the model can run: planned for its inputs, weights packed.
    pub load_ms: f64,
    /// The run after that, which touches its memory for the first time.
    pub first_run_ms: f64,
    /// The most memory that the process ever had.
    pub peak_rss_bytes: u64,
    /// Runs that were timed.
    pub iterations: usize,
    /// Threads of a run.
    pub threads: usize,
    /// Runs per second of several callers at the same time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub throughput: Vec<Throughput>,
    /// Operators, where a profile is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<table::Row>>,
}

/// What several callers get together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Callers, each with the next run as soon as one is over.
    pub callers: usize,
    /// Runs of all of them.
    pub per_second: f64,
}

/// Times the model and writes what was found to `text`.
///
/// # Errors
/// What is wrong with the model, the archive or the inputs.
pub fn bench(arguments: &BenchArguments, text: &mut dyn Write) -> Result<(), LocalError> {
    let prepared = Prepared::load(&arguments.model, InputsAreRead::Afterwards)?;
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
    measured.throughput = throughput(&prepared, arguments, &measured)?;
    measured.peak_rss_bytes = peak_memory().unwrap_or(0);
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
    write(&measured, text)?;
    if arguments.profile {
        table::write(&rows, text)?;
    }
    Ok(())
}

fn write(measured: &Measured, text: &mut dyn Write) -> std::io::Result<()> {
    let Measured { median_ms, p90_ms, p99_ms, min_ms, max_ms, mean_ms, .. } = measured;
    writeln!(
        text,
        "median {median_ms:.4} ms   p90 {p90_ms:.4}   p99 {p99_ms:.4}   min {min_ms:.4}   max {max_ms:.4}   mean {mean_ms:.4}"
    )?;
    let Measured { load_ms, first_run_ms, peak_rss_bytes, threads, .. } = measured;
    let (memory, isa) = (*peak_rss_bytes as f64 / 1e6, best().name);
    writeln!(
        text,
        "load {load_ms:.1} ms   first run {first_run_ms:.1} ms   peak memory {memory:.1} MB   {threads} threads, {isa}"
    )?;
    for Throughput { callers, per_second } in &measured.throughput {
        let who = if *callers == 1 { "caller" } else { "callers" };
        writeln!(text, "throughput {per_second:.1}/s of {callers} {who}")?;
    }
    Ok(())
}

/// Of 1, 2, 4 .. callers, up to one for each thread.
fn throughput(
    prepared: &Prepared,
    arguments: &BenchArguments,
    measured: &Measured,
) -> Result<Vec<Throughput>, LocalError> {
    let most = arguments.model.threads;
    let counts = std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|&count| count < most);
    let expected = Duration::from_secs_f64(measured.mean_ms / 1e3 * arguments.iterations as f64);
    let time = expected.clamp(SHORTEST_LOAD, LONGEST_LOAD);
    counts.chain([most]).map(|callers| loaded(prepared, callers, time)).collect()
}

/// How long each number of callers calls.
const SHORTEST_LOAD: Duration = Duration::from_millis(50);
const LONGEST_LOAD: Duration = Duration::from_secs(2);

fn loaded(prepared: &Prepared, callers: usize, time: Duration) -> Result<Throughput, LocalError> {
    let started = Instant::now();
    let call = || {
        let (mut outputs, mut runs) = (Vec::new(), 0usize);
        while runs == 0 || started.elapsed() < time {
            prepared.run(&mut outputs, &RunOptions::default())?;
            runs += 1;
        }
        Ok::<usize, LocalError>(runs)
    };
    let runs: Result<usize, LocalError> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..callers).map(|_| scope.spawn(call)).collect();
        let own = call();
        let panicked = |_| LocalError::Misfit("a run panicked".to_owned());
        others.into_iter().map(|other| other.join().map_err(panicked)?).chain([own]).sum()
    });
    Ok(Throughput { callers, per_second: runs? as f64 / started.elapsed().as_secs_f64() })
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
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        min_ms: at(0.0),
        max_ms: at(1.0),
        mean_ms: milliseconds(times.iter().sum()) / times.len().max(1) as f64,
        cpu_ms,
        load_ms: milliseconds(prepared.load_time),
        first_run_ms: milliseconds(prepared.first_run_time),
        peak_rss_bytes: peak_memory().unwrap_or(0),
        iterations,
        threads: arguments.model.threads,
        throughput: Vec::new(),
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
