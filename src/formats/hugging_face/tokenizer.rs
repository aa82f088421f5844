//! How texts become ids: `tokenizer.json`, or `vocab.txt` with `tokenizer_config.json`. WordPiece only.

use super::config::{Config, Json};
use crate::{
    formats::FormatError,
    graph::{Builder, ValueId},
    ops::text::{TextRules, Tokenize},
    tensor::{Bytes, Tensor},
};
use serde_json::Value;
use std::{collections::HashMap, path::Path};

const TOKENIZER_FILE: &str = "tokenizer.json";
const VOCABULARY_FILE: &str = "vocab.txt";
/// What the tokenizer's class was made with.
const SETTINGS_FILE: &str = "tokenizer_config.json";
/// What sentence-transformers adds: the length at which texts are cut.
const SENTENCES_FILE: &str = "sentence_bert_config.json";

/// Plans are made per shape; rows of a multiple of this many ids keep them few.
const ROW_MULTIPLE: usize = 8;
/// BERT's limit on the length of a word.
const LONGEST_WORD: usize = 100;

/// The operator and its vocabulary.
pub(super) struct Tokenizer {
    op: Tokenize,
    vocabulary: Tensor,
}

impl Tokenizer {
    /// The tokenizer of a folder, `None` where there is none.
    pub(super) fn read(folder: &Path, config: &Config) -> Result<Option<Self>, FormatError> {
        let settings = Json::read_if_there(&folder.join(SETTINGS_FILE))?;
        let sentences = Json::read_if_there(&folder.join(SENTENCES_FILE))?;
        let vocabulary = folder.join(VOCABULARY_FILE);
        let mut tokenizer = match Json::read_if_there(&folder.join(TOKENIZER_FILE))? {
            Some(json) => from_json(&json, config)?,
            None if vocabulary.is_file() => from_vocabulary(&vocabulary, settings.as_ref(), config)?,
            None => return Ok(None),
        };
        let length = |json: &Option<Json>, key: &str| {
            let length = json.as_ref()?.value[key].as_u64()?;
            usize::try_from(length).ok()
        };
        let wanted = length(&sentences, "max_seq_length")
            .or_else(|| length(&settings, "model_max_length"))
            .unwrap_or(tokenizer.op.max_tokens);
        let own = tokenizer.op.before.len() + tokenizer.op.after.len();
        tokenizer.op.max_tokens = wanted.clamp(own.min(config.positions), config.positions);
        Ok(Some(tokenizer))
    }

    /// Ids, mask and types of a vector of texts.
    pub(super) fn tokenize(&self, b: &mut Builder, text: ValueId) -> [ValueId; 3] {
        b.set_scope("tokenizer");
        let vocabulary = b.constant(self.vocabulary.clone());
        let made = b.push_many(self.op.clone(), &[text, vocabulary], 3);
        [made[0], made[1], made[2]]
    }
}

/// Names and ids of a vocabulary.
struct Vocabulary {
    pieces: Vec<Bytes>,
    ids: HashMap<Bytes, i64>,
}

impl Vocabulary {
    /// Every id must have a row in the table of embeddings.
    fn new(pieces: impl Iterator<Item = (Bytes, i64)>, config: &Config) -> Result<Self, String> {
        let ids: HashMap<Bytes, i64> = pieces.collect();
        let mut by_id = Vec::new();
        for (piece, &id) in &ids {
            let place =
                usize::try_from(id).ok().filter(|&place| place < config.vocabulary).ok_or_else(|| {
                    let piece = String::from_utf8_lossy(piece);
                    format!("\"{piece}\" has id {id}, but the model has {} embeddings", config.vocabulary)
                })?;
            if by_id.len() <= place {
                by_id.resize(place + 1, Bytes::new());
            }
            by_id[place] = piece.clone();
        }
        Ok(Self { pieces: by_id, ids })
    }

    fn id(&self, piece: &str) -> Result<i64, String> {
        let id = self.ids.get(piece.as_bytes()).copied();
        id.ok_or_else(|| format!("the vocabulary has no \"{piece}\""))
    }

    fn tensor(&self) -> Tensor {
        // As many strings as the shape says.
        Tensor::from_strings([self.pieces.len()], self.pieces.clone())
            .unwrap_or_else(|_| Tensor::empty(crate::tensor::DType::String))
    }
}

/// Reads `tokenizer.json`, refusing what would give other ids than its own library.
fn from_json(json: &Json, config: &Config) -> Result<Tokenizer, FormatError> {
    let invalid = |reason: String| json.invalid(reason);
    let value = &json.value;
    let model = &value["model"];
    expect_kind(json, "model", model, "WordPiece")?;
    expect_kind(json, "pre_tokenizer", &value["pre_tokenizer"], "BertPreTokenizer")?;
    expect_kind(json, "normalizer", &value["normalizer"], "BertNormalizer")?;
    let entries = model["vocab"].as_object().ok_or_else(|| json.invalid("\"model.vocab\" is no object"))?;
    let added = value["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let mut special = Vec::with_capacity(added.len());
    for token in added {
        let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_i64()) else {
            return Err(json.invalid(format!("the added token {token} has no content or no id")));
        };
        if token["normalized"].as_bool() == Some(true) || token["single_word"].as_bool() == Some(true) {
            return Err(json.unsupported(format!(
                "the added token \"{content}\" is to be normalized or a single word, which is not supported"
            )));
        }
        special.push((content.to_owned(), id));
    }
    let entries = entries.iter().map(|(piece, id)| (Bytes::from(piece.clone()), id.as_i64().unwrap_or(-1)));
    let vocabulary = Vocabulary::new(entries, config).map_err(invalid)?;
    // Ids outside the table of embeddings are refused like those of the vocabulary.
    Vocabulary::new(special.iter().map(|(piece, id)| (Bytes::from(piece.clone()), *id)), config)
        .map_err(invalid)?;
    let normalizer = &value["normalizer"];
    let flag = |key: &str| normalizer[key].as_bool();
    let lowercase = flag("lowercase").unwrap_or(true);
    let (before, after) = around(json)?;
    let padding = value["padding"]["pad_id"].as_i64().or_else(|| vocabulary.id("[PAD]").ok()).unwrap_or(0);
    let cut = value["truncation"]["max_length"].as_u64().and_then(|length| usize::try_from(length).ok());
    let size = |key: &str| model[key].as_u64().and_then(|size| usize::try_from(size).ok());
    let op = Tokenize {
        rules: TextRules {
            clean: flag("clean_text").unwrap_or(true),
            spaced_ideographs: flag("handle_chinese_chars").unwrap_or(true),
            strip_accents: flag("strip_accents").unwrap_or(lowercase),
            lowercase,
        },
        unknown: vocabulary.id(model["unk_token"].as_str().unwrap_or("[UNK]")).map_err(invalid)?,
        continuing: model["continuing_subword_prefix"].as_str().unwrap_or("##").to_owned(),
        longest_word: size("max_input_chars_per_word").unwrap_or(LONGEST_WORD),
        special,
        before,
        after,
        padding,
        max_tokens: cut.unwrap_or(config.positions),
        multiple: ROW_MULTIPLE,
    };
    Ok(Tokenizer { op, vocabulary: vocabulary.tensor() })
}

fn expect_kind(json: &Json, part: &str, value: &Value, wanted: &str) -> Result<(), FormatError> {
    match value["type"].as_str() {
        Some(kind) if kind == wanted => Ok(()),
        other => Err(json.unsupported(format!(
            "the {part} is {}; tokenizers of BERT's kind are supported, whose {part} is \"{wanted}\"",
            other.map_or("missing".to_owned(), |kind| format!("\"{kind}\""))
        ))),
    }
}

/// Ids before and after one text.
fn around(json: &Json) -> Result<(Vec<i64>, Vec<i64>), FormatError> {
    let processor = &json.value["post_processor"];
    let invalid = |what: &str| json.invalid(format!("the post_processor has no {what}"));
    match processor["type"].as_str() {
        None if processor.is_null() => Ok((Vec::new(), Vec::new())),
        Some("BertProcessing") => {
            let id = |key: &str| processor[key][1].as_i64().ok_or_else(|| invalid(key));
            Ok((vec![id("cls")?], vec![id("sep")?]))
        }
        Some("TemplateProcessing") => {
            let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
            for part in processor["single"].as_array().ok_or_else(|| invalid("template"))? {
                if part["Sequence"].is_object() {
                    seen = true;
                    continue;
                }
                let name = part["SpecialToken"]["id"].as_str().ok_or_else(|| invalid("special token"))?;
                let ids = processor["special_tokens"][name]["ids"].as_array();
                let ids: Option<Vec<i64>> = ids.and_then(|ids| ids.iter().map(Value::as_i64).collect());
                let side = if seen { &mut after } else { &mut before };
                side.extend(ids.ok_or_else(|| invalid("ids of a special token"))?);
            }
            Ok((before, after))
        }
        other => Err(json.unsupported(format!(
            "a post_processor of type \"{}\" is not supported; TemplateProcessing and BertProcessing are",
            other.unwrap_or("?")
        ))),
    }
}

/// Reads `vocab.txt`, a piece a line, under the settings of BERT's first tokenizer.
fn from_vocabulary(file: &Path, settings: Option<&Json>, config: &Config) -> Result<Tokenizer, FormatError> {
    let invalid = |reason: String| FormatError::invalid(file, reason);
    let text = std::fs::read(file).map_err(|error| FormatError::io(file, &error))?;
    let text = Bytes::from(text);
    let lines = text.strip_suffix(b"\n").unwrap_or(&text).split(|&byte| byte == b'\n');
    let pieces = lines.enumerate().map(|(id, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (text.slice_ref(line), id as i64)
    });
    let vocabulary = Vocabulary::new(pieces, config).map_err(invalid)?;
    let flag = |key: &str| settings.and_then(|json| json.flag(key));
    let lowercase = flag("do_lower_case").unwrap_or(true);
    // A special token is a text or an object that holds it.
    let special = |key: &str, usual: &'static str| {
        let given = settings.map(|json| &json.value[key]);
        let given = given.and_then(|given| given.as_str().or_else(|| given["content"].as_str()));
        let name = given.unwrap_or(usual);
        Ok::<_, FormatError>((name.to_owned(), vocabulary.id(name).map_err(invalid)?))
    };
    let [unknown, first, last, padding] = [
        special("unk_token", "[UNK]")?,
        special("cls_token", "[CLS]")?,
        special("sep_token", "[SEP]")?,
        special("pad_token", "[PAD]")?,
    ];
    let op = Tokenize {
        rules: TextRules {
            clean: true,
            spaced_ideographs: flag("tokenize_chinese_chars").unwrap_or(true),
            strip_accents: flag("strip_accents").unwrap_or(lowercase),
            lowercase,
        },
        unknown: unknown.1,
        continuing: "##".to_owned(),
        longest_word: LONGEST_WORD,
        before: vec![first.1],
        after: vec![last.1],
        padding: padding.1,
        special: special("mask_token", "[MASK]").into_iter().chain([unknown, first, last, padding]).collect(),
        max_tokens: config.positions,
        multiple: ROW_MULTIPLE,
    };
    Ok(Tokenizer { op, vocabulary: vocabulary.tensor() })
}
