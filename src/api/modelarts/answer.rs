//! From the model to the answer: a table, or what kinglet.toml says the outputs are, or the tensors as they are.

use super::{
    body::{self, Body},
    error::Failure,
    table,
};
use crate::{
    api::json::{write::Writer, write_tensor},
    models::{
        self, Patience, Request, Servable,
        postprocess::{Found, Postprocess},
    },
    wire::Response,
};

/// Runs the model on a body.
pub(super) fn answer(servable: &Servable, body: &Body, patience: &Patience) -> Result<Response, Failure> {
    let signature = servable.main_signature().ok_or_else(|| {
        let names: Vec<&str> = servable.signatures.keys().map(String::as_str).collect();
        Failure::Refused(format!(
            "the model has several signatures; kinglet.toml has to say which: {}",
            names.join(", ")
        ))
    })?;
    if let Body::Json(text) = body
        && let Some(response) = table::answer(servable, signature, text, patience)?
    {
        return Ok(response);
    }
    let inputs = body::inputs(signature, body)?;
    let request = Request {
        signature: Some(signature.name.clone()),
        inputs: inputs.tensors,
        patience: patience.clone(),
        ..Request::default()
    };
    let response = models::predict(servable, request)?;
    let mut writer = Writer::new(0);
    match &servable.declared.output {
        Some(Postprocess::Classification(how)) => {
            let answers = how.apply(&response, inputs.placements.len().max(1))?;
            each(&mut writer, &answers, classes);
        }
        Some(Postprocess::Detection(how)) => {
            let [placement] = &*inputs.placements else {
                return Err(Failure::Refused("a detector takes one image".into()));
            };
            boxes(&mut writer, &how.apply(&response, placement)?);
        }
        None => {
            writer.begin_object();
            writer.single_line_arrays(true);
            for (name, tensor) in &response.outputs {
                writer.key(name.as_bytes());
                write_tensor(name, tensor, None, false, &mut writer)?;
            }
            writer.end_object();
        }
    }
    Ok(Response::new(200, "application/json", writer.finish()))
}

/// One answer as it is, several as a list.
fn each<T>(writer: &mut Writer, answers: &[T], mut one: impl FnMut(&mut Writer, &T)) {
    match answers {
        [answer] => one(writer, answer),
        _ => {
            writer.begin_array();
            answers.iter().for_each(|answer| one(writer, answer));
            writer.end_array();
        }
    }
}

fn classes(writer: &mut Writer, best: &Vec<(String, f32)>) {
    writer.begin_object();
    writer.key(b"predicted_label");
    writer.string(best.first().map(|(label, _)| label.as_bytes()).unwrap_or_default());
    writer.key(b"scores");
    writer.single_line_arrays(true);
    writer.begin_array();
    for (label, score) in best {
        writer.begin_array();
        writer.string(label.as_bytes());
        writer.f32(*score);
        writer.end_array();
    }
    writer.end_array();
    writer.single_line_arrays(false);
    writer.end_object();
}

fn boxes(writer: &mut Writer, found: &[Found]) {
    writer.begin_object();
    writer.single_line_arrays(true);
    writer.key(b"detection_classes");
    writer.begin_array();
    found.iter().for_each(|thing| writer.string(thing.label.as_bytes()));
    writer.end_array();
    writer.key(b"detection_boxes");
    writer.begin_array();
    for thing in found {
        writer.begin_array();
        thing.place.iter().for_each(|edge| writer.f32(*edge));
        writer.end_array();
    }
    writer.end_array();
    writer.key(b"detection_scores");
    writer.begin_array();
    found.iter().for_each(|thing| writer.f32(thing.score));
    writer.end_array();
    writer.end_object();
}
