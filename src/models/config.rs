//! Which models to serve: TensorFlow Serving's `ModelServerConfig`, from its text format or from a request to
//! reload, checked with TensorFlow Serving's own words.

use super::{
    Error,
    textproto::{Fields, ParseError, parse},
};
use crate::{maps::Ordered, proto::tensorflow::serving};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Which of the versions on disk are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest so many; at least 1.
    Latest(usize),
    /// All.
    All,
    /// These, as far as they exist.
    Specific(BTreeSet<i64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        VersionPolicy::Latest(1)
    }
}

/// One model to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// Its folder: numbered version folders, or a model itself.
    pub base_path: PathBuf,
    /// Which versions.
    pub policy: VersionPolicy,
    /// Names for versions.
    pub labels: BTreeMap<String, i64>,
}

/// All models to serve, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelsConfig {
    /// The models.
    pub models: BTreeMap<String, ModelConfig>,
}

impl ModelsConfig {
    /// One model, its latest version.
    pub fn single(name: impl Into<String>, base_path: impl Into<PathBuf>) -> Self {
        let model = ModelConfig { name: name.into(), base_path: base_path.into(), ..ModelConfig::default() };
        Self { models: BTreeMap::from([(model.name.clone(), model)]) }
    }

    /// Reads a model config file.
    ///
    /// `INVALID_ARGUMENT` `Invalid protobuf file: 'path'` with the line and what is wrong there.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let text = std::fs::read(path).map_err(|error| {
            Error::not_found(format!("Cannot read the model config file {shown}: {error}"))
        })?;
        let config = from_text(&text).map_err(|error| {
            // Users and tests look for the first sentence in the log.
            log::error!("Error parsing text-format tensorflow.serving.ModelServerConfig: {shown}: {error}");
            Error::invalid_argument(format!("Invalid protobuf file: '{shown}': {error}"))
        })?;
        Self::from_proto(config)
    }

    /// Checks a configuration: unique names, absolute paths, a known platform.
    pub fn from_proto(config: serving::ModelServerConfig) -> Result<Self, Error> {
        use serving::model_server_config::Config;
        let list = match config.config {
            None => return Ok(Self::default()),
            Some(Config::ModelConfigList(list)) => list,
            Some(Config::CustomModelConfig(_)) => {
                return Err(Error::invalid_argument(
                    "Custom model configurations are not supported; list the models in model_config_list",
                ));
            }
        };
        let mut models = BTreeMap::new();
        for config in list.config {
            let model = ModelConfig::from_proto(config)?;
            let name = model.name.clone();
            if models.insert(name.clone(), model).is_some() {
                return Err(Error::invalid_argument(format!(
                    "Illegal to list model {name} multiple times in config list"
                )));
            }
        }
        Ok(Self { models })
    }
}

impl ModelConfig {
    fn from_proto(config: serving::ModelConfig) -> Result<Self, Error> {
        use serving::file_system_storage_path_source_config::servable_version_policy::PolicyChoice;
        let name = config.name;
        check_platform(&name, config.model_type, &config.model_platform)?;
        let base_path = config.base_path.strip_prefix("file://").unwrap_or(&config.base_path);
        if !base_path.starts_with('/') {
            return Err(Error::invalid_argument(format!(
                "Expected model {name} to have an absolute path or URI; got base_path()={}",
                config.base_path
            )));
        }
        let policy = match config.model_version_policy.and_then(|policy| policy.policy_choice) {
            None => VersionPolicy::default(),
            Some(PolicyChoice::Latest(latest)) => VersionPolicy::Latest(latest.num_versions.max(1) as usize),
            Some(PolicyChoice::All(_)) => VersionPolicy::All,
            Some(PolicyChoice::Specific(specific)) => {
                VersionPolicy::Specific(specific.versions.into_iter().into_set())
            }
        };
        Ok(Self { base_path: PathBuf::from(base_path), policy, labels: config.version_labels, name })
    }
}

fn check_platform(name: &str, model_type: i32, platform: &str) -> Result<(), Error> {
    let deprecated_type = model_type != serving::ModelType::Unspecified as i32;
    match (deprecated_type, platform) {
        (true, "") | (false, "tensorflow" | "onnx" | "safetensors") => Ok(()),
        (true, _) => Err(Error::invalid_argument(format!(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and \
             ModelServerConfig::model_platform, model name is {name}"
        ))),
        (false, "") => Err(Error::invalid_argument(format!(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor \
             ModelServerConfig::model_platform, model name is {name}"
        ))),
        (false, other) => {
            Err(Error::invalid_argument(format!("Model {name} requests unsupported platform {other}")))
        }
    }
}

fn from_text(text: &[u8]) -> Result<serving::ModelServerConfig, ParseError> {
    use serving::model_server_config::Config;
    let mut fields = Fields::new(parse(text)?, "tensorflow.serving.ModelServerConfig");
    let list = match fields.message("model_config_list", "tensorflow.serving.ModelConfigList")? {
        None => None,
        Some((mut fields, _)) => {
            let mut list = serving::ModelConfigList::default();
            for (model, _) in fields.messages("config", "tensorflow.serving.ModelConfig")? {
                list.config.push(model_from_text(model)?);
            }
            fields.finish()?;
            Some(list)
        }
    };
    let custom = fields.one("custom_model_config")?;
    fields.finish()?;
    match (list, custom) {
        (Some(_), Some((_, line))) => Err(ParseError {
            line,
            message: "custom_model_config excludes model_config_list: give one of them".to_owned(),
        }),
        (list, None) => Ok(serving::ModelServerConfig { config: list.map(Config::ModelConfigList) }),
        (None, Some(_)) => {
            Ok(serving::ModelServerConfig { config: Some(Config::CustomModelConfig(Default::default())) })
        }
    }
}

fn model_from_text(mut fields: Fields) -> Result<serving::ModelConfig, ParseError> {
    let mut model = serving::ModelConfig {
        name: fields.string("name")?.unwrap_or_default(),
        base_path: fields.string("base_path")?.unwrap_or_default(),
        model_platform: fields.string("model_platform")?.unwrap_or_default(),
        ..Default::default()
    };
    if let Some(word) = fields.word("model_type")? {
        model.model_type = match word.as_str() {
            "MODEL_TYPE_UNSPECIFIED" | "0" => 0,
            "TENSORFLOW" | "1" => 1,
            _ => 2,
        };
    }
    if let Some((policy, line)) = fields.message("model_version_policy", POLICY)? {
        model.model_version_policy = Some(policy_from_text(policy, line)?);
    }
    for (mut entry, _) in
        fields.messages("version_labels", "tensorflow.serving.ModelConfig.VersionLabelsEntry")?
    {
        let key = entry.string("key")?.unwrap_or_default();
        model.version_labels.insert(key, entry.integer("value")?.unwrap_or_default());
        entry.finish()?;
    }
    // Request logging has no counterpart in a config file of kinglet; the flag --record_requests has.
    fields.ignore("logging_config");
    fields.finish()?;
    Ok(model)
}

const POLICY: &str = "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy";

fn policy_from_text(
    mut fields: Fields,
    line: usize,
) -> Result<serving::file_system_storage_path_source_config::ServableVersionPolicy, ParseError> {
    use serving::file_system_storage_path_source_config::servable_version_policy::{
        All, Latest, PolicyChoice, Specific,
    };
    let mut choices = Vec::new();
    if let Some((mut latest, line)) = fields.message("latest", POLICY)? {
        let count = latest.integer("num_versions")?.unwrap_or_default();
        let num_versions = u32::try_from(count)
            .map_err(|_| ParseError { line, message: format!("num_versions cannot be {count}") })?;
        latest.finish()?;
        choices.push(PolicyChoice::Latest(Latest { num_versions }));
    }
    if let Some((all, _)) = fields.message("all", POLICY)? {
        all.finish()?;
        choices.push(PolicyChoice::All(All {}));
    }
    if let Some((mut specific, _)) = fields.message("specific", POLICY)? {
        let versions = specific.integers("versions")?;
        specific.finish()?;
        choices.push(PolicyChoice::Specific(Specific { versions }));
    }
    fields.finish()?;
    if choices.len() > 1 {
        let message = "model_version_policy takes one of latest, all and specific".to_owned();
        return Err(ParseError { line, message });
    }
    Ok(serving::file_system_storage_path_source_config::ServableVersionPolicy {
        policy_choice: choices.pop(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ModelsConfig, Error> {
        ModelsConfig::from_proto(
            from_text(text.as_bytes()).map_err(|e| Error::invalid_argument(e.to_string()))?,
        )
    }

    fn model(body: &str) -> Result<ModelsConfig, Error> {
        read(&format!("model_config_list {{ config {{ {body} }} }}"))
    }

    #[test]
    fn a_full_file_with_legal_oddities() {
        let config = read(
            r#"# two models
            model_config_list: {
              config: {
                name: "a", base_path: '/m/' "a", model_platform: "tensorflow",
                model_version_policy: { specific { versions: 42 versions: [43, 44] } }
                version_labels { key: 'stable' value: 43 }
                version_labels { key: "canary" value: 44 }
                logging_config { sampling_config { sampling_rate: 0.1 } }
              },
              config { name: "b" base_path: "/m/b" model_type: TENSORFLOW model_version_policy { latest {} } }
              config { name: "c" base_path: "file:///m/c" model_platform: "tensorflow" model_version_policy { all {} } }
            }"#,
        )
        .unwrap();
        assert_eq!(
            config.models["a"],
            ModelConfig {
                name: "a".into(),
                base_path: "/m/a".into(),
                policy: VersionPolicy::Specific(BTreeSet::from([42, 43, 44])),
                labels: BTreeMap::from([("stable".into(), 43), ("canary".into(), 44)]),
            }
        );
        assert_eq!(config.models["b"].policy, VersionPolicy::Latest(1));
        assert_eq!(config.models["c"].policy, VersionPolicy::All);
        assert_eq!(config.models["c"].base_path, Path::new("/m/c"));
        assert_eq!(read("").unwrap(), ModelsConfig::default());
    }

    #[test]
    fn the_words_of_tensorflow_serving() {
        let text = |body: &str| model(body).unwrap_err().message.into_owned();
        assert_eq!(
            text(r#"name: "m" base_path: "m" model_platform: "tensorflow""#),
            "Expected model m to have an absolute path or URI; got base_path()=m"
        );
        assert_eq!(
            text(r#"name: "m" base_path: "/m""#),
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor \
             ModelServerConfig::model_platform, model name is m"
        );
        assert_eq!(
            text(r#"name: "m" base_path: "/m" model_platform: "x""#),
            "Model m requests unsupported platform x"
        );
        let twice = r#"config { name: "m" base_path: "/m" model_platform: "tensorflow" }"#.repeat(2);
        assert_eq!(
            read(&format!("model_config_list {{ {twice} }}")).unwrap_err().message,
            "Illegal to list model m multiple times in config list"
        );
    }

    #[test]
    fn a_mistake_in_a_file_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.config");
        std::fs::write(&path, "model_config_list {\n confg { }\n}").unwrap();
        assert_eq!(
            ModelsConfig::from_file(&path).unwrap_err().message,
            format!(
                "Invalid protobuf file: '{}': line 2: Message type \"tensorflow.serving.ModelConfigList\" has no \
                 field named \"confg\".",
                path.display()
            )
        );
    }
}
