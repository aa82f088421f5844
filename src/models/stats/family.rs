//! Metric families: series by their labels. A series is found under a read lock and counted with atomics.

use std::{
    fmt::Write,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Series of one family; clients choose model names, so they must not grow without limit.
const MAX_SERIES: usize = 1000;

/// Label value of all series beyond the limit.
const OTHERS: &str = "(others)";

/// Finite bucket bounds: `scale` x `growth`^k for k below `count`.
#[derive(Clone, Copy)]
pub(super) struct Buckets {
    scale: f64,
    growth: f64,
    count: usize,
}

impl Buckets {
    /// TensorFlow Serving's for latencies in microseconds and for numbers of examples.
    pub(super) const LATENCY: Self = Self { scale: 10.0, growth: 1.8, count: 33 };
    /// TensorFlow Serving's for the time that a request waits for a batch.
    pub(super) const QUEUE: Self = Self { scale: 100.0, growth: 1.2, count: 52 };
    /// Powers of two, for sizes of batches.
    pub(super) const SIZE: Self = Self { scale: 1.0, growth: 2.0, count: 14 };

    fn bounds(self) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(self.scale), move |bound| Some(bound * self.growth)).take(self.count)
    }
}

/// Sorted by labels, so that a lookup copies none of them.
type Series<T> = RwLock<Vec<(Vec<String>, T)>>;

/// A family of counters.
pub(super) struct Counters {
    name: &'static str,
    labels: &'static [&'static str],
    series: Series<AtomicU64>,
}

impl Counters {
    pub(super) fn new(name: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, labels, series: RwLock::default() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The sum of all series.
    pub(super) fn total(&self) -> u64 {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(_, count)| count.load(Relaxed)).sum()
    }

    pub(super) fn add(&self, values: &[&str], count: u64) {
        update(&self.series, values, AtomicU64::default, |total| {
            total.fetch_add(count, Relaxed);
        });
    }

    pub(super) fn render(&self, page: &mut String) {
        header(page, self.name, "counter");
        for (values, count) in &*self.series.read().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a String cannot fail.
            let _ =
                writeln!(page, "{}{{{}}} {}", self.name, labels(self.labels, values), count.load(Relaxed));
        }
    }
}

/// A family of histograms.
pub(super) struct Histograms {
    name: &'static str,
    labels: &'static [&'static str],
    /// Finite, ascending.
    bounds: Vec<f64>,
    series: Series<Histogram>,
}

struct Histogram {
    /// Not cumulative; the last one is above all bounds.
    buckets: Vec<AtomicU64>,
    /// Whole units: microseconds, examples, rows.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Self { buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }
}

impl Histograms {
    pub(super) fn new(name: &'static str, labels: &'static [&'static str], buckets: Buckets) -> Self {
        Self { name, labels, bounds: buckets.bounds().collect(), series: RwLock::default() }
    }

    pub(super) fn record(&self, values: &[&str], value: f64) {
        let new = || Histogram::new(&self.bounds);
        update(&self.series, values, new, |histogram| {
            let index = self.bounds.partition_point(|bound| *bound <= value);
            if let Some(bucket) = histogram.buckets.get(index) {
                bucket.fetch_add(1, Relaxed);
            }
            histogram.sum.fetch_add(value as u64, Relaxed);
        });
    }

    pub(super) fn render(&self, page: &mut String) {
        header(page, self.name, "histogram");
        for (values, histogram) in &*self.series.read().unwrap_or_else(PoisonError::into_inner) {
            let labels = labels(self.labels, values);
            let comma = if labels.is_empty() { "" } else { "," };
            let name = self.name;
            let limits = self.bounds.iter().map(|bound| six_digits(*bound)).chain(["+Inf".to_owned()]);
            let mut count = 0;
            for (limit, bucket) in limits.zip(&histogram.buckets) {
                count += bucket.load(Relaxed);
                let _ = writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{limit}\"}} {count}");
            }
            let _ = writeln!(page, "{name}_sum{{{labels}}} {}", histogram.sum.load(Relaxed));
            let _ = writeln!(page, "{name}_count{{{labels}}} {count}");
        }
    }
}

pub(super) fn header(page: &mut String, name: &str, kind: &str) {
    let _ = writeln!(page, "# TYPE {name} {kind}");
}

/// `a="x",b="y"`, escaped as the exposition format says.
pub(super) fn labels<V: AsRef<str>>(names: &[&str], values: &[V]) -> String {
    let mut text = String::new();
    for (name, value) in names.iter().zip(values) {
        if !text.is_empty() {
            text.push(',');
        }
        let value = value.as_ref().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    text
}

/// Lets `change` have the series of these labels, which is made if it is the first time.
fn update<T>(series: &Series<T>, values: &[&str], new: impl Fn() -> T, change: impl Fn(&T)) {
    let known = series.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = position(&known, values).ok().and_then(|at| known.get(at)) {
        return change(found);
    }
    drop(known);
    let others = vec![OTHERS; values.len()];
    let mut series = series.write().unwrap_or_else(PoisonError::into_inner);
    let full = series.len() >= MAX_SERIES && position(&series, values).is_err();
    let values = if full { &others } else { values };
    let at = position(&series, values).unwrap_or_else(|at| {
        let labels = values.iter().map(|value| (*value).to_owned()).collect();
        series.insert(at, (labels, new()));
        at
    });
    if let Some((_, found)) = series.get(at) {
        change(found);
    }
}

/// Where the series with these labels stands, or belongs.
fn position<T>(series: &[(Vec<String>, T)], values: &[&str]) -> Result<usize, usize> {
    series.binary_search_by(|(labels, _)| labels.iter().map(String::as_str).cmp(values.iter().copied()))
}

/// As C's `%g`: six significant digits, no trailing zeros, an exponent from 10^6 on. Values are 1 or more.
fn six_digits(value: f64) -> String {
    let scientific = format!("{value:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: usize = exponent.parse().unwrap_or(0);
    if exponent < 6 {
        let fixed = format!("{value:.*}", 5 - exponent);
        if fixed.contains('.') {
            return fixed.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        return fixed;
    }
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits}e+{exponent:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_printed_as_by_c() {
        let printed: Vec<String> = Buckets::LATENCY.bounds().map(six_digits).collect();
        // printf("%g") of 10 * 1.8^k.
        assert_eq!(printed[..6], ["10", "18", "32.4", "58.32", "104.976", "188.957"]);
        assert_eq!(printed[19], "708235");
        assert_eq!(printed[20], "1.27482e+06");
        assert_eq!(printed.last().map(String::as_str), Some("1.47476e+09"));
        assert_eq!(six_digits(1_000_000.0), "1e+06");
        // printf("%g") of 100 * 1.2^k.
        let printed: Vec<String> = Buckets::QUEUE.bounds().map(six_digits).collect();
        assert_eq!(printed[..5], ["100", "120", "144", "172.8", "207.36"]);
        assert_eq!(printed.last().map(String::as_str), Some("1.09205e+06"));
        assert_eq!(Buckets::SIZE.bounds().map(six_digits).last().as_deref(), Some("8192"));
    }

    #[test]
    fn series_are_limited_and_labels_escaped() {
        let counters = Counters::new("c", &["name"]);
        for index in 0..MAX_SERIES + 5 {
            counters.add(&[&index.to_string()], 1);
        }
        counters.add(&["0"], 1);
        let mut page = String::new();
        counters.render(&mut page);
        assert!(page.contains("c{name=\"(others)\"} 5\n") && page.contains("c{name=\"0\"} 2\n"));
        assert_eq!(labels(&["a", "b"], &["x\"\n", "\\"]), r#"a="x\"\n",b="\\""#);
    }
}
