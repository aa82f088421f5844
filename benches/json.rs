//! Times the way from a predict body's text to elements, and from elements to an answer's text,
//! beside serde_json's.
//!
//! `cargo bench --bench json` prints the least time of each over a body of [1,224,224,3] numbers,
//! and how many times serde_json takes as long: the median over rounds in which all take turns, as machines change their
//! speed within seconds.
#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]

use kinglet::api::json::{Collector, Conversion, Document, FromNumber, Value, write::Writer};
use std::{hint::black_box, time::Instant};

const SHAPE: [usize; 4] = [1, 224, 224, 3];
const ROUNDS: usize = 61;

fn main() {
    let digits: [(&str, fn(f32) -> String); 5] = [
        ("three decimals", |value| format!("{value:.3}")),
        ("shortest float", |value| value.to_string()),
        ("float as double", |value| f64::from(value).to_string()),
        ("six decimals, signed", |value| format!("{:.6}", value * 4.0 - 2.0)),
        ("integers to 255", |value| format!("{:.0}", value * 255.0)),
    ];
    for (name, digits) in digits {
        let values = values();
        let body = body(&values, digits);
        println!("{name}: {} bytes", body.len());
        assert_eq!(in_two_passes(&body), from_serde_json(&body));
        take_turns(&mut [
            ("serde_json Value, to f32", &mut || from_serde_json(&body).len()),
            ("checked only", &mut || usize::from(Document::parse(&body).is_ok())),
            ("read while checked", &mut || size_of_val(&in_one_pass(&body))),
            ("read afterwards", &mut || in_two_passes(&body).len()),
        ]);
        take_turns(&mut [
            ("serde_json, from f32", &mut || serde_json::to_vec(&values).map_or(0, |text| text.len())),
            ("written", &mut || written(&values).len()),
        ]);
    }
}

/// Values in 0..1 from a linear congruential generator.
fn values() -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..SHAPE.iter().product()).map(|_| next()).collect()
}

fn body(values: &[f32], digits: fn(f32) -> String) -> Vec<u8> {
    let pixel = |pixel: &[f32]| {
        format!("[{}]", pixel.iter().map(|&value| digits(value)).collect::<Vec<_>>().join(", "))
    };
    let row = |row: &[f32]| format!("[{}]", row.chunks(3).map(pixel).collect::<Vec<_>>().join(", "));
    let rows: Vec<String> = values.chunks(224 * 3).map(row).collect();
    format!(r#"{{"instances": [[{}]]}}"#, rows.join(", ")).into_bytes()
}

fn from_serde_json(body: &[u8]) -> Vec<f32> {
    fn walk(value: &serde_json::Value, out: &mut Vec<f32>) {
        match value {
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, out)),
            number => out.push(number.as_f64().unwrap_or(f64::NAN) as f32),
        }
    }
    let value: serde_json::Value = serde_json::from_slice(body).expect("the body is JSON");
    let mut out = Vec::new();
    walk(&value["instances"], &mut out);
    out
}

fn instances<'d>(document: &'d Document<'_>) -> Value<'d> {
    document.root().find("instances").expect("instances")
}

fn in_one_pass(body: &[u8]) -> Collector<f32> {
    let mut collector = Collector::new(Conversion::Exact);
    let document = Document::parse_collecting(body, &mut collector).expect("the body is JSON");
    assert!(instances(&document).collected(&SHAPE, &collector).is_some());
    collector
}

fn in_two_passes(body: &[u8]) -> Vec<f32> {
    let document = Document::parse(body).expect("the body is JSON");
    let mut out = Vec::new();
    let count = instances(&document).each_leaf(&SHAPE, |text, at| {
        let (value, end) = f32::from_number(text, at, Conversion::Exact)?;
        out.push(value);
        Some(end)
    });
    assert_eq!(count, Some(out.len()));
    out
}

fn written(values: &[f32]) -> Vec<u8> {
    let mut writer = Writer::new(4);
    writer.single_line_arrays(true);
    writer.begin_array();
    values.iter().for_each(|&value| writer.f32(value));
    writer.end_array();
    writer.finish()
}

/// Runs all of them once a round, and reports each beside the first.
fn take_turns(ways: &mut [(&str, &mut dyn FnMut() -> usize)]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, run), times) in ways.iter_mut().zip(&mut times) {
            let start = Instant::now();
            black_box(run());
            times.push(start.elapsed().as_secs_f64());
        }
    }
    for ((name, _), own) in ways.iter().zip(&times) {
        let least = own.iter().copied().fold(f64::INFINITY, f64::min);
        let mut ratios: Vec<f64> = times[0].iter().zip(own).map(|(first, own)| first / own).collect();
        ratios.sort_by(f64::total_cmp);
        let each = least * 1e9 / SHAPE.iter().product::<usize>() as f64;
        println!("  {name:<26} {:>8.3} ms  {each:>6.1} ns/number  {:>5.2}x", least * 1e3, ratios[ROUNDS / 2]);
    }
}
