use super::*;
use crate::{
    formats::built_in,
    graph::Cpu,
    kernels::{Threads, available},
    models::{
        TensorInfo,
        fakes::{self, Returns},
        postprocess::{Classification, Labels, Postprocess},
    },
    tensor::{DType, Tensor},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn registry() -> Arc<Registry> {
    let registry = Arc::new(Registry::new());
    let backend = Cpu::new(available()[0], Threads::single());
    for model in &built_in::MODELS {
        registry
            .publish(Servable::assemble(model.name, model.version, model.load().unwrap(), &backend).unwrap());
    }
    registry
}

fn surface(config: Config) -> ModelArts {
    ModelArts::new(registry(), config)
}

/// A model that answers the means of its channels.
fn image_surface(output: Option<Postprocess>) -> ModelArts {
    let means = |inputs: &[Tensor]| {
        let pixels = inputs[0].as_slice::<f32>().unwrap();
        let images = inputs[0].shape()[0];
        let per_image = pixels.len() / images;
        let mean = |image: usize, channel: usize| {
            let values: Vec<f32> =
                pixels[image * per_image..][..per_image].iter().skip(channel).step_by(3).copied().collect();
            values.iter().sum::<f32>() / values.len() as f32
        };
        let means: Vec<f32> =
            (0..images).flat_map(|image| (0..3).map(move |channel| mean(image, channel))).collect();
        Ok(vec![Tensor::from_slice([images, 3], &means).unwrap()])
    };
    let mut signature = fakes::signature(
        "predict_images",
        &[("images", "i:0", DType::F32)],
        &[("scores", "s:0", DType::F32)],
        Returns::from_fn(means),
    );
    let shape = Some(vec![None, Some(2), Some(2), Some(3)]);
    signature.inputs = vec![TensorInfo { shape, ..signature.inputs.remove(0) }];
    let mut servable = fakes::servable("colours", 1, [signature]);
    servable.declared.output = output;
    let registry = Arc::new(Registry::new());
    registry.publish(servable);
    ModelArts::new(registry, Config::default())
}

fn call(
    surface: &ModelArts,
    method: &str,
    target: &str,
    content_type: &str,
    body: impl Into<bytes::Bytes>,
) -> (u16, Value) {
    let mut request = Request::new(method, target);
    request.headers.push("Content-Type", content_type);
    request.body = body.into();
    let response = surface.handle(request, &Patience::default());
    let body = response.body.into_bytes();
    (response.status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}")))
}

fn post(surface: &ModelArts, target: &str, body: &str) -> (u16, Value) {
    call(surface, "POST", target, "application/x-www-form-urlencoded", body.to_owned())
}

fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 2, 2);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&colour.repeat(4)).unwrap();
    file
}

fn form(fields: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, content) in fields {
        // The content type that the documented Python sample sends.
        let head = format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\nContent-Type: multipart/form-data\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    ("multipart/form-data; boundary=b".to_owned(), body)
}

const IRIS: &str =
    r#"{"data":{"req_data":[{"sepal_length":3,"sepal_width":1,"petal_length":2.2,"petal_width":4}]}}"#;

#[test]
fn the_documented_table() {
    let surface = surface(Config::default());
    let (status, answer) = post(&surface, "/v1/infers/iris", IRIS);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["meta"], json!({"uuid": ""}));
    let row = &answer["data"]["resp_data"][0];
    assert!(row["label"].is_string() && row["probabilities"].as_array().unwrap().len() == 3, "{answer}");
    // Any id stands for the model that the names fit; numbers may be strings; the form of the request is kept.
    let text = r#"{"meta":{"uuid":"1-2"},"req_data":[{"sepal_length":"3","sepal_width":"1","petal_length":"2.2","petal_width":"4"}]}"#;
    let id = "39ef0dc4-6b54-4f5c-9b2a-35a7d2a1b5d2";
    for target in [
        format!("/v1/infers/{id}"),
        format!("/v1/infers/{id}/"),
        format!("/v1/infers/{id}/{id}"),
        "/".to_owned(),
    ] {
        let (status, plain) = post(&surface, &target, text);
        assert_eq!((status, &plain["resp_data"][0]), (200, row), "{target}");
        assert_eq!((&plain["meta"]["uuid"], &plain["data"]), (&json!("1-2"), &Value::Null));
    }
}

#[test]
fn images_in_every_kind_of_body() {
    let surface = image_surface(None);
    let red = png([200, 10, 20]);
    let expected = json!({"scores": [[200.0, 10.0, 20.0]]});
    for name in ["images", "renamed"] {
        let (content_type, body) = form(&[(name, &red)]);
        assert_eq!(
            call(&surface, "POST", "/v1/infers/x", &content_type, body),
            (200, expected.clone()),
            "{name}"
        );
    }
    assert_eq!(call(&surface, "POST", "/", "image/png", red.clone()), (200, expected.clone()));
    let mut text = Vec::new();
    crate::api::json::base64::encode(&red, &mut text);
    let text = String::from_utf8(text).unwrap();
    for body in
        [format!("{{\"images\":\"{text}\"}}"), format!("{{\"images\":[\"data:image/png;base64,{text}\"]}}")]
    {
        assert_eq!(post(&surface, "/v1/infers/x", &body), (200, expected.clone()));
    }
    let (content_type, body) = form(&[("images", &red), ("images", &png([0, 0, 255]))]);
    let (_, answer) = call(&surface, "POST", "/", &content_type, body);
    assert_eq!(answer, json!({"scores": [[200.0, 10.0, 20.0], [0.0, 0.0, 255.0]]}));
    let numbers = r#"{"images":[[[[1,2,3],[1,2,3]],[["1","2","3"],[1,2,3]]]]}"#;
    assert_eq!(post(&surface, "/", numbers), (200, json!({"scores": [[1.0, 2.0, 3.0]]})));
}

#[test]
fn labels_where_they_are_declared() {
    let labels = Labels(["red", "green", "blue"].map(str::to_owned).into());
    let surface = image_surface(Some(Postprocess::Classification(Classification {
        labels,
        top: 2,
        ..Classification::default()
    })));
    let (content_type, body) = form(&[("images", &png([5, 250, 20]))]);
    let (_, answer) = call(&surface, "POST", "/v1/infers/x", &content_type, body);
    assert_eq!(answer, json!({"predicted_label": "green", "scores": [["green", 250.0], ["blue", 20.0]]}));
}

#[test]
fn errors_are_the_service_s() {
    let config = Config {
        services: vec![("a-1".into(), "iris".into()), ("gone".into(), "none".into())],
        paths: vec!["/greet".into()],
        ..Config::default()
    };
    let surface = surface(config);
    assert_eq!(post(&surface, "/v1/infers/a-1/greet", IRIS).0, 200);
    for (method, target, body, status, code) in [
        ("POST", "/v1/infers", IRIS, 400, "ModelArts.4201"),
        ("POST", "/v1/infers/", IRIS, 400, "ModelArts.4201"),
        ("POST", "/v1/infers/other", IRIS, 404, "APIG.0101"),
        ("GET", "/v1/infers/a-1", IRIS, 405, "APIG.0101"),
        ("POST", "/v1/infers/a-1", "", 400, "ModelArts.4202"),
        ("POST", "/v1/infers/a-1", "{", 400, "ModelArts.4105"),
        ("POST", "/v1/infers/a-1/other", IRIS, 404, "ModelArts.4204"),
        ("POST", "/v1/infers/gone", IRIS, 400, "ModelArts.4203"),
    ] {
        let (found, answer) = call(&surface, method, target, "application/json", body.to_owned());
        assert_eq!(
            (found, &answer["error_code"]),
            (status, &json!(code)),
            "{method} {target} {body}: {answer}"
        );
        assert_eq!(answer["request_id"].as_str().unwrap().len(), 32);
    }
    for body in [
        r#"{"data":{"req_data":[]}}"#,
        r#"{"data":{"req_data":[1]}}"#,
        r#"{"data":{"req_data":[{"sepal_length":1}]}}"#,
        r#"{"data":{"req_data":[{"sepal_length":"x","sepal_width":1,"petal_length":2.2,"petal_width":4}]}}"#,
        r#"{"x":1}"#,
        "[1]",
    ] {
        let (status, answer) = post(&surface, "/v1/infers/a-1", body);
        assert_eq!((status, &answer["erno"]), (400, &json!("MR.0105")), "{body}: {answer}");
    }
}

#[test]
fn matrices_need_an_order() {
    let signature = fakes::signature(
        "serving_default",
        &[("x", "x:0", DType::F32)],
        &[("y", "y:0", DType::F32)],
        Returns::inputs(),
    );
    let mut servable = fakes::servable("m", 1, [signature]);
    let registry = Arc::new(Registry::new());
    let rows = |keys: [&str; 2]| {
        format!(
            "{{\"req_data\":[{{\"{}\":1,\"{}\":2}},{{\"{}\":3,\"{}\":4}}]}}",
            keys[1], keys[0], keys[1], keys[0]
        )
    };
    servable.declared.table.columns = vec!["a".into(), "b".into()];
    servable.declared.table.echo = true;
    servable.declared.table.names.insert("y".into(), "predict_result".into());
    servable.declared.table.labels.insert("y".into(), Labels(["no", "yes"].map(str::to_owned).into()));
    registry.publish(servable);
    let surface = ModelArts::new(registry, Config::default());
    let (_, answer) = post(&surface, "/", &rows(["a", "b"]));
    assert_eq!(answer["resp_data"][0], json!({"b": 1, "a": 2, "predict_result": "no"}));
    assert_eq!(post(&surface, "/", &rows(["a", "c"])).0, 400);
    let signature = fakes::signature(
        "serving_default",
        &[("x", "x:0", DType::F32)],
        &[("y", "y:0", DType::F32)],
        Returns::inputs(),
    );
    let registry = Arc::new(Registry::new());
    registry.publish(fakes::servable("m", 1, [signature]));
    let surface = ModelArts::new(registry, Config::default());
    assert_eq!(
        post(&surface, "/", &rows(["attr_1", "attr_10"])).1,
        json!({"resp_data": [{"y": [2.0, 1.0]}, {"y": [4.0, 3.0]}]})
    );
    assert_eq!(post(&surface, "/", &rows(["a", "b"])).1["erno"], json!("MR.0105"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn hostile_forms_and_images_end_in_an_answer(at in 0usize..400, bytes in prop::collection::vec(any::<u8>(), 0..5), cut in 0usize..400) {
        let surface = image_surface(None);
        let (content_type, mut body) = form(&[("images", &png([1, 2, 3])), ("b", b"1")]);
        let at = at % body.len();
        body.splice(at..(at + bytes.len()).min(body.len()), bytes);
        body.truncate(body.len() - cut % body.len() / 4);
        let (status, _) = call(&surface, "POST", "/", &content_type, body);
        prop_assert!(matches!(status, 200 | 400));
    }

    #[test]
    fn hostile_json_ends_in_an_answer(at in 0..IRIS.len(), text in "[\\[\\]{}\",:0-9a-z\\\\]{0,4}") {
        let mut body = IRIS.as_bytes().to_vec();
        body.splice(at..(at + text.len()).min(IRIS.len()), text.bytes());
        let (status, _) = call(&surface(Config::default()), "POST", "/v1/infers/iris", "application/json", body);
        prop_assert!(matches!(status, 200 | 400));
    }
}
