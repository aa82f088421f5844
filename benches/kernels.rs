//! Times the kernels on layer shapes of real networks, for every instruction set of this CPU.
//!
//! `cargo bench --bench kernels -- [--threads N] [--isa NAME] [FILTER]` prints, per case, the median and the least time and,
//! from the least, the rate and its share of the peak that [`Kernels::measure_peak`] finds. Cases and instruction sets are interleaved,
//! so that a noisy neighbour disturbs all alike.

use kinglet::kernels::*;
use std::time::Instant;

/// A case for one instruction set: what to time, and the floating-point operations in it.
struct Case {
    name: String,
    isa: &'static Kernels,
    operations: f64,
    /// Bytes read and written, for what is bound by memory.
    bytes: f64,
    run: Box<dyn FnMut()>,
    times: Vec<f64>,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut threads, mut filter, mut only) = (1, String::new(), None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            "--isa" => only = arguments.next(),
            _ => filter = argument,
        }
    }
    let threads = Threads::new(threads);
    let mut cases = Vec::new();
    for &isa in available().iter().filter(|isa| only.as_deref().is_none_or(|name| name == isa.name)) {
        add_products(&mut cases, isa, &threads, &filter);
        add_convolutions(&mut cases, isa, &threads, &filter);
        add_attention(&mut cases, isa, &threads);
        add_bytes(&mut cases, isa, &threads, &filter);
        add_cells(&mut cases, isa);
        add_memory_bound(&mut cases, isa, &threads);
    }
    cases.retain(|case| case.name.contains(&filter));
    measure(&mut cases);
    report(&mut cases, &threads);
}

/// Runs all cases in turn, 31 times.
fn measure(cases: &mut [Case]) {
    for _ in 0..31 {
        for case in &mut *cases {
            // Once untimed, for in a network the data comes from the layer before and not from main memory.
            (case.run)();
            let start = Instant::now();
            (case.run)();
            case.times.push(start.elapsed().as_secs_f64());
        }
    }
}

#[allow(clippy::print_stdout, reason = "a bench reports on standard output")]
fn report(cases: &mut [Case], threads: &Threads) {
    let peaks: Vec<_> = available().iter().map(|isa| (isa.name, isa.measure_peak())).collect();
    for (name, peak) in &peaks {
        println!("peak {name}: {:.1} GFLOP/s per core", peak * 1e-9);
    }
    println!(
        "{:44} {:9} {:>10} {:>10} {:>9} {:>7} {:>8}",
        "case", "isa", "median us", "least us", "GFLOP/s", "% peak", "GB/s"
    );
    for case in cases {
        case.times.sort_by(f64::total_cmp);
        let (least, median) = (case.times[0], case.times[case.times.len() / 2]);
        let peak = peaks.iter().find(|(name, _)| *name == case.isa.name).map_or(f64::NAN, |&(_, peak)| peak);
        let rate = case.operations / least;
        println!(
            "{:44} {:9} {:10.1} {:10.1} {:9.1} {:7.1} {:8.1}",
            case.name,
            case.isa.name,
            median * 1e6,
            least * 1e6,
            rate * 1e-9,
            rate / peak / threads.count() as f64 * 100.0,
            case.bytes / least * 1e-9
        );
    }
}

fn numbers(length: usize) -> Vec<f32> {
    (0..length).map(|i| (i * 7919 % 1000) as f32 * 0.002 - 1.0).collect()
}

fn add_products(cases: &mut Vec<Case>, isa: &'static Kernels, threads: &Threads, filter: &str) {
    for (m, k, n, what) in [
        (128, 384, 384, "minilm"),
        (128, 384, 1536, "minilm"),
        (128, 1536, 384, "minilm"),
        (197, 192, 768, "vit"),
        (197, 768, 192, "vit"),
        (512, 512, 512, "square"),
        (128, 32, 128, "attention QK"),
        (128, 128, 32, "attention V"),
        (1, 1280, 1000, "dense"),
        (1, 256, 1024, "lstm"),
        (4, 512, 512, "batch 4"),
    ] {
        let name = format!("gemm {m}x{k}x{n} {what}");
        if !name.contains(filter) {
            continue;
        }
        let (a, mut out) = (numbers(m * k), vec![0.0; m * n]);
        let Ok(b) = PackedB::pack(isa, k, n, &numbers(k * n), BLayout::RowMajorKxN, None) else { continue };
        let threads = threads.clone();
        cases.push(Case {
            name,
            isa,
            operations: 2.0 * (m * k * n) as f64,
            bytes: 4.0 * (m * k + k * n + m * n) as f64,
            run: Box::new(move || {
                let result = isa.gemm(&a, k, m, &b, &mut out, n, &Epilogue::default(), &threads);
                assert!(result.is_ok());
            }),
            times: Vec::new(),
        });
    }
}

fn add_convolutions(cases: &mut Vec<Case>, isa: &'static Kernels, threads: &Threads, filter: &str) {
    // Input size, channels in and out, kernel, stride, groups (0: depthwise).
    for (size, from, to, kernel, stride, groups, what) in [
        (112, 32, 16, 1, 1, 1, "mobilenet"),
        (112, 16, 96, 1, 1, 1, "mobilenet"),
        (56, 24, 144, 1, 1, 1, "mobilenet"),
        (56, 144, 24, 1, 1, 1, "mobilenet"),
        (28, 192, 32, 1, 1, 1, "mobilenet"),
        (14, 384, 64, 1, 1, 1, "mobilenet"),
        (14, 96, 576, 1, 1, 1, "mobilenet"),
        (7, 160, 960, 1, 1, 1, "mobilenet"),
        (7, 960, 320, 1, 1, 1, "mobilenet"),
        (7, 320, 1280, 1, 1, 1, "mobilenet"),
        (224, 3, 32, 3, 2, 1, "mobilenet first"),
        (224, 3, 64, 7, 2, 1, "resnet first"),
        (56, 64, 64, 3, 1, 1, "resnet"),
        (28, 128, 128, 3, 1, 1, "resnet"),
        (14, 256, 256, 3, 1, 1, "resnet"),
        (7, 512, 512, 3, 1, 1, "resnet"),
        (56, 64, 256, 1, 1, 1, "resnet"),
        (56, 256, 512, 1, 2, 1, "resnet"),
        (14, 1024, 256, 1, 1, 1, "resnet"),
        (7, 512, 2048, 1, 1, 1, "resnet"),
        (640, 3, 16, 3, 2, 1, "yolo first"),
        (320, 16, 32, 3, 2, 1, "yolo"),
        (80, 32, 32, 3, 1, 1, "yolo"),
        (112, 32, 32, 3, 1, 0, "depthwise mobilenet"),
        (112, 96, 96, 3, 2, 0, "depthwise mobilenet"),
        (56, 144, 144, 3, 1, 0, "depthwise mobilenet"),
        (56, 144, 144, 3, 2, 0, "depthwise mobilenet"),
        (28, 192, 192, 3, 1, 0, "depthwise mobilenet"),
        (14, 384, 384, 3, 1, 0, "depthwise mobilenet"),
        (14, 576, 576, 3, 1, 0, "depthwise mobilenet"),
        (7, 960, 960, 3, 1, 0, "depthwise mobilenet"),
        (28, 240, 240, 5, 1, 0, "depthwise efficientnet"),
        (14, 672, 672, 5, 1, 0, "depthwise efficientnet"),
        (14, 672, 672, 5, 2, 0, "depthwise efficientnet"),
        (7, 1152, 1152, 5, 1, 0, "depthwise efficientnet"),
    ] {
        let name = format!("conv {size}x{size} {from}->{to} {kernel}x{kernel}/{stride} {what}");
        if !name.contains(filter) {
            continue;
        }
        let groups = if groups == 0 { from } else { groups };
        let conv = geometry(size, from, to, kernel, stride, groups);
        let (Ok(inputs), Ok(outputs), Ok(weights)) =
            (conv.in_elements(), conv.out_elements(), conv.weight_elements())
        else {
            continue;
        };
        let Ok(packed) = PackedConv::pack(isa, &conv, &numbers(weights), Some(&numbers(to))) else {
            continue;
        };
        let Ok(plan) = ConvPlan::new(&conv, &packed) else { continue };
        let (x, mut out) = (numbers(inputs), vec![0.0; outputs]);
        let threads = threads.clone();
        cases.push(Case {
            name,
            isa,
            operations: 2.0 * (outputs * kernel * kernel * from / groups) as f64,
            bytes: 4.0 * (inputs + outputs + weights) as f64,
            run: Box::new(move || {
                let epilogue = Epilogue { min: 0.0, max: 6.0, ..Epilogue::default() };
                assert!(isa.conv2d(&plan, &packed, &x, &mut out, &epilogue, &threads).is_ok());
            }),
            times: Vec::new(),
        });
    }
}

fn add_attention(cases: &mut Vec<Case>, isa: &'static Kernels, threads: &Threads) {
    // Heads, sequence, depth of a head.
    for (heads, length, depth, what) in
        [(12, 128, 32, "minilm"), (3, 197, 64, "vit"), (12, 384, 64, "bert"), (8, 400, 32, "yolo")]
    {
        let attention = Attention::rows_first(1, heads, length, length, depth);
        let Ok(scratch) = attention.scratch(isa) else { continue };
        let (x, mut out) = (numbers(heads * length * depth), vec![0.0; heads * length * depth]);
        let (mut scratch, threads) = (vec![0.0; scratch], threads.clone());
        cases.push(Case {
            name: format!("attention {heads}x{length}x{depth} {what}"),
            isa,
            operations: 4.0 * (heads * length * length * depth) as f64,
            bytes: 16.0 * x.len() as f64,
            run: Box::new(move || {
                let done = isa.attention(&attention, &x, &x, &x, None, &mut out, &mut scratch, &threads);
                assert!(done.is_ok());
            }),
            times: Vec::new(),
        });
    }
}

/// Convolutions and products of bytes.
fn add_bytes(cases: &mut Vec<Case>, isa: &'static Kernels, threads: &Threads, filter: &str) {
    for (size, from, to, kernel, stride, groups, what) in [
        (112, 32, 16, 1, 1, 1, "mobilenet"),
        (56, 24, 144, 1, 1, 1, "mobilenet"),
        (14, 96, 576, 1, 1, 1, "mobilenet"),
        (7, 320, 1280, 1, 1, 1, "mobilenet"),
        (224, 3, 32, 3, 2, 1, "mobilenet first"),
        (112, 32, 32, 3, 1, 0, "depthwise mobilenet"),
        (56, 144, 144, 3, 1, 0, "depthwise mobilenet"),
        (14, 384, 384, 3, 1, 0, "depthwise mobilenet"),
        (56, 64, 64, 3, 1, 1, "resnet"),
        (14, 256, 256, 3, 1, 1, "resnet"),
        (7, 512, 512, 3, 1, 1, "resnet"),
        (14, 1024, 256, 1, 1, 1, "resnet"),
        (1, 1280, 1000, 1, 1, 1, "dense"),
    ] {
        let name = format!("int8 {size}x{size} {from}->{to} {kernel}x{kernel}/{stride} {what}");
        if !name.contains(filter) {
            continue;
        }
        let conv = geometry(size, from, to, kernel, stride, if groups == 0 { from } else { groups });
        let (Ok(inputs), Ok(outputs), Ok(weights)) =
            (conv.in_elements(), conv.out_elements(), conv.weight_elements())
        else {
            continue;
        };
        let weights: Vec<i8> = (0..weights).map(|i| (i * 7919 % 255) as i8).collect();
        let (factors, bias) = (vec![0.001; to], vec![100; to]);
        let quantisation = Quantisation { zero: 3, bias: Some(&bias), factors: &factors };
        let Ok(packed) = PackedConvI8::pack(isa, &conv, &weights, &quantisation) else { continue };
        let Ok(plan) = ConvPlanI8::new(&conv, &packed) else { continue };
        let x: Vec<u8> = (0..inputs).map(|i| (i * 7919 % 251) as u8).collect();
        let (mut out, threads) = (vec![0u8; outputs], threads.clone());
        cases.push(Case {
            name,
            isa,
            operations: 2.0 * (outputs * kernel * kernel * from / conv.groups) as f64,
            bytes: (inputs + outputs + weights.len()) as f64,
            run: Box::new(move || {
                let to = OutI8::Bytes { out: &mut out, zero: 3, min: 0, max: 255 };
                assert!(isa.conv2d_i8(&plan, &packed, &x, to, &threads).is_ok());
            }),
            times: Vec::new(),
        });
    }
}

fn add_cells(cases: &mut Vec<Case>, isa: &'static Kernels) {
    for units in [64, 256] {
        let threads = Threads::single();
        let weights: Vec<u8> = numbers(4 * units * units).into_iter().flat_map(f32::to_ne_bytes).collect();
        let Ok(packed) = PackedGates::pack(isa, 4, units, &weights, None, &threads) else { continue };
        let (inputs, hidden, cell) = (numbers(4 * units), numbers(units), numbers(units));
        let (mut next, mut next_cell) = (numbers(units), numbers(units));
        cases.push(Case {
            name: format!("lstm step {units}"),
            isa,
            operations: 8.0 * (units * units) as f64,
            bytes: 4.0 * (4 * units * units) as f64,
            run: Box::new(move || {
                let to = [&mut next[..], &mut next_cell[..]];
                assert!(
                    isa.lstm_step(&packed, &inputs, [&hidden, &cell], to, PanelOrder::Forwards, &threads)
                        .is_ok()
                );
            }),
            times: Vec::new(),
        });
    }
}

/// A square image with the padding of frameworks.
fn geometry(size: usize, from: usize, to: usize, kernel: usize, stride: usize, groups: usize) -> Conv2d {
    Conv2d {
        batch: 1,
        in_height: size,
        in_width: size,
        in_channels: from,
        out_height: size.div_ceil(stride),
        out_width: size.div_ceil(stride),
        out_channels: to,
        kernel_height: kernel,
        kernel_width: kernel,
        stride: [stride, stride],
        dilation: [1, 1],
        pad_top: if stride == 2 { (kernel - 1) / 2 } else { kernel / 2 },
        pad_left: if stride == 2 { (kernel - 1) / 2 } else { kernel / 2 },
        groups,
    }
}

fn add_memory_bound(cases: &mut Vec<Case>, isa: &'static Kernels, threads: &Threads) {
    let length = 128 * 1024;
    let mut add = |name: &str, bytes: usize, run: Box<dyn FnMut()>| {
        cases.push(Case {
            name: name.to_owned(),
            isa,
            operations: 0.0,
            bytes: bytes as f64,
            run,
            times: Vec::new(),
        });
    };
    for op in [
        Unary::Relu,
        Unary::Exp,
        Unary::Log,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Tanh,
        Unary::Gelu,
        Unary::GeluTanh,
    ] {
        let (x, mut out, threads) = (numbers(length), vec![0.0; length], threads.clone());
        add(
            &format!("unary {op:?} 128K"),
            8 * length,
            Box::new(move || assert!(isa.unary(op, &x, &mut out, &threads).is_ok())),
        );
    }
    for (name, a_shape, b_shape) in [
        ("equal", [64, 2048], [64, 2048]),
        ("row", [64, 2048], [1, 2048]),
        ("scalar", [64, 2048], [1, 1]),
        ("rows of 32", [4096, 32], [1, 32]),
    ] {
        let Ok(plan) = BroadcastPlan::new(&a_shape, &b_shape) else { continue };
        let (a, b) = (numbers(a_shape[0] * a_shape[1]), numbers(b_shape[0] * b_shape[1]));
        let (mut out, threads) = (vec![0.0; length], threads.clone());
        add(
            &format!("add {name} 128K"),
            8 * length + 4 * b.len(),
            Box::new(move || assert!(isa.binary(Binary::Add, &plan, &a, &b, &mut out, &threads).is_ok())),
        );
    }
    for (name, shape, axes) in
        [("rows", [128, 1024, 1], [1]), ("columns", [1, 1024, 128], [1]), ("global pool", [1, 49, 1280], [1])]
    {
        let Ok(plan) = ReducePlan::new(&shape, &axes) else { continue };
        let x = numbers(shape.iter().product());
        let (mut out, threads) = (vec![0.0; shape[0] * shape[2]], threads.clone());
        add(
            &format!("mean {name}"),
            4 * x.len(),
            Box::new(move || assert!(isa.reduce(Reduce::Mean, &plan, &x, &mut out, &threads).is_ok())),
        );
    }
    for (rows, columns, inner) in [(1536, 128, 1), (64, 2048, 1), (64, 64, 32)] {
        let axis = Axis { outer: rows, size: columns, inner };
        let (x, threads) = (numbers(rows * columns * inner), threads.clone());
        let mut out = vec![0.0; x.len()];
        add(
            &format!("softmax {rows}x{columns}x{inner}"),
            8 * x.len(),
            Box::new(move || assert!(isa.softmax(axis, &x, &mut out, &threads).is_ok())),
        );
    }
    {
        let (x, scale, threads) = (numbers(128 * 384), numbers(384), threads.clone());
        let mut out = vec![0.0; x.len()];
        add(
            "layer norm 128x384",
            8 * x.len(),
            Box::new(move || {
                let norm = RowNorm { center: true, epsilon: 1e-6, scale: Some(&scale), shift: Some(&scale) };
                assert!(isa.norm_rows(&norm, 384, &x, &mut out, &threads).is_ok());
            }),
        );
    }
    for (name, shape, permutation) in [
        ("NCHW to NHWC", vec![1, 64, 56, 56], vec![0, 2, 3, 1]),
        ("NHWC to NCHW", vec![1, 56, 56, 64], vec![0, 3, 1, 2]),
        ("heads", vec![128, 12, 32], vec![1, 0, 2]),
        ("square", vec![512, 512], vec![1, 0]),
    ] {
        let Ok(plan) = TransposePlan::new(&shape, &permutation) else { continue };
        let (x, threads) = (numbers(shape.iter().product()), threads.clone());
        let mut out = vec![0.0; x.len()];
        add(
            &format!("transpose {name}"),
            8 * x.len(),
            Box::new(move || assert!(transpose(&plan, &x, &mut out, &threads).is_ok())),
        );
    }
    {
        let pool = Pool2d {
            batch: 1,
            in_height: 112,
            in_width: 112,
            channels: 64,
            out_height: 56,
            out_width: 56,
            window: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pad_top: 1,
            pad_left: 1,
            pad_bottom: 1,
            pad_right: 1,
            count_include_pad: false,
        };
        let (x, mut out, threads) = (numbers(112 * 112 * 64), vec![0.0; 56 * 56 * 64], threads.clone());
        add(
            "max pool 112x112x64 3x3/2",
            4 * (x.len() + out.len()),
            Box::new(move || assert!(isa.pool2d(Pool::Max, &pool, &x, &mut out, &threads).is_ok())),
        );
    }
}
