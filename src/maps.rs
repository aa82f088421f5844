//! Ordered maps and sets from iterators, element by element.
//!
//! `collect` sorts the elements first, with a sort that is compiled anew for every type: six kilobytes each.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

/// For what `collect` would do.
pub(crate) trait Ordered: Iterator + Sized {
    /// A map of the pairs; the last one of a key stays.
    fn into_map<K: Ord, V>(self) -> BTreeMap<K, V>
    where
        Self: Iterator<Item = (K, V)>,
    {
        let mut map = BTreeMap::new();
        map.extend(self);
        map
    }

    /// A set of the elements.
    fn into_set(self) -> BTreeSet<Self::Item>
    where
        Self::Item: Ord,
    {
        let mut set = BTreeSet::new();
        set.extend(self);
        set
    }
}

impl<I: Iterator> Ordered for I {}
