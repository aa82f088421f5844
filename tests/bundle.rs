//! One file that is server and model, as a user makes and runs it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn kinglet(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kinglet")).args(words).output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The answer to a request, once the server has a model.
fn answer(port: u16, request: &str) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let sent = stream.write_all(request.as_bytes());
            let _ = sent.and_then(|()| stream.read_to_string(&mut text));
        }
        if text.contains("200 OK") || Instant::now() > until {
            return text;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_bundle_serves_its_models_and_notices_damage() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, detector) = (path("key"), path("detector"));
    assert!(kinglet(&["key", "new", &key]).status.success());
    let flowers = format!("flowers={}", weights.join("iris/1").display());
    let digits = weights.join("digits").display().to_string();
    let made = kinglet(&["bundle", &flowers, &digits, "-o", &detector, "--sign_key", &key]);
    assert!(made.status.success(), "{}", said(&made));
    let run = |words: &[&str]| Command::new(&detector).args(words).output().unwrap();
    let public = format!("{key}.pub");
    let listed = said(&run(&["bundle", "--list", "--verify_key", &public]));
    assert!(listed.contains("flowers version 1") && listed.contains("digits version 1"), "{listed}");
    assert!(listed.contains("signed with the given key"), "{listed}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = [format!("--http_port={port}"), format!("--verify_key={public}")];
    let server = Command::new(&detector).args(&ports).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = Server(server.unwrap());
    let body = r#"{"instances": [{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]}"#;
    let request = format!(
        "POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answered = answer(port, &request);
    assert!(answered.contains("Iris-setosa") || answered.contains("setosa"), "{answered}");
    drop(server);

    // Another key, a bit that changed, an end that is missing.
    let other = path("other");
    assert!(kinglet(&["key", "new", &other]).status.success());
    let refused = run(&["bundle", "--list", "--verify_key", &format!("{other}.pub")]);
    assert!(!refused.status.success() && said(&refused).contains("signature"), "{}", said(&refused));
    let mut bytes = fs::read(&detector).unwrap();
    let weight = bytes.len() - 20_000;
    bytes[weight] ^= 1;
    let changed = path("changed");
    fs::write(&changed, &bytes).unwrap();
    let refused = kinglet(&["bundle", "--list", &changed, "--verify_key", &public]);
    assert!(!refused.status.success(), "{}", said(&refused));
    let short = path("short");
    fs::copy(&detector, &short).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&short).unwrap();
    file.set_len(bytes.len() as u64 - 1000).unwrap();
    drop(file);
    let refused = Command::new(&short).args(["bundle", "--list"]).output().unwrap();
    assert!(!refused.status.success() && said(&refused).contains("truncated"), "{}", said(&refused));
    let refused = Command::new(&short).args(&ports).output().unwrap();
    assert!(!refused.status.success() && said(&refused).contains("truncated"), "{}", said(&refused));
}

#[test]
fn a_signed_folder_is_served_and_a_changed_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, model) = (path("key"), path("iris"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/iris/1");
    assert!(kinglet(&["key", "new", &key]).status.success());
    let trial = kinglet(&["convert", source, &model, "--dry_run"]);
    assert!(trial.status.success() && !Path::new(&model).exists(), "{}", said(&trial));
    assert!(said(&trial).contains("equal, bit by bit"), "{}", said(&trial));
    let made = kinglet(&["convert", source, &model, "--sign_key", &key]);
    assert!(made.status.success(), "{}", said(&made));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let flags = [
        format!("--http_port={port}"),
        format!("--verify_key={key}.pub"),
        format!("--model_base_path={model}"),
        "--model_name=iris".to_owned(),
        "--max_num_load_retries=0".to_owned(),
    ];
    let serve = || Command::new(env!("CARGO_BIN_EXE_kinglet")).args(&flags).output().unwrap();
    let toml = Path::new(&model).join("1/kinglet.toml");
    fs::write(&toml, "").unwrap();
    let refused = serve();
    assert!(
        !refused.status.success() && said(&refused).contains("kinglet.toml is not the file"),
        "{}",
        said(&refused)
    );
    fs::remove_file(&toml).unwrap();
    let server = Command::new(env!("CARGO_BIN_EXE_kinglet"))
        .args(&flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Server(server.unwrap());
    let status = answer(port, "GET /v1/models/iris HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(status.contains("AVAILABLE"), "{status}");
}
