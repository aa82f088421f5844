//! `kinglet.toml`: what a model folder cannot say itself. How inputs take images, what outputs mean, in which order a
//! table's columns stand, which signature is meant. docs/MODELARTS.md describes every key.
//!
//! The file stands beside the model, in its version folder or, for all versions, in the folder above.

use super::{
    Error, Servable,
    image::{Channels, Fit, ImageInput, Layout, MAX_PIXELS, Resample},
    postprocess::{
        Activation, Anchors, BoxFormat, Classification, Detection, Head, Labels, Nms, Postprocess,
    },
};
use crate::{formats::Files, tensor::Buffer};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The name of the file.
pub const FILE: &str = "kinglet.toml";
const MAX_FILE: usize = 1 << 20;
const MAX_LABELS: usize = 1 << 20;
/// Edge of an input; a typo must not ask for a terabyte.
const MAX_SIZE: usize = 8192;

/// What a kinglet.toml says beyond the inputs, which carry their own part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// The signature that is meant where a request names none.
    pub signature: Option<String>,
    /// What the outputs mean.
    pub output: Option<Postprocess>,
    /// Tables.
    pub table: Table,
}

/// How rows become tensors and back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Keys of a row in the order of the columns of a matrix.
    pub columns: Vec<String>,
    /// Rows of the answer repeat the request's.
    pub echo: bool,
    /// Names of answered columns by output; others keep the output's.
    pub names: BTreeMap<String, String>,
    /// Names of classes by output: the output is a number of a class, or scores of all.
    pub labels: BTreeMap<String, Labels>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    signature: Option<String>,
    #[serde(default)]
    input: BTreeMap<String, RawImage>,
    output: Option<RawOutput>,
    table: Option<RawTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImage {
    preset: Option<String>,
    size: Option<Size>,
    fit: Option<String>,
    crop: Option<f32>,
    pad: Option<u8>,
    resample: Option<String>,
    channels: Option<String>,
    layout: Option<String>,
    scale: Option<f32>,
    mean: Option<Numbers>,
    std: Option<Numbers>,
    dtype: Option<String>,
    max_pixels: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Square(usize),
    Both([usize; 2]),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    One(f32),
    Each(Vec<f32>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLabels {
    File(PathBuf),
    Names(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Each(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    kind: String,
    tensor: Option<String>,
    labels: Option<RawLabels>,
    top: Option<usize>,
    activation: Option<String>,
    head: Option<String>,
    boxes: Option<Names>,
    scores: Option<Names>,
    classes: Option<String>,
    format: Option<String>,
    size: Option<Size>,
    background: Option<bool>,
    objectness: Option<bool>,
    heatmap: Option<String>,
    sizes: Option<String>,
    offset: Option<String>,
    logits: Option<bool>,
    x_first: Option<bool>,
    anchors: Option<RawAnchors>,
    score_threshold: Option<f32>,
    iou_threshold: Option<f32>,
    most: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnchors {
    image: f32,
    sizes: Vec<[f32; 2]>,
    ratios: Vec<Vec<f32>>,
    steps: Vec<f32>,
    variances: Option<[f32; 4]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    echo: bool,
    #[serde(default)]
    names: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, RawLabels>,
}

/// Applies the kinglet.toml of a version, or of the folder above, to its servable; without one, nothing happens.
///
/// # Errors
/// The file cannot be read, has a mistake, or names what the model does not have.
pub fn apply(servable: &mut Servable, version: &Files) -> Result<(), Error> {
    let Some((files, path, text)) = find(version)? else { return Ok(()) };
    let wrong = |text: String| Error::invalid_argument(format!("{}: {text}", path.display()));
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
    file.apply(servable, &files).map_err(wrong)
}

/// A kinglet.toml that can stand beside a copy of the model, and the files that it names by their new names: they
/// stand beside it, too. `None` where there is none.
///
/// # Errors
/// As [`apply`]; also where the text writes a path in a way that cannot be replaced.
pub fn portable(version: &Files) -> Result<Option<(String, BTreeMap<String, Buffer>)>, Error> {
    let Some((files, path, mut text)) = find(version)? else { return Ok(None) };
    let wrong = |text: String| Error::invalid_argument(format!("{}: {text}", path.display()));
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
    let of_output = file.output.iter().filter_map(|output| output.labels.as_ref());
    let of_table = file.table.iter().flat_map(|table| table.labels.values());
    let mut copied = BTreeMap::new();
    let mut sources: BTreeMap<&Path, String> = BTreeMap::new();
    for labels in of_output.chain(of_table) {
        let RawLabels::File(source) = labels else { continue };
        if sources.contains_key(source.as_path()) {
            continue;
        }
        let content = files.read(source);
        let content = content.map_err(|error| wrong(format!("labels: {}: {error}", source.display())))?;
        let name = source.file_name().and_then(|name| name.to_str()).unwrap_or("labels.txt");
        let numbered = (1..).map(|number| format!("{number}-{name}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let name = names.find(|name| !copied.contains_key(name) && name != FILE).unwrap_or_default();
        copied.insert(name.clone(), content);
        sources.insert(source, name);
    }
    for (source, name) in sources {
        let (old, new) = (source.display().to_string(), format!("{name:?}"));
        if old == name {
            continue;
        }
        let quoted = [format!("\"{old}\""), format!("'{old}'")];
        let Some(quoted) = quoted.iter().find(|quoted| text.contains(quoted.as_str())) else {
            return Err(wrong(format!(
                "labels = {old:?} is a path that leaves the folder, written in a way that cannot be replaced"
            )));
        };
        text = text.replace(quoted.as_str(), &new);
    }
    Ok(Some((text, copied)))
}

/// The kinglet.toml of a version, where it is, and the files beside it.
fn find(version: &Files) -> Result<Option<(Files, PathBuf, String)>, Error> {
    for files in std::iter::once(version.clone()).chain(version.above()) {
        let path = files.place(Path::new(FILE));
        let wrong = |error: std::io::Error| Error::invalid_argument(format!("{}: {error}", path.display()));
        if let Some(text) = files.find(Path::new(FILE)).map_err(wrong)? {
            let text = text_of(&text).map_err(wrong)?;
            return Ok(Some((files, path, text)));
        }
    }
    Ok(None)
}

fn text_of(content: &Buffer) -> std::io::Result<String> {
    if content.len() > MAX_FILE {
        return Err(std::io::Error::other("the file is longer than a megabyte"));
    }
    String::from_utf8(content.as_bytes().to_vec()).map_err(std::io::Error::other)
}

impl File {
    fn apply(self, servable: &mut Servable, files: &Files) -> Result<(), String> {
        if let Some(name) = &self.signature
            && servable.signature(name).is_none()
        {
            return Err(format!("signature = {name:?}: the model has {:?}", servable.signatures.keys()));
        }
        for (name, raw) in self.input {
            let place = format!("[input.{name}]");
            let image = Arc::new(raw.image().map_err(|error| format!("{place}: {error}"))?);
            let infos = servable.signatures.values_mut().flat_map(|signature| &mut signature.inputs);
            let mut found = false;
            for info in infos.filter(|info| info.name == name) {
                let dtype = info.dtype.map(|dtype| dtype.name());
                if let (Some(wanted), Some(own)) = (&raw_dtype(&raw.dtype), dtype)
                    && wanted != own
                {
                    return Err(format!("{place}: dtype = {wanted:?}, but the input is of {own}"));
                }
                info.image = Some(image.clone());
                found = true;
            }
            if !found {
                return Err(format!("{place}: no signature of the model has this input"));
            }
        }
        let output = self.output.map(|output| output.postprocess(files)).transpose();
        let output = output.map_err(|error| format!("[output]: {error}"))?;
        if let Some(output) = &output {
            let read: Vec<&str> = match output {
                Postprocess::Classification(how) => how.tensor.as_deref().into_iter().collect(),
                Postprocess::Detection(how) => how.head.outputs(),
            };
            let has = |name: &str| {
                servable
                    .signatures
                    .values()
                    .any(|signature| signature.outputs.iter().any(|info| info.name == name))
            };
            if let Some(missing) = read.into_iter().find(|name| !has(name)) {
                return Err(format!("[output]: no signature of the model has an output {missing:?}"));
            }
        }
        let table = self.table.map(|table| table.table(files)).transpose();
        servable.declared = Declared {
            signature: self.signature,
            output,
            table: table.map_err(|error| format!("[table]: {error}"))?.unwrap_or_default(),
        };
        Ok(())
    }
}

/// NumPy's names beside TensorFlow's.
fn raw_dtype(name: &Option<String>) -> Option<String> {
    name.as_deref().map(|name| match name {
        "float32" => "float".to_owned(),
        "float64" => "double".to_owned(),
        "float16" => "half".to_owned(),
        other => other.to_owned(),
    })
}

impl Size {
    fn get(&self) -> Result<(usize, usize), String> {
        let (height, width) = match *self {
            Size::Square(edge) => (edge, edge),
            Size::Both([height, width]) => (height, width),
        };
        match (1..=MAX_SIZE).contains(&height) && (1..=MAX_SIZE).contains(&width) {
            true => Ok((height, width)),
            false => Err(format!("size = [height, width] is from 1 to {MAX_SIZE}")),
        }
    }
}

impl Numbers {
    fn list(self) -> Result<Vec<f32>, String> {
        match self {
            Numbers::One(number) => Ok(vec![number]),
            Numbers::Each(numbers) if matches!(numbers.len(), 1 | 3) => Ok(numbers),
            Numbers::Each(numbers) => {
                Err(format!("mean and std are one number or one per channel, not {}", numbers.len()))
            }
        }
    }
}

/// The value of `word` in a table of words.
fn one_of<T: Copy>(key: &str, word: &str, table: &[(&str, T)]) -> Result<T, String> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        format!("{key} = {word:?}: one of {} is expected", names.join(", "))
    })
}

impl RawImage {
    fn image(&self) -> Result<ImageInput, String> {
        let mut image = match &self.preset {
            None => ImageInput::default(),
            Some(name) => ImageInput::preset(name).ok_or_else(|| {
                format!(
                    "preset = {name:?}: one of imagenet, tf, caffe, yolo, ssd, fastestdet, raw is expected"
                )
            })?,
        };
        image.size = self.size.as_ref().map(Size::get).transpose()?;
        let (crop, pad) = (self.crop.unwrap_or(0.875), self.pad.unwrap_or(114));
        if !(0.05..=1.0).contains(&crop) {
            return Err("crop is from 0.05 to 1".to_owned());
        }
        match (&self.fit, image.fit) {
            (Some(word), _) => {
                let table =
                    [("warp", Fit::Warp), ("crop", Fit::Crop(crop)), ("letterbox", Fit::Letterbox(pad))];
                image.fit = one_of("fit", word, &table)?;
            }
            (None, Fit::Crop(_)) if self.crop.is_some() => image.fit = Fit::Crop(crop),
            (None, Fit::Letterbox(_)) if self.pad.is_some() => image.fit = Fit::Letterbox(pad),
            _ => {}
        }
        if let Some(word) = &self.resample {
            let table = [
                ("nearest", Resample::Nearest),
                ("bilinear", Resample::Bilinear),
                ("antialias", Resample::Antialias),
                ("bicubic", Resample::Bicubic),
                ("area", Resample::Area),
            ];
            image.resample = one_of("resample", word, &table)?;
        }
        if let Some(word) = &self.channels {
            let table = [
                ("rgb", Channels::Rgb),
                ("bgr", Channels::Bgr),
                ("gray", Channels::Grey),
                ("grey", Channels::Grey),
            ];
            image.channels = Some(one_of("channels", word, &table)?);
        }
        if let Some(word) = &self.layout {
            let table = [("nhwc", Layout::ChannelsLast), ("nchw", Layout::ChannelsFirst)];
            image.layout = Some(one_of("layout", word, &table)?);
        }
        image.scale = self.scale.unwrap_or(image.scale);
        let numbers = |numbers: &Option<Numbers>, preset: Vec<f32>| match numbers {
            Some(Numbers::One(number)) => Numbers::One(*number).list(),
            Some(Numbers::Each(each)) => Numbers::Each(each.clone()).list(),
            None => Ok(preset),
        };
        image.mean = numbers(&self.mean, std::mem::take(&mut image.mean))?;
        image.std = numbers(&self.std, std::mem::take(&mut image.std))?;
        if image.std.contains(&0.0) {
            return Err("std divides: it cannot be 0".to_owned());
        }
        image.max_pixels = self.max_pixels.unwrap_or(MAX_PIXELS).clamp(1, 1 << 28);
        Ok(image)
    }
}

impl RawLabels {
    fn read(self, files: &Files) -> Result<Labels, String> {
        let names: Vec<String> = match self {
            RawLabels::Names(names) => names,
            RawLabels::File(path) => {
                let text = files.read(&path).and_then(|content| text_of(&content));
                let text =
                    text.map_err(|error| format!("labels: {}: {error}", files.place(&path).display()))?;
                text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
            }
        };
        match names.len() <= MAX_LABELS {
            true => Ok(Labels(names.into())),
            false => Err("labels: there are more than a million".to_owned()),
        }
    }
}

impl RawTable {
    fn table(self, files: &Files) -> Result<Table, String> {
        let labels = self.labels.into_iter().map(|(name, labels)| Ok((name, labels.read(files)?)));
        Ok(Table {
            columns: self.columns,
            echo: self.echo,
            names: self.names,
            labels: labels.collect::<Result<_, String>>()?,
        })
    }
}

impl RawOutput {
    fn postprocess(self, files: &Files) -> Result<Postprocess, String> {
        match self.kind.as_str() {
            "classification" => {
                let table = [
                    ("none", Activation::None),
                    ("softmax", Activation::Softmax),
                    ("sigmoid", Activation::Sigmoid),
                ];
                let activation = one_of("activation", self.activation.as_deref().unwrap_or("none"), &table)?;
                let labels = self.labels.map(|labels| labels.read(files)).transpose()?.unwrap_or_default();
                let top = self.top.unwrap_or(5).clamp(1, 1000);
                Ok(Postprocess::Classification(Classification {
                    tensor: self.tensor,
                    labels,
                    top,
                    activation,
                }))
            }
            "detection" => self.detection(files).map(Postprocess::Detection),
            other => Err(format!("kind = {other:?}: classification or detection is expected")),
        }
    }

    fn detection(mut self, files: &Files) -> Result<Detection, String> {
        let labels = self.labels.take().map(|labels| labels.read(files)).transpose()?.unwrap_or_default();
        let default = Nms::default();
        let nms = Nms {
            score_threshold: self.score_threshold.unwrap_or(default.score_threshold),
            iou_threshold: self.iou_threshold.unwrap_or(default.iou_threshold),
            most: self.most.unwrap_or(default.most).clamp(1, 1000),
        };
        Ok(Detection { head: self.head()?, labels, nms })
    }

    fn head(self) -> Result<Head, String> {
        let size = self.size.as_ref().map(Size::get).transpose()?;
        let extent = size.map(|(height, width)| (height as f32, width as f32));
        let one = |key: &str, names: Option<Names>, default: &str| match names {
            None => Ok(default.to_owned()),
            Some(Names::One(name)) => Ok(name),
            Some(Names::Each(_)) => Err(format!("{key} is the name of one output")),
        };
        let each = |key: &str, names: Option<Names>| match names {
            Some(Names::Each(names)) => Ok(names),
            Some(Names::One(name)) => Ok(vec![name]),
            None => Err(format!("{key} = [..] names an output per feature map")),
        };
        let head = self
            .head
            .as_deref()
            .ok_or("head = one of decoded, yolo, fastestdet, centernet, ssd is missing")?;
        Ok(match head {
            "decoded" => {
                let table =
                    [("yxyx", BoxFormat::Yxyx), ("xyxy", BoxFormat::Xyxy), ("cxcywh", BoxFormat::Cxcywh)];
                // Without a word on it, these are the outputs of TensorFlow's object detection models.
                let ours = self.boxes.is_none();
                Head::Decoded {
                    boxes: one("boxes", self.boxes, "detection_boxes")?,
                    scores: one("scores", self.scores, "detection_scores")?,
                    classes: self.classes.or_else(|| ours.then(|| "detection_classes".to_owned())),
                    format: one_of("format", self.format.as_deref().unwrap_or("yxyx"), &table)?,
                    extent: extent.unwrap_or((1.0, 1.0)),
                    background: self.background.unwrap_or(ours),
                }
            }
            "yolo" => Head::Yolo {
                tensor: self.tensor,
                extent: extent.ok_or("size = [height, width] of the input is needed")?,
                objectness: self.objectness,
            },
            "fastestdet" => Head::FastestDet { tensor: self.tensor },
            "centernet" => Head::CenterNet {
                heatmap: self.heatmap.ok_or("heatmap = the name of an output is missing")?,
                size: self.sizes.ok_or("sizes = the name of an output is missing")?,
                offset: self.offset,
                logits: self.logits.unwrap_or(false),
            },
            "ssd" => {
                let (scores, boxes) = (each("scores", self.scores)?, each("boxes", self.boxes)?);
                let anchors = self.anchors.map_or_else(Anchors::default, |raw| Anchors {
                    image: raw.image,
                    sizes: raw.sizes,
                    ratios: raw.ratios,
                    steps: raw.steps,
                    variances: raw.variances.unwrap_or([0.1, 0.1, 0.2, 0.2]),
                });
                let maps = [
                    scores.len(),
                    boxes.len(),
                    anchors.sizes.len(),
                    anchors.ratios.len(),
                    anchors.steps.len(),
                ];
                if maps.iter().any(|count| *count != maps[0]) {
                    return Err(format!(
                        "scores, boxes and the anchors' sizes, ratios and steps have one entry per feature map, not {maps:?}"
                    ));
                }
                Head::Ssd { scores, boxes, anchors, x_first: self.x_first.unwrap_or(true) }
            }
            other => {
                return Err(format!(
                    "head = {other:?}: one of decoded, yolo, fastestdet, centernet, ssd is expected"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        models::fakes::{self, Returns},
        tensor::DType,
    };
    use std::fs;

    fn with(text: &str) -> Result<Servable, String> {
        let signature = fakes::signature(
            "predict_images",
            &[("images", "i:0", DType::F32)],
            &[("scores", "s:0", DType::F32)],
            Returns::inputs(),
        );
        let mut servable = fakes::servable("m", 1, [signature]);
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("7");
        fs::create_dir(&version).unwrap();
        fs::write(folder.path().join(FILE), text).unwrap();
        fs::write(folder.path().join("labels.txt"), "cat\n\n dog \n").unwrap();
        apply(&mut servable, &Files::of_folder(version)).map_err(|error| error.message.into_owned())?;
        Ok(servable)
    }

    #[test]
    fn a_classifier() {
        let servable = with(
            "signature = 'predict_images'\n[input.images]\npreset = 'imagenet'\nsize = 160\nmean = 0.5\nlayout = 'nchw'\n\
             dtype = 'float32'\n[output]\nkind = 'classification'\nlabels = 'labels.txt'\ntop = 3\nactivation = 'softmax'\n\
             [table]\ncolumns = ['a', 'b']\necho = true\nlabels = { scores = ['x'] }\n",
        )
        .unwrap();
        let image = servable.signatures["predict_images"].inputs[0].image.clone().unwrap();
        assert_eq!((image.size, image.fit, &*image.mean), (Some((160, 160)), Fit::Crop(0.875), &[0.5][..]));
        assert_eq!(image.std, [0.229, 0.224, 0.225]);
        let Some(Postprocess::Classification(how)) = &servable.declared.output else { panic!() };
        assert_eq!((how.top, how.labels.name(1, 2)), (3, "dog".to_owned()));
        assert_eq!(servable.declared.table.columns, ["a", "b"]);
    }

    #[test]
    fn detectors() {
        for head in [
            "head = 'fastestdet'",
            "head = 'yolo'\nsize = [640, 640]\nscore_threshold = 0.5",
            "head = 'centernet'\nheatmap = 'scores'\nsizes = 'scores'",
            "head = 'decoded'\nboxes = 'scores'\nscores = 'scores'\nformat = 'xyxy'",
            "head = 'ssd'\nscores = ['scores']\nboxes = ['scores']\n[output.anchors]\nimage = 9.0\nsizes = [[1, 2]]\nratios = [[2]]\nsteps = [1]",
        ] {
            let servable = with(&format!("[output]\nkind = 'detection'\n{head}\n"))
                .unwrap_or_else(|error| panic!("{error}"));
            assert!(matches!(servable.declared.output, Some(Postprocess::Detection(_))), "{head}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("x = 1", "unknown field"),
            ("signature = 'other'", "predict_images"),
            ("[input.image]", "no signature of the model has this input"),
            ("[input.images]\npreset = 'vgg'", "imagenet"),
            ("[input.images]\nfit = 'squash'", "warp, crop, letterbox"),
            ("[input.images]\nsize = 0", "size = [height, width]"),
            ("[input.images]\nmean = [1, 2]", "one per channel"),
            ("[input.images]\nstd = 0", "cannot be 0"),
            ("[input.images]\ndtype = 'uint8'", "float"),
            ("[output]\nkind = 'poem'", "classification or detection"),
            ("[output]\nkind = 'detection'", "head ="),
            ("[output]\nkind = 'detection'\nhead = 'yolo'", "size ="),
            ("[output]\nkind = 'detection'\nhead = 'decoded'", "detection_boxes"),
            (
                "[output]\nkind = 'detection'\nhead = 'ssd'\nscores = ['scores']\nboxes = ['scores']",
                "one entry per feature map",
            ),
            ("[output]\nkind = 'classification'\nlabels = 'no.txt'", "no.txt"),
        ] {
            let error = with(text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(error.contains(part) && error.contains(FILE), "{text}: {error}");
        }
        assert!(with("").is_ok());
    }

    #[test]
    fn a_copy_takes_the_files_that_it_names_along() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("labels.txt", "a\nb"), ("m/labels.txt", "c"), ("m/1/x", "")] {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        }
        let text = "[output]\nkind = 'classification'\nlabels = 'labels.txt'\n\
                    [table.labels]\ny = \"../labels.txt\"\nz = ['w']\n";
        fs::write(folder.path().join("m").join(FILE), text).unwrap();
        let version = Files::of_folder(folder.path().join("m/1"));
        let (copy, files) = portable(&version).unwrap().unwrap();
        assert_eq!(copy, text.replace("\"../labels.txt\"", "\"1-labels.txt\""));
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, file)| (name.as_str(), file.as_bytes())).collect();
        assert_eq!(files, [("1-labels.txt", &b"a\nb"[..]), ("labels.txt", b"c")]);
        assert!(portable(&Files::of_folder(folder.path())).unwrap().is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[(input|output|table)(\\.images)?\\]\n|[a-z_]{1,8} = ('[a-z]{0,6}'|[0-9.\\[\\], -]{0,12})\n){0,6}") {
            let _ = with(&text);
        }
    }
}
