//! Counters and histograms, and their text for Prometheus.
//!
//! Names, labels, buckets and layout are TensorFlow Serving's, so that dashboards go on working:
//! `/tensorflow/serving/request_count` is printed as `:tensorflow:serving:request_count`. Kinglet's own
//! families start with `kinglet_`.

mod family;
mod monitoring;

pub use monitoring::Monitoring;

use super::{Code, Registry};
use family::{Buckets, Counters, Histograms, header};
use std::{
    fmt::Write,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Which port of the house a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrypoint {
    /// HTTP with JSON.
    Rest,
    /// gRPC.
    Grpc,
}

impl Entrypoint {
    const fn name(self) -> &'static str {
        match self {
            Entrypoint::Rest => "REST",
            Entrypoint::Grpc => "GRPC",
        }
    }
}

/// All numbers of the server.
pub struct Stats {
    request_count: Counters,
    request_latency: Histograms,
    runtime_latency: Histograms,
    example_counts: Histograms,
    example_count_total: Counters,
    warmup_latency: Histograms,
    warmup_records: Counters,
    request_log_count: Counters,
    batch_queue: Histograms,
    batch_runs: Counters,
    batch_rows: Histograms,
    request_wait: Histograms,
    signature_latency: Histograms,
    wire_events: Counters,
    open_connections: AtomicI64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            request_count: Counters::new(":tensorflow:serving:request_count", &["model_name", "status"]),
            request_latency: Histograms::new(
                ":tensorflow:serving:request_latency",
                &["model_name", "API", "entrypoint"],
                Buckets::LATENCY,
            ),
            runtime_latency: Histograms::new(
                ":tensorflow:serving:runtime_latency",
                &["model_name", "API", "runtime"],
                Buckets::LATENCY,
            ),
            example_counts: Histograms::new(
                ":tensorflow:serving:request_example_counts",
                &["model"],
                Buckets::LATENCY,
            ),
            example_count_total: Counters::new(":tensorflow:serving:request_example_count_total", &["model"]),
            warmup_latency: Histograms::new(
                ":tensorflow:serving:model_warmup_latency",
                &["model_path", "status"],
                Buckets::LATENCY,
            ),
            warmup_records: Counters::new(":tensorflow:serving:model_warmup_records_read", &["model_path"]),
            request_log_count: Counters::new(
                ":tensorflow:serving:request_log_count",
                &["model_name", "status_code"],
            ),
            batch_queue: Histograms::new(
                ":tensorflow:serving:batching_session:queuing_latency",
                &["thread_pool_name"],
                Buckets::QUEUE,
            ),
            batch_runs: Counters::new(":tensorflow:serving:batching_session:wrapped_run_count", &[]),
            batch_rows: Histograms::new(
                "kinglet_batch_rows",
                &["model_name", "signature_name"],
                Buckets::SIZE,
            ),
            request_wait: Histograms::new("kinglet_request_wait_microseconds", &[], Buckets::LATENCY),
            signature_latency: Histograms::new(
                "kinglet_signature_latency_microseconds",
                &["model_name", "version", "signature_name"],
                Buckets::LATENCY,
            ),
            wire_events: Counters::new("kinglet_wire_events_total", &["event"]),
            open_connections: AtomicI64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }
}

impl Stats {
    /// Counts a request that named a model; its latency only when it succeeded.
    pub fn request(&self, model: &str, api: &str, entrypoint: Entrypoint, status: Code, took: Duration) {
        self.request_count.add(&[model, status.name()], 1);
        if status == Code::Ok {
            self.request_latency.record(&[model, api, entrypoint.name()], micros(took));
        }
    }

    /// Records how long a model itself ran; its version and signature in kinglet's own family.
    pub fn run(&self, model: &str, version: &str, signature: &str, api: &str, took: Duration) {
        self.runtime_latency.record(&[model, api, "TF1"], micros(took));
        self.signature_latency.record(&[model, version, signature], micros(took));
    }

    /// Records a batch: its rows, and how long each of its requests waited for it.
    pub fn batch(&self, model: &str, signature: &str, rows: usize, waits: impl Iterator<Item = Duration>) {
        self.batch_runs.add(&[], 1);
        self.batch_rows.record(&[model, signature], rows as f64);
        waits.for_each(|wait| self.batch_queue.record(&["batch_threads"], micros(wait)));
    }

    /// Records how long a request was on its way from its head to a worker.
    pub fn waited(&self, wait: Duration) {
        self.request_wait.record(&[], micros(wait));
    }

    /// Counts a request that was written to the record.
    pub fn logged(&self, model: &str) {
        self.request_log_count.add(&[model, Code::Ok.name()], 1);
    }

    /// Records how many examples a request carried.
    pub fn examples(&self, model: &str, count: usize) {
        self.example_counts.record(&[model], count as f64);
        self.example_count_total.add(&[model], count as u64);
    }

    /// Records a warm-up request.
    pub fn warmup(&self, path: &str, status: Code, took: Duration) {
        self.warmup_records.add(&[path], 1);
        self.warmup_latency.record(&[path, status.name()], micros(took));
    }

    /// Counts something that happened on a connection, by a fixed name.
    pub fn wire_event(&self, name: &'static str) {
        self.wire_events.add(&[name], 1);
    }

    /// Connections opened less those closed.
    pub fn connections(&self, change: i64) {
        self.open_connections.fetch_add(change, Relaxed);
    }

    /// Counts bytes from and to clients.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.received_bytes.fetch_add(received, Relaxed);
        self.sent_bytes.fetch_add(sent, Relaxed);
    }

    /// The sum over all series of a counter of TensorFlow Serving, by its internal name, as in
    /// `/tensorflow/serving/request_count`; `None` for one that is not counted here.
    pub fn counted(&self, name: &str) -> Option<u64> {
        let counters = [
            &self.request_count,
            &self.example_count_total,
            &self.warmup_records,
            &self.request_log_count,
            &self.batch_runs,
        ];
        let printed = name.replace('/', ":");
        counters.into_iter().find(|counters| counters.name() == printed).map(Counters::total)
    }

    /// The whole page. Families without samples still have their line of type.
    pub fn render(&self, registry: &Registry) -> String {
        let mut page = String::new();
        self.example_count_total.render(&mut page);
        self.example_counts.render(&mut page);
        self.request_count.render(&mut page);
        self.request_latency.render(&mut page);
        self.runtime_latency.render(&mut page);
        self.warmup_latency.render(&mut page);
        self.warmup_records.render(&mut page);
        self.request_log_count.render(&mut page);
        self.batch_queue.render(&mut page);
        self.batch_runs.render(&mut page);
        self.batch_rows.render(&mut page);
        self.request_wait.render(&mut page);
        self.signature_latency.render(&mut page);
        self.wire_events.render(&mut page);
        gauge(&mut page, "kinglet_open_connections", self.open_connections.load(Relaxed));
        counter(&mut page, "kinglet_received_bytes_total", self.received_bytes.load(Relaxed));
        counter(&mut page, "kinglet_sent_bytes_total", self.sent_bytes.load(Relaxed));
        models(&mut page, registry);
        page
    }
}

fn micros(took: Duration) -> f64 {
    took.as_micros() as f64
}

fn gauge(page: &mut String, name: &str, value: i64) {
    header(page, name, "gauge");
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{name}{{}} {value}");
}

fn counter(page: &mut String, name: &str, value: u64) {
    header(page, name, "counter");
    let _ = writeln!(page, "{name}{{}} {value}");
}

/// What is loaded now, read from the registry itself.
fn models(page: &mut String, registry: &Registry) {
    header(page, "kinglet_model_weight_bytes", "gauge");
    for servable in registry.available() {
        let labels =
            family::labels(&["model_name", "version"], &[&servable.name, &servable.version.to_string()]);
        let _ = writeln!(page, "kinglet_model_weight_bytes{{{labels}}} {}", servable.weight_bytes);
    }
    header(page, "kinglet_ready", "gauge");
    let _ = writeln!(page, "kinglet_ready{{}} {}", u8::from(registry.is_ready()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::fakes;

    #[test]
    fn the_page_has_tensorflow_serving_s_layout() {
        let stats = Stats::default();
        let registry = Registry::new();
        assert!(stats.render(&registry).contains("# TYPE :tensorflow:serving:request_count counter\n# TYPE"));
        for _ in 0..8 {
            stats.request("m", "predict", Entrypoint::Rest, Code::Ok, Duration::from_micros(20));
        }
        stats.request("m", "Predict", Entrypoint::Grpc, Code::InvalidArgument, Duration::from_micros(20));
        registry.publish(fakes::echo("m", 3));
        let page = stats.render(&registry);
        let count = "# TYPE :tensorflow:serving:request_count counter\n\
            :tensorflow:serving:request_count{model_name=\"m\",status=\"INVALID_ARGUMENT\"} 1\n\
            :tensorflow:serving:request_count{model_name=\"m\",status=\"OK\"} 8\n";
        assert!(page.contains(count), "{page}");
        let latency = "# TYPE :tensorflow:serving:request_latency histogram\n\
            :tensorflow:serving:request_latency_bucket{model_name=\"m\",API=\"predict\",entrypoint=\"REST\",le=\"10\"} 0\n\
            :tensorflow:serving:request_latency_bucket{model_name=\"m\",API=\"predict\",entrypoint=\"REST\",le=\"18\"} 0\n\
            :tensorflow:serving:request_latency_bucket{model_name=\"m\",API=\"predict\",entrypoint=\"REST\",le=\"32.4\"} 8\n";
        assert!(page.contains(latency), "{page}");
        assert!(page.contains("entrypoint=\"REST\",le=\"1.47476e+09\"} 8\n"), "{page}");
        assert!(page.contains("entrypoint=\"REST\",le=\"+Inf\"} 8\n"), "{page}");
        let sum = ":tensorflow:serving:request_latency_sum{model_name=\"m\",API=\"predict\",entrypoint=\"REST\"} 160\n\
            :tensorflow:serving:request_latency_count{model_name=\"m\",API=\"predict\",entrypoint=\"REST\"} 8\n";
        assert!(page.contains(sum), "{page}");
        assert!(!page.contains("entrypoint=\"GRPC\""), "failures have no latency");
        assert!(page.contains("kinglet_model_weight_bytes{model_name=\"m\",version=\"3\"} 0\n"));
        assert!(page.contains("kinglet_ready{} 1\n"));
        assert_eq!(stats.counted("/tensorflow/serving/request_count"), Some(9));
        assert_eq!(stats.counted("/tensorflow/serving/other"), None);
    }
}
