//! A ModelArts model package: `saved_model.pb` (or `model.onnx`) with a `config.json` that says how it is called.
//!
//! The files that people have are not always as the manual wants them (`applicaton/json`, `procotol`, `item` for `items`), so
//! what does not matter here is not looked at.

use crate::models::Error;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_FILE: u64 = 4 << 20;
const MODELS: [&str; 4] = ["saved_model.pb", "model.onnx", "model.safetensors", "model.json"];

/// What a package says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// The folder with the model.
    pub folder: PathBuf,
    /// `model_algorithm`, a name for people.
    pub algorithm: String,
    /// Paths of `apis`, as in `/predictions/poetry`; `/` is always there.
    pub paths: Vec<String>,
}

impl Package {
    /// Reads a package's `model` folder, or the folder around it.
    ///
    /// # Errors
    /// There is no model that can be served, or config.json is no JSON object.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let has_model = |folder: &Path| MODELS.iter().any(|file| folder.join(file).is_file());
        let inner = folder.join("model");
        let has_config = |folder: &Path| folder.join("config.json").is_file();
        let folder = if !has_model(folder) && !has_config(folder) && inner.is_dir() {
            inner
        } else {
            folder.to_owned()
        };
        let mut package = Self { folder, ..Self::default() };
        let config = package.folder.join("config.json");
        let model_type = if config.is_file() { package.read_config(&config)? } else { String::new() };
        if !has_model(&package.folder) {
            return Err(Error::not_found(format!(
                "{}: {}",
                package.folder.display(),
                what_to_do(&model_type)
            )));
        }
        Ok(package)
    }

    fn read_config(&mut self, path: &Path) -> Result<String, Error> {
        let wrong = |text: String| Error::invalid_argument(format!("{}: {text}", path.display()));
        let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > MAX_FILE {
            return Err(wrong("the file is longer than 4 MB".into()));
        }
        let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        self.parse_config(&text).map_err(wrong)
    }

    /// Takes what matters of a config.json; returns its `model_type`.
    fn parse_config(&mut self, text: &[u8]) -> Result<String, String> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let config: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let config = config.as_object().ok_or("a JSON object is expected")?;
        let word = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.algorithm = word("model_algorithm");
        let apis = match config.get("apis") {
            Some(Value::Array(apis)) => apis.iter().collect(),
            Some(api @ Value::Object(_)) => vec![api],
            _ => Vec::new(),
        };
        for url in apis.iter().filter_map(|api| api.get("url").and_then(Value::as_str)) {
            let url = format!("/{}", url.trim().trim_matches('/'));
            if url != "/" && url.is_ascii() && !self.paths.contains(&url) {
                self.paths.push(url);
            }
        }
        if self.paths.len() > 256 {
            return Err("there are more than 256 apis".to_owned());
        }
        Ok(word("model_type"))
    }
}

fn what_to_do(model_type: &str) -> String {
    let needed = "a saved_model.pb or model.onnx is needed";
    match model_type.to_ascii_lowercase().as_str() {
        "pytorch" => format!("{needed}: export the PyTorch model with torch.onnx.export to model.onnx"),
        "image" => format!("{needed}: a package of type Image holds a container, not a model"),
        "mindspore" => format!(
            "{needed}: export the MindSpore model with mindspore.export(file_format=\"ONNX\") to model.onnx"
        ),
        "" | "tensorflow" => needed.to_owned(),
        other => format!("{needed}: convert the {other} model to model.onnx"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: &str = r#"{"model_algorithm": "image_classification", "model_type": "TensorFlow",
        "apis": [
            {"procotol": "http", "url": "/", "method": "post", "request": {"Content-type": "multipart/form-data",
                "data": {"type": "object", "properties": {"images": {"type": "file"}}}},
             "response": {"Content-type": "applicaton/json", "data": {"type": "array", "item": [{"type": "number"}]}}},
            {"url": "predictions/poetry/", "method": "POST"}],
        "metrics": {"f1": 0.9}, "dependencies": [{"installer": "pip", "packages": []}]}"#;

    #[test]
    fn packages_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), CONFIG).unwrap();
        assert!(Package::read(folder.path()).unwrap_err().message.contains("saved_model.pb"));
        fs::write(model.join("saved_model.pb"), "").unwrap();
        for path in [folder.path(), &model] {
            let package = Package::read(path).unwrap();
            assert_eq!((&package.folder, package.algorithm.as_str()), (&model, "image_classification"));
            assert_eq!(package.paths, ["/predictions/poetry"]);
        }
        fs::write(model.join("config.json"), "[").unwrap();
        assert!(Package::read(&model).unwrap_err().message.contains("config.json"));
    }

    #[test]
    fn other_types_are_told_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        for (model_type, part) in
            [("PyTorch", "torch.onnx.export"), ("Image", "container"), ("XGBoost", "xgboost model")]
        {
            fs::write(folder.path().join("config.json"), format!("{{\"model_type\": \"{model_type}\"}}"))
                .unwrap();
            let error = Package::read(folder.path()).unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0..CONFIG.len(), bytes in prop::collection::vec(any::<u8>(), 0..6)) {
            let mut text = CONFIG.as_bytes().to_vec();
            text.splice(at..(at + bytes.len()).min(CONFIG.len()), bytes);
            let _ = Package::default().parse_config(&text);
        }
    }
}
