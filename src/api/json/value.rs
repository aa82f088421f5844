//! The second pass: a cursor over a checked [`Document`].
//!
//! A value is an offset into the text and the number of the next container at or behind it, which
//! is all that stepping over it needs.

use super::{
    collect::Collector,
    number::{self, Conversion, FromNumber, Number},
    scan::{Container, Document, skip_space},
    text,
};
use crate::tensor::Element;
use std::{borrow::Cow, ops::Range};

/// The types of JSON values, by RapidJSON's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// `{..}`
    Object,
    /// `[..]`
    Array,
    /// `".."`
    String,
    /// Anything else, `NaN` and infinities too.
    Number,
}

impl Kind {
    /// The name that errors use.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Null => "Null",
            Kind::False => "False",
            Kind::True => "True",
            Kind::Object => "Object",
            Kind::Array => "Array",
            Kind::String => "String",
            Kind::Number => "Number",
        }
    }
}

/// A value within a document.
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document<'d>,
    at: usize,
    container: u32,
}

impl<'d> Value<'d> {
    pub(super) fn new(document: &'d Document<'d>, at: usize, container: u32) -> Self {
        Self { document, at, container }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.document.bytes.get(self.at) {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'n') => Kind::Null,
            Some(b't') => Kind::True,
            Some(b'f') => Kind::False,
            _ => Kind::Number,
        }
    }

    /// Elements of an array or members of an object; 0 for others.
    pub fn len(&self) -> usize {
        match self.kind() {
            Kind::Array | Kind::Object => {
                self.document.containers.get(self.container as usize).map_or(0, |c| c.count as usize)
            }
            _ => 0,
        }
    }

    /// True for an empty array or object, and for a scalar.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number; zero for a value that is none.
    pub fn number(&self, conversion: Conversion) -> Number {
        number::read(self.document.bytes, self.at, conversion).0
    }

    /// The number as an element of type `T`; `None` where it is none.
    pub fn read_number<T: FromNumber>(&self, conversion: Conversion) -> Option<T> {
        if self.kind() != Kind::Number {
            return None;
        }
        T::from_number(self.document.bytes, self.at, conversion).map(|(value, _)| value)
    }

    /// The offsets of a string's content, and whether it has escapes; `None` for others.
    pub fn string_range(&self) -> Option<(Range<usize>, bool)> {
        if self.kind() != Kind::String {
            return None;
        }
        let range = self.at + 1..text::closing_quote(self.document.bytes, self.at);
        let escaped = memchr::memchr(b'\\', self.document.bytes.get(range.clone())?).is_some();
        Some((range, escaped))
    }

    /// The content of a string; `None` for others.
    pub fn string(&self) -> Option<Cow<'d, [u8]>> {
        let (range, _) = self.string_range()?;
        Some(text::decode(self.document.bytes.get(range)?))
    }

    /// The elements of an array; nothing for others.
    pub fn items(&self) -> Items<'d> {
        let left = if self.kind() == Kind::Array { self.len() } else { 0 };
        Items { document: self.document, at: self.at + 1, container: self.container + 1, left }
    }

    /// The members of an object in the order of the text; nothing for others.
    pub fn members(&self) -> Members<'d> {
        let left = if self.kind() == Kind::Object { self.len() } else { 0 };
        Members(Items { document: self.document, at: self.at + 1, container: self.container + 1, left })
    }

    /// The first member of that name.
    pub fn find(&self, name: &str) -> Option<Value<'d>> {
        self.members().find(|(key, _)| &**key == name.as_bytes()).map(|(_, value)| value)
    }

    /// Hands the text and the offset of every leaf to `take`, in order, if this is an array of
    /// exactly `shape`; returns how many there were. `take` returns the offset behind the leaf.
    ///
    /// `None` where the shape is another or a leaf was not taken.
    #[inline]
    pub fn each_leaf(
        &self,
        shape: &[usize],
        mut take: impl FnMut(&'d [u8], usize) -> Option<usize>,
    ) -> Option<usize> {
        if self.kind() != Kind::Array || !self.has_shape(shape) {
            return None;
        }
        let (end, _) = self.end();
        let text = self.document.bytes.get(..end)?;
        let (mut at, mut count) = (self.at, 0);
        loop {
            while let Some(b'[' | b']' | b',' | b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
                at += 1;
            }
            if at >= end {
                return Some(count);
            }
            at = take(text, at)?;
            count += 1;
        }
    }

    /// Which of the collected elements this array of exactly `shape` has; `None` where the shape is
    /// another, a leaf is no number, or it was not collected.
    pub fn collected<T: Element + FromNumber>(
        &self,
        shape: &[usize],
        collector: &Collector<T>,
    ) -> Option<Range<usize>> {
        let leaves = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
        let range = collector.within(self.container).filter(|range| range.len() == leaves)?;
        (self.kind() == Kind::Array && self.has_shape(shape)).then_some(range)
    }

    /// Whether the containers in an array nest as those of a tensor of `shape` do.
    fn has_shape(&self, shape: &[usize]) -> bool {
        // How many containers an array at each level is, itself included.
        let mut sizes = [0usize; 8];
        let Some(sizes) = sizes.get_mut(..shape.len()) else { return false };
        let mut below = 0usize;
        for (size, &count) in sizes.iter_mut().zip(shape).rev() {
            below = below.saturating_mul(count).saturating_add(1);
            *size = below;
        }
        // Where `count` elements are `count` arrays of full size, nothing else is beside them.
        fn check(containers: &[Container], at: usize, sizes: &[usize], shape: &[usize]) -> bool {
            let (Some((&size, inner_sizes)), Some((&count, inner))) =
                (sizes.split_first(), shape.split_first())
            else {
                return true;
            };
            let fits = containers
                .get(at)
                .is_some_and(|own| own.count as usize == count && own.next as usize == at + size);
            let step = inner_sizes.first().copied().unwrap_or(0);
            match inner {
                _ if !fits => false,
                [] => true,
                // The bulk of them, in one run.
                [leaves] => containers.get(at + 1..at + size).is_some_and(|lists| {
                    lists
                        .iter()
                        .zip(at + 2..)
                        .all(|(list, next)| list.count as usize == *leaves && list.next as usize == next)
                }),
                _ => (0..count).all(|index| check(containers, at + 1 + index * step, inner_sizes, inner)),
            }
        }
        check(&self.document.containers, self.container as usize, sizes, shape)
    }

    /// The text of it.
    #[cfg(test)]
    pub(super) fn source(&self) -> &'d str {
        std::str::from_utf8(&self.document.bytes[self.at..self.end().0]).unwrap()
    }

    /// The offset behind it and the number of the next container from there.
    fn end(&self) -> (usize, u32) {
        let bytes = self.document.bytes;
        match self.kind() {
            Kind::Array | Kind::Object => match self.document.containers.get(self.container as usize) {
                Some(container) => (container.end as usize, container.next),
                None => (bytes.len(), self.container),
            },
            Kind::String => (text::closing_quote(bytes, self.at) + 1, self.container),
            _ => {
                let mut at = self.at;
                while !matches!(bytes.get(at), None | Some(b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
                {
                    at += 1;
                }
                (at, self.container)
            }
        }
    }
}

/// Iterates over the elements of an array.
pub struct Items<'d> {
    document: &'d Document<'d>,
    at: usize,
    container: u32,
    left: usize,
}

impl<'d> Items<'d> {
    #[inline]
    fn next_start(&self) -> usize {
        let mut at = skip_space(self.document.bytes, self.at);
        if self.document.bytes.get(at) == Some(&b',') {
            at = skip_space(self.document.bytes, at + 1);
        }
        at
    }
}

impl<'d> Iterator for Items<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Value<'d>> {
        self.left = self.left.checked_sub(1)?;
        let value = Value::new(self.document, self.next_start(), self.container);
        (self.at, self.container) = value.end();
        Some(value)
    }
}

/// Iterates over the members of an object.
pub struct Members<'d>(Items<'d>);

impl<'d> Iterator for Members<'d> {
    type Item = (Cow<'d, [u8]>, Value<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        let items = &mut self.0;
        let key = items.next()?;
        let colon = skip_space(items.document.bytes, items.at);
        let value = Value::new(items.document, skip_space(items.document.bytes, colon + 1), items.container);
        (items.at, items.container) = value.end();
        Some((key.string().unwrap_or_default(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_the_text() {
        let text = br#" { "a" : [ [1 , 2] , {"x":[]} , "s]\"" , null ] , "b\u0041":true,"a":7}"#;
        let document = Document::parse(text).unwrap();
        let root = document.root();
        assert_eq!((root.kind(), root.len()), (Kind::Object, 3));
        let keys: Vec<_> = root.members().map(|(key, value)| (key.into_owned(), value.kind())).collect();
        assert_eq!(
            keys,
            [(b"a".to_vec(), Kind::Array), (b"bA".to_vec(), Kind::True), (b"a".to_vec(), Kind::Number)]
        );
        let first = root.find("a").unwrap();
        let kinds: Vec<_> = first.items().map(|item| (item.kind(), item.len())).collect();
        assert_eq!(kinds, [(Kind::Array, 2), (Kind::Object, 1), (Kind::String, 0), (Kind::Null, 0)]);
        let string = first.items().nth(2).unwrap().string().unwrap();
        assert_eq!(&*string, b"s]\"");
        assert!(root.find("c").is_none());
    }

    #[test]
    fn leaves_of_uniform_arrays() {
        let leaves = |text: &str, shape: &[usize]| {
            let document = Document::parse(text.as_bytes()).unwrap();
            let mut sum = 0;
            let count = document.root().each_leaf(shape, |text, at| {
                let (value, end) = i32::from_number(text, at, Conversion::Exact)?;
                sum = sum * 10 + value;
                Some(end)
            });
            count.map(|count| (count, sum))
        };
        assert_eq!(leaves("[ [1, 2,3] ,\n[4,5,6]]", &[2, 3]), Some((6, 123456)));
        assert_eq!(leaves("[[[1],[2]],[[3],[4]]]", &[2, 2, 1]), Some((4, 1234)));
        assert_eq!(leaves("[[],[]]", &[2, 0]), Some((0, 0)));
        assert_eq!(leaves("[]", &[0]), Some((0, 0)));
        for (text, shape) in [
            ("[[1,2],[3]]", &[2, 2][..]),
            ("[[1,2],3]", &[2, 2]),
            ("[1,[2]]", &[2]),
            ("[[1,[2]],[3,4]]", &[2, 2]),
            ("[[1,2],[3,4.5]]", &[2, 2]),
            ("[{\"a\":1,\"b\":2}]", &[1, 2]),
            ("1", &[]),
        ] {
            assert_eq!(leaves(text, shape), None, "{text}");
        }
    }
}
