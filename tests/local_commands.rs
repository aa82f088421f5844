//! `kinglet run` and `kinglet bench` as a user calls them, on a model of this repository.

use std::process::{Command, Output};

fn kinglet(words: &[&str]) -> Output {
    let iris = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/iris/1");
    let words = words.iter().map(|&word| if word == "IRIS" { iris } else { word });
    Command::new(env!("CARGO_BIN_EXE_kinglet")).args(words).output().expect("the binary starts")
}

#[test]
fn outputs_are_written_as_arrays_that_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("y.npz");
    let run = kinglet(&["run", "IRIS", "--batch=3", "--output", path.to_str().unwrap()]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("probabilities  float [3,3]"), "{text}");
    let arrays = kinglet::formats::npz::read(&path).unwrap();
    assert_eq!(arrays["probabilities"].shape().to_vec(), [3, 3]);
    assert_eq!(arrays["label"].shape().to_vec(), [3]);
    // Outputs are no inputs.
    let run = kinglet(&["run", "IRIS", "--input", path.to_str().unwrap()]);
    let error = String::from_utf8(run.stderr).unwrap();
    assert!(!run.status.success() && error.contains("the model has no input \"label\""), "{error}");
}

#[test]
fn a_bench_answers_in_json() {
    let bench = kinglet(&["bench", "IRIS", "--json", "--profile", "--iterations=3", "--threads=2"]);
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let json: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
    for key in ["median_ms", "p99_ms", "min_ms", "load_ms", "first_run_ms", "peak_rss_bytes"] {
        assert!(json[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {json}");
    }
    let throughput = json["throughput"].as_array().unwrap();
    assert_eq!(throughput.iter().map(|load| load["callers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(throughput.iter().all(|load| load["per_second"].as_f64().unwrap() > 0.0));
    assert!(json["profile"].as_array().unwrap().iter().any(|row| row["gflops"].as_f64().is_some()), "{json}");
}

/// The server that is asked is the binary, too.
#[test]
fn health_is_an_exit_code() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (rest, grpc) = (free().to_string(), free().to_string());
    let mut server = Command::new(env!("CARGO_BIN_EXE_kinglet"))
        .args([&format!("--rest_api_port={rest}"), &format!("--port={grpc}")])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ask = |words: &[&str]| kinglet(&[&["health"], words].concat());
    let ready = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        ask(&["--port", &rest]).status.success()
    });
    let by_grpc = ask(&["--port", &grpc, "--grpc"]);
    let one_port = ask(&[&format!("grpc://127.0.0.1:{rest}")]);
    let missing = ask(&[&format!("http://127.0.0.1:{rest}/v1/models/none")]);
    let unknown = ask(&[&format!("grpc://127.0.0.1:{grpc}/none")]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(ready && by_grpc.status.success() && one_port.status.success());
    assert_eq!((missing.status.code(), unknown.status.code()), (Some(1), Some(1)));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("404"));
    assert_eq!(ask(&["--port", &rest]).status.code(), Some(1));
    assert_eq!(ask(&["--port=x"]).status.code(), Some(2));
}

#[test]
fn files_are_printed() {
    for (words, part) in [
        (&["generate", "kserve"][..], "ClusterServingRuntime"),
        (&["generate", "container"], "FROM scratch"),
        (&["generate", "man"], ".TH KINGLET 1"),
        (&["generate", "completions", "fish"], "complete -c kinglet"),
        (&["doctor"], "instruction set"),
    ] {
        let output = kinglet(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(part), "{words:?}: {text}");
    }
}

#[test]
fn mistakes_are_told() {
    let error = |words: &[&str]| String::from_utf8(kinglet(words).stderr).unwrap();
    assert!(error(&["bench"]).contains("MODEL"));
    assert!(error(&["run", "/does/not/exist"]).contains("/does/not/exist"));
    assert!(error(&["run", "IRIS", "--signature=x"]).contains("\"serving_default\""));
}
