//! Texts to token ids as BERT makes them: normalise, split into words, match the longest pieces of the vocabulary.
//!
//! Follows the published WordPiece algorithm (google-research/bert, `tokenization.py`) with the rules that
//! Hugging Face's `tokenizers` fixed for it; `tests/tokenizer.rs` compares with ids recorded from that library.

mod characters;
mod pieces;

pub use characters::TextRules;

use super::{Bytes, DType, Fact, Inferred, Lower, OpError, Operator, Step, Tensor, expect_inputs};
use crate::ops::bounded;
use pieces::Pieces;
use serde::{Deserialize, Serialize};

/// Ids of input 0, strings `[texts]`, by the vocabulary in input 1, strings `[pieces]`, where a piece's position is
/// its id. Three outputs, `I64` `[texts, tokens]`: ids, mask (1 for a token, 0 for padding), types (all 0). Rows end
/// after `max_tokens`; all are as long as the longest of them, rounded up to `multiple`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokenize {
    /// What becomes of characters before words are looked for.
    pub rules: TextRules,
    /// The id of words that the vocabulary cannot spell.
    pub unknown: i64,
    /// What a piece that continues a word starts with, as in `##ing`.
    pub continuing: String,
    /// Words of more characters are unknown.
    pub longest_word: usize,
    /// Texts that are one token wherever they stand, and their ids.
    pub special: Vec<(String, i64)>,
    /// Ids before a text.
    pub before: Vec<i64>,
    /// Ids after a text, also after one that is cut.
    pub after: Vec<i64>,
    /// The id that rows are filled up with.
    pub padding: i64,
    /// Most ids of a row, those before and after included.
    pub max_tokens: usize,
    /// Rows are filled up to a multiple of this, so that texts of similar length share a plan.
    pub multiple: usize,
}

impl Operator for Tokenize {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        super::expect_strings(inputs)?;
        match inputs.iter().find(|fact| fact.rank() != 1) {
            Some(other) => {
                Err(OpError::invalid(format!("expected a vector of texts, got shape {}", other.shape)))
            }
            None => Ok(Inferred::AtRun),
        }
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let op = self.clone();
        // Once where the vocabulary is known, which it is in every model; else for each run.
        let known = match cx.value(1) {
            Some(vocabulary) => {
                Some(cx.packed("vocabulary", &[1], || Pieces::new(vocabulary.as_strings()?, self))?)
            }
            None => None,
        };
        Ok(Step::tensors(move |inputs, _| {
            let [texts, vocabulary] = inputs else { return Err(OpError::Memory("texts")) };
            let texts = texts.as_strings()?;
            match &known {
                Some(pieces) => op.batch(pieces, texts),
                None => op.batch(&Pieces::new(vocabulary.as_strings()?, &op)?, texts),
            }
        }))
    }
}

impl Tokenize {
    fn batch(&self, pieces: &Pieces, texts: &[Bytes]) -> Result<Vec<Tensor>, OpError> {
        let rows: Vec<Vec<i64>> = texts.iter().map(|text| self.row(pieces, text)).collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = longest.next_multiple_of(self.multiple.max(1)).min(self.max_tokens.max(longest));
        let elements = bounded(rows.len().checked_mul(width))?;
        let (mut ids, mut mask) = (Vec::with_capacity(elements), Vec::with_capacity(elements));
        for row in &rows {
            ids.extend_from_slice(row);
            mask.resize(ids.len(), 1i64);
            ids.resize(ids.len() + width - row.len(), self.padding);
            mask.resize(ids.len(), 0);
        }
        let shape = [rows.len(), width];
        Ok(vec![
            Tensor::from_slice(shape, &ids)?,
            Tensor::from_slice(shape, &mask)?,
            Tensor::zeros(DType::I64, shape)?,
        ])
    }

    /// The ids of one text.
    fn row(&self, pieces: &Pieces, text: &[u8]) -> Vec<i64> {
        let text = String::from_utf8_lossy(text);
        let room = self.max_tokens.saturating_sub(self.before.len() + self.after.len());
        let mut ids = self.before.clone();
        let end = ids.len() + room;
        let mut plain = 0;
        let mut at = 0;
        while at < text.len() && ids.len() < end {
            match self.special_at(&text[at..]) {
                Some((len, id)) => {
                    self.words(pieces, &text[plain..at], end, &mut ids);
                    ids.push(id);
                    at += len;
                    plain = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if ids.len() < end {
            self.words(pieces, &text[plain..], end, &mut ids);
        }
        ids.truncate(end);
        ids.extend_from_slice(&self.after);
        ids
    }

    /// Length and id of the longest special token at the start of `text`.
    fn special_at(&self, text: &str) -> Option<(usize, i64)> {
        let here =
            self.special.iter().filter(|(token, _)| !token.is_empty() && text.starts_with(token.as_str()));
        here.max_by_key(|(token, _)| token.len()).map(|(token, id)| (token.len(), *id))
    }

    /// Appends the ids of a text without special tokens; stops behind `end`, for what follows would be cut.
    fn words(&self, pieces: &Pieces, text: &str, end: usize, ids: &mut Vec<i64>) {
        let mut word = String::new();
        let mut characters = 0;
        let finish = |word: &mut String, characters: &mut usize, ids: &mut Vec<i64>| {
            let spelt = *characters <= self.longest_word && pieces.spell(word, ids);
            if *characters > 0 && !spelt {
                ids.push(self.unknown);
            }
            word.clear();
            *characters = 0;
        };
        for c in self.rules.apply(text) {
            if ids.len() >= end {
                return;
            }
            if c.is_whitespace() {
                finish(&mut word, &mut characters, ids);
            } else if characters::is_punctuation(c) {
                finish(&mut word, &mut characters, ids);
                word.push(c);
                characters = 1;
                finish(&mut word, &mut characters, ids);
            } else {
                characters += 1;
                // What is too long already need not be kept.
                if characters <= self.longest_word {
                    word.push(c);
                }
            }
        }
        finish(&mut word, &mut characters, ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op_outputs;

    fn op() -> Tokenize {
        Tokenize {
            rules: TextRules { clean: true, spaced_ideographs: true, strip_accents: true, lowercase: true },
            unknown: 1,
            continuing: "##".into(),
            longest_word: 9,
            special: vec![("[SEP]".into(), 3), ("[SEP]!".into(), 4)],
            before: vec![2],
            after: vec![3],
            padding: 0,
            max_tokens: 6,
            multiple: 1,
        }
    }

    const VOCABULARY: [&str; 11] =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[SEP]!", "un", "##aff", "##able", "a", "!", "\u{4e2d}"];

    fn ids(op: Tokenize, texts: &[&'static str]) -> Vec<Tensor> {
        run_op_outputs(op, &[super::super::tests::texts(texts), super::super::tests::texts(&VOCABULARY)], 3)
            .unwrap()
    }

    #[test]
    fn the_papers_example() {
        // "unaffable" is the example of tokenization.py.
        let y = ids(op(), &["UNaffable", "\u{e1} unaffablex", "a\u{4e2d}[SEP]!", ""]);
        assert_eq!(
            y[0].as_slice::<i64>().unwrap(),
            [2, 5, 6, 7, 3, 2, 8, 1, 3, 0, 2, 8, 10, 4, 3, 2, 3, 0, 0, 0],
        );
        assert_eq!(y[0].shape()[..], [4, 5]);
        assert_eq!(y[1].as_slice::<i64>().unwrap()[15..], [1, 1, 0, 0, 0]);
        assert_eq!(y[2].as_slice::<i64>().unwrap(), [0; 20]);
    }

    #[test]
    fn long_texts_are_cut_and_rows_filled_up() {
        let y = ids(op(), &["a a a a a a a a a"]);
        assert_eq!(y[0].as_slice::<i64>().unwrap(), [2, 8, 8, 8, 8, 3]);
        let y = ids(op(), &["unaffable unaffable"]);
        assert_eq!(y[0].as_slice::<i64>().unwrap(), [2, 5, 6, 7, 5, 3]);
        let y = ids(Tokenize { multiple: 4, ..op() }, &["a"]);
        assert_eq!(y[0].as_slice::<i64>().unwrap(), [2, 8, 3, 0]);
        let y = ids(Tokenize { multiple: 4, ..op() }, &["a a a"]);
        assert_eq!(y[0].shape()[..], [1, 6], "never beyond what the model takes");
        assert_eq!(ids(Tokenize { max_tokens: 0, ..op() }, &["a"])[0].as_slice::<i64>().unwrap(), [2, 3]);
        assert_eq!(ids(op(), &[])[0].shape()[..], [0, 0]);
    }
}
