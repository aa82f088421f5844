//! How `model.json` is laid out: every node, input, output and constant takes one line.

use super::document::{Document, GraphDocument, SignatureDocument, Unique};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// The text of a document.
pub(super) fn text(document: &Document) -> serde_json::Result<String> {
    let mut members = vec![member("format", line(&document.format)?)];
    if !document.variables.is_empty() {
        members.push(member("variables", line(&document.variables)?));
    }
    if !document.constants.0.is_empty() {
        members.push(member("constants", map(&document.constants, 1)?));
    }
    if !document.panels.0.is_empty() {
        members.push(member("panels", map(&document.panels, 1)?));
    }
    if !document.graphs.0.is_empty() {
        let graphs = document.graphs.0.iter();
        let graphs = graphs
            .map(|(name, document)| Ok(format!("{}: {}", line(name)?, graph(document)?)))
            .collect::<serde_json::Result<Vec<_>>>()?;
        members.push(member("graphs", block(["{", "}"], &graphs, 1)));
    }
    let signatures = document.signatures.0.iter();
    let signatures = signatures
        .map(|(name, document)| Ok(format!("{}: {}", line(name)?, signature(document)?)))
        .collect::<serde_json::Result<Vec<_>>>()?;
    members.push(member("signatures", block(["{", "}"], &signatures, 1)));
    Ok(block(["{", "}"], &members, 0) + "\n")
}

fn signature(document: &SignatureDocument) -> serde_json::Result<String> {
    let mut members = vec![member("method", line(&document.method)?)];
    if !document.callable {
        members.push(member("callable", line(&document.callable)?));
    }
    members.push(member("inputs", map(&document.inputs, 3)?));
    members.push(member("outputs", map(&document.outputs, 3)?));
    if document.callable {
        members.push(member("nodes", block(["[", "]"], &lines(&document.nodes)?, 3)));
    }
    Ok(block(["{", "}"], &members, 2))
}

fn graph(document: &GraphDocument) -> serde_json::Result<String> {
    let members = [
        member("inputs", block(["[", "]"], &lines(&document.inputs)?, 3)),
        member("outputs", line(&document.outputs)?),
        member("nodes", block(["[", "]"], &lines(&document.nodes)?, 3)),
    ];
    Ok(block(["{", "}"], &members, 2))
}

fn lines<T: Serialize>(items: &[T]) -> serde_json::Result<Vec<String>> {
    items.iter().map(line).collect()
}

fn member(name: &str, value: String) -> String {
    format!("\"{name}\": {value}")
}

fn map<T: Serialize>(members: &Unique<T>, depth: usize) -> serde_json::Result<String> {
    let items = members.0.iter().map(|(name, value)| Ok(format!("{}: {}", line(name)?, line(value)?)));
    Ok(block(["{", "}"], &items.collect::<serde_json::Result<Vec<_>>>()?, depth))
}

/// Items on lines of their own, the brackets at `depth`.
fn block([open, close]: [&str; 2], items: &[String], depth: usize) -> String {
    if items.is_empty() {
        return format!("{open}{close}");
    }
    let indent = "  ".repeat(depth);
    let separator = format!(",\n{indent}  ");
    format!("{open}\n{indent}  {}\n{indent}{close}", items.join(&separator))
}

fn line<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Spaced))?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

/// One line with a blank after commas and colons.
struct Spaced;

impl Spaced {
    fn separate<W: Write + ?Sized>(writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl Formatter for Spaced {
    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
