//! The vocabulary, made for the search of the longest piece.

use super::Tokenize;
use crate::{ops::OpError, tensor::Bytes};
use std::collections::HashMap;

/// Pieces and their ids; those that continue a word without their prefix.
pub(super) struct Pieces {
    first: HashMap<Bytes, i64>,
    continuing: HashMap<Bytes, i64>,
    /// Bytes of the longest piece.
    longest: usize,
}

impl Pieces {
    pub(super) fn new(vocabulary: &[Bytes], op: &Tokenize) -> Result<Self, OpError> {
        let mut pieces =
            Self { first: HashMap::with_capacity(vocabulary.len()), continuing: HashMap::new(), longest: 0 };
        let prefix = op.continuing.as_bytes();
        for (id, piece) in vocabulary.iter().enumerate() {
            // An empty text stands for an id without a piece.
            if piece.is_empty() {
                continue;
            }
            let id = id as i64;
            pieces.longest = pieces.longest.max(piece.len());
            if let Some(rest) = piece.strip_prefix(prefix)
                && !rest.is_empty()
            {
                pieces.continuing.insert(piece.slice_ref(rest), id);
            }
            // A word that starts with the prefix's characters can be spelt by such a piece, too.
            pieces.first.insert(piece.clone(), id);
        }
        Ok(pieces)
    }

    /// Appends the ids of a word's pieces, each the longest that fits; false, and nothing appended, where one is missing.
    pub(super) fn spell(&self, word: &str, ids: &mut Vec<i64>) -> bool {
        let before = ids.len();
        let mut rest = word.as_bytes();
        let mut known = &self.first;
        while !rest.is_empty() {
            let longest = rest.len().min(self.longest);
            let found = (1..=longest).rev().find_map(|len| Some((len, *known.get(&rest[..len])?)));
            let Some((len, id)) = found else {
                ids.truncate(before);
                return false;
            };
            ids.push(id);
            rest = &rest[len..];
            known = &self.continuing;
        }
        true
    }
}
