//! The last layers of detectors, each turned into candidates: a box in fractions of the input, a class and a score.

use super::{Labels, floats, output, sigmoid};
use crate::models::{Error, Response};

/// A box before others have had their say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// `[top, left, bottom, right]`, 0 to 1 over the input.
    pub(super) place: [f32; 4],
    pub(super) class: usize,
    pub(super) score: f32,
}

/// The four numbers of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxFormat {
    /// `y_min, x_min, y_max, x_max`, as TensorFlow has them.
    Yxyx,
    /// `x_min, y_min, x_max, y_max`, as PyTorch has them.
    Xyxy,
    /// Centre, width and height.
    Cxcywh,
}

/// Default boxes of an SSD detector; sizes and steps in pixels of the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Anchors {
    /// The size of the input, height and width alike.
    pub image: f32,
    /// Smaller and larger size of each feature map.
    pub sizes: Vec<[f32; 2]>,
    /// Aspect ratios of each feature map, beside 1.
    pub ratios: Vec<Vec<f32>>,
    /// Distance of neighbours on each feature map.
    pub steps: Vec<f32>,
    /// What the regression of centre and size is scaled with.
    pub variances: [f32; 4],
}

impl Default for Anchors {
    /// SSD-300 on VGG, as the paper and its TensorFlow ports have it.
    fn default() -> Self {
        let (few, many) = (vec![2.0, 0.5], vec![2.0, 0.5, 3.0, 1.0 / 3.0]);
        Self {
            image: 300.0,
            sizes: vec![[21., 45.], [45., 99.], [99., 153.], [153., 207.], [207., 261.], [261., 315.]],
            ratios: vec![few.clone(), many.clone(), many.clone(), many, few.clone(), few],
            steps: vec![8., 16., 32., 64., 100., 300.],
            variances: [0.1, 0.1, 0.2, 0.2],
        }
    }
}

/// What the outputs of a detector are.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// Boxes and scores ready for use: `boxes` `[1, n, 4]` and `scores` `[1, n]` with `classes` `[1, n]`, or `[1, n, classes]`
    /// without.
    Decoded {
        /// Output with the boxes.
        boxes: String,
        /// Output with the scores.
        scores: String,
        /// Output with the class of each box.
        classes: Option<String>,
        /// What the boxes are.
        format: BoxFormat,
        /// What a box is divided by to be a fraction of the input, `(height, width)`; 1 where it is one.
        extent: (f32, f32),
        /// Class 0 (or, in `classes`, the number 0) is the background and the first thing is 1.
        background: bool,
    },
    /// One output `[1, n, 4 + classes]`, `[1, n, 5 + classes]` with a score of there being anything, or either turned;
    /// boxes are centre and size in pixels of the input.
    Yolo {
        /// The output; `None` is the only one.
        tensor: Option<String>,
        /// Height and width of the input.
        extent: (f32, f32),
        /// Whether there is a score of there being anything; `None` tells by the number of labels.
        objectness: Option<bool>,
    },
    /// One output `[1, 5 + classes, rows, columns]`: thing, four numbers of its box, classes.
    FastestDet {
        /// The output; `None` is the only one.
        tensor: Option<String>,
    },
    /// Heat map of centres with sizes and offsets in cells, all `[1, rows, columns, ..]` or `[1, .., rows, columns]`.
    CenterNet {
        /// Output with the heat map.
        heatmap: String,
        /// Output with width and height.
        size: String,
        /// Output with the offset of the centre within its cell, x first.
        offset: Option<String>,
        /// The heat map is to be put through a sigmoid.
        logits: bool,
    },
    /// Scores and regressed boxes for default boxes, one output of each per feature map.
    Ssd {
        /// Outputs with the scores, `[.., classes]`, the background first.
        scores: Vec<String>,
        /// Outputs with the boxes, `[.., 4]`.
        boxes: Vec<String>,
        /// The default boxes.
        anchors: Anchors,
        /// Whether the regression is `x, y, w, h` (else `y, x, h, w`).
        x_first: bool,
    },
}

impl Head {
    /// Candidates of at least that score, and how many classes there are.
    pub(super) fn candidates(
        &self,
        response: &Response,
        least: f32,
        labels: &Labels,
    ) -> Result<(Vec<Candidate>, usize), Error> {
        match self {
            Head::Decoded { boxes, scores, classes, format, extent, background } => {
                decoded(response, [boxes, scores], classes.as_deref(), *format, *extent, *background, least)
            }
            Head::Yolo { tensor, extent, objectness } => {
                yolo(response, tensor.as_deref(), *extent, *objectness, labels, least)
            }
            Head::FastestDet { tensor } => fastest_det(response, tensor.as_deref(), least),
            Head::CenterNet { heatmap, size, offset, logits } => {
                center_net(response, [heatmap, size], offset.as_deref(), *logits, least)
            }
            Head::Ssd { scores, boxes, anchors, x_first } => {
                ssd(response, scores, boxes, anchors, *x_first, least)
            }
        }
    }

    /// The outputs that it reads by name.
    pub fn outputs(&self) -> Vec<&str> {
        match self {
            Head::Decoded { boxes, scores, classes, .. } => {
                [Some(boxes.as_str()), Some(scores.as_str()), classes.as_deref()]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Head::Yolo { tensor, .. } | Head::FastestDet { tensor } => {
                tensor.as_deref().into_iter().collect()
            }
            Head::CenterNet { heatmap, size, offset, .. } => {
                [Some(heatmap.as_str()), Some(size.as_str()), offset.as_deref()]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Head::Ssd { scores, boxes, .. } => scores.iter().chain(boxes).map(String::as_str).collect(),
        }
    }
}

fn mismatch(what: &str, shape: &[usize]) -> Error {
    Error::failed_precondition(format!("kinglet.toml: {what} cannot have the shape {shape:?}"))
}

fn best(scores: &[f32]) -> Option<(usize, f32)> {
    scores.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
}

/// `[top, left, bottom, right]` of a box around a centre.
fn around(cy: f32, cx: f32, h: f32, w: f32) -> [f32; 4] {
    [cy - h / 2.0, cx - w / 2.0, cy + h / 2.0, cx + w / 2.0]
}

fn decoded(
    response: &Response,
    [boxes, scores]: [&String; 2],
    classes: Option<&str>,
    format: BoxFormat,
    (height, width): (f32, f32),
    background: bool,
    least: f32,
) -> Result<(Vec<Candidate>, usize), Error> {
    let ((box_shape, boxes), (score_shape, scores)) =
        (output(response, Some(boxes))?, output(response, Some(scores))?);
    let count = boxes.len() / 4;
    if count == 0 || boxes.len() != count * 4 || box_shape.last() != Some(&4) {
        return Err(mismatch("the boxes", box_shape));
    }
    let per_box = scores.len() / count;
    if scores.len() != per_box * count || per_box == 0 {
        return Err(mismatch("the scores", score_shape));
    }
    let named = match classes {
        Some(name) => Some(output(response, Some(name))?).filter(|(_, values)| values.len() == count),
        None => None,
    };
    let skipped = usize::from(background);
    let number = named.as_ref().map_or(per_box.saturating_sub(skipped), |(_, values)| {
        values.iter().copied().fold(0.0, f32::max) as usize + 1 - skipped.min(1)
    });
    let mut found = Vec::new();
    for (index, (place, scores)) in boxes.chunks_exact(4).zip(scores.chunks_exact(per_box)).enumerate() {
        let class = match &named {
            Some((_, values)) => {
                let class = values.get(index).copied().unwrap_or(0.0);
                (class >= skipped as f32)
                    .then(|| (class as usize - skipped, scores.first().copied().unwrap_or(0.0)))
            }
            None => best(scores.get(skipped.min(per_box - 1)..).unwrap_or_default()),
        };
        let Some((class, score)) = class.filter(|(_, score)| *score >= least) else { continue };
        let &[a, b, c, d] = place else { continue };
        let place = match format {
            BoxFormat::Yxyx => [a / height, b / width, c / height, d / width],
            BoxFormat::Xyxy => [b / height, a / width, d / height, c / width],
            BoxFormat::Cxcywh => around(b / height, a / width, d / height, c / width),
        };
        found.push(Candidate { place, class, score });
    }
    Ok((found, number))
}

fn yolo(
    response: &Response,
    tensor: Option<&str>,
    (height, width): (f32, f32),
    objectness: Option<bool>,
    labels: &Labels,
    least: f32,
) -> Result<(Vec<Candidate>, usize), Error> {
    let (shape, values) = output(response, tensor)?;
    let (rows, columns) = match *shape {
        [1, rows, columns] | [rows, columns] => (rows, columns),
        _ => return Err(mismatch("the output of a YOLO detector", shape)),
    };
    // There are more places than numbers of a place.
    let turned = columns > rows;
    let (count, numbers) = if turned { (columns, rows) } else { (rows, columns) };
    let thing = objectness.unwrap_or(labels.0.is_empty() || numbers == labels.0.len() + 5);
    let first = 4 + usize::from(thing);
    if numbers <= first {
        return Err(mismatch("the output of a YOLO detector", shape));
    }
    let mut found = Vec::new();
    let mut place = vec![0.0; numbers];
    for index in 0..count {
        for (number, value) in place.iter_mut().enumerate() {
            *value = values[if turned { number * count + index } else { index * numbers + number }];
        }
        let certainty = if thing { place[4] } else { 1.0 };
        let Some((class, score)) = best(&place[first..]).map(|(class, score)| (class, score * certainty))
        else {
            continue;
        };
        if score >= least {
            let place = around(place[1] / height, place[0] / width, place[3] / height, place[2] / width);
            found.push(Candidate { place, class, score });
        }
    }
    Ok((found, numbers - first))
}

/// The formulas are those of the published evaluation code of FastestDet.
fn fastest_det(
    response: &Response,
    tensor: Option<&str>,
    least: f32,
) -> Result<(Vec<Candidate>, usize), Error> {
    let (shape, values) = output(response, tensor)?;
    let &[1, numbers, rows, columns] = shape else { return Err(mismatch("the output of FastestDet", shape)) };
    if numbers <= 5 {
        return Err(mismatch("the output of FastestDet", shape));
    }
    let cells = rows * columns;
    let mut found = Vec::new();
    let mut classes = vec![0.0; numbers - 5];
    for cell in 0..cells {
        let number = |index: usize| values[index * cells + cell];
        classes.iter_mut().enumerate().for_each(|(class, score)| *score = number(5 + class));
        let Some((class, likely)) = best(&classes) else { continue };
        let score = number(0).max(0.0).powf(0.6) * likely.max(0.0).powf(0.4);
        if score >= least {
            let (row, column) = ((cell / columns) as f32, (cell % columns) as f32);
            let cx = (column + number(1).tanh()) / columns as f32;
            let cy = (row + number(2).tanh()) / rows as f32;
            found.push(Candidate {
                place: around(cy, cx, sigmoid(number(4)), sigmoid(number(3))),
                class,
                score,
            });
        }
    }
    Ok((found, numbers - 5))
}

/// A map `[1, rows, columns, depth]`, or turned.
struct Map {
    rows: usize,
    columns: usize,
    depth: usize,
    channels_first: bool,
    values: Vec<f32>,
}

impl Map {
    fn read(response: &Response, name: &str, depth: Option<usize>) -> Result<Self, Error> {
        let (shape, values) = output(response, Some(name))?;
        let &[1, a, b, c] = shape else { return Err(mismatch("a map of CenterNet", shape)) };
        // Maps are larger than they are deep; of sizes and offsets the depth is known.
        let channels_first = depth.map_or(a < c, |depth| a == depth && c != depth);
        let (rows, columns, depth) = if channels_first { (b, c, a) } else { (a, b, c) };
        Ok(Self { rows, columns, depth, channels_first, values })
    }

    fn at(&self, row: usize, column: usize, channel: usize) -> f32 {
        let at = match self.channels_first {
            true => (channel * self.rows + row) * self.columns + column,
            false => (row * self.columns + column) * self.depth + channel,
        };
        self.values.get(at).copied().unwrap_or(0.0)
    }
}

fn center_net(
    response: &Response,
    [heatmap, size]: [&String; 2],
    offset: Option<&str>,
    logits: bool,
    least: f32,
) -> Result<(Vec<Candidate>, usize), Error> {
    let (heat, size) = (Map::read(response, heatmap, None)?, Map::read(response, size, Some(2))?);
    let offset = offset.map(|name| Map::read(response, name, Some(2))).transpose()?;
    if (size.rows, size.columns, size.depth) != (heat.rows, heat.columns, 2) {
        return Err(Error::failed_precondition(
            "kinglet.toml: heat map and sizes of CenterNet do not fit each other",
        ));
    }
    let (rows, columns) = (heat.rows as f32, heat.columns as f32);
    let mut found = Vec::new();
    for row in 0..heat.rows {
        for column in 0..heat.columns {
            for class in 0..heat.depth {
                let value = heat.at(row, column, class);
                let score = if logits { sigmoid(value) } else { value };
                let around_it =
                    |y: usize, x: usize| y < heat.rows && x < heat.columns && heat.at(y, x, class) > value;
                let near = |y: usize| (column.saturating_sub(1)..=column + 1).any(|x| around_it(y, x));
                // Only the top of a hill counts.
                if score < least || (row.saturating_sub(1)..=row + 1).any(near) {
                    continue;
                }
                let (dx, dy) = offset
                    .as_ref()
                    .map_or((0.5, 0.5), |map| (map.at(row, column, 0), map.at(row, column, 1)));
                let (cy, cx) = ((row as f32 + dy) / rows, (column as f32 + dx) / columns);
                let (w, h) = (size.at(row, column, 0) / columns, size.at(row, column, 1) / rows);
                found.push(Candidate { place: around(cy, cx, h, w), class, score });
            }
        }
    }
    Ok((found, heat.depth))
}

impl Anchors {
    /// `[cy, cx, h, w]` of every default box of a feature map, 0 to 1; row by row, cell by cell.
    pub(super) fn of_map(&self, map: usize, rows: usize, columns: usize) -> Vec<[f32; 4]> {
        let (Some(&[small, large]), Some(ratios), Some(&step)) =
            (self.sizes.get(map), self.ratios.get(map), self.steps.get(map))
        else {
            return Vec::new();
        };
        let image = self.image.max(1.0);
        let mean = (small * large).sqrt();
        let mut shapes = vec![(small, small), (mean, mean)];
        shapes.extend(ratios.iter().map(|ratio| (small / ratio.sqrt(), small * ratio.sqrt())));
        let mut anchors = Vec::with_capacity(rows * columns * shapes.len());
        for row in 0..rows {
            for column in 0..columns {
                let centre = |index: usize| (index as f32 + 0.5) * step / image;
                anchors
                    .extend(shapes.iter().map(|(h, w)| [centre(row), centre(column), h / image, w / image]));
            }
        }
        anchors
    }
}

fn ssd(
    response: &Response,
    scores: &[String],
    boxes: &[String],
    anchors: &Anchors,
    x_first: bool,
    least: f32,
) -> Result<(Vec<Candidate>, usize), Error> {
    let mut found = Vec::new();
    let mut number = 0;
    for (map, (scores, boxes)) in scores.iter().zip(boxes).enumerate() {
        let named = |name: &String| {
            let tensor = response.outputs.iter().find(|(given, _)| given == name).map(|(_, tensor)| tensor);
            tensor.ok_or_else(|| {
                Error::failed_precondition(format!("kinglet.toml: the model has no output {name}"))
            })
        };
        let (scores, boxes) = (named(scores)?, named(boxes)?);
        let &[1, rows, columns, .., classes] = &**scores.shape() else {
            return Err(mismatch("the scores of an SSD detector", scores.shape()));
        };
        let (scores, boxes) = (floats(scores)?, floats(boxes)?);
        let places = anchors.of_map(map, rows, columns);
        if classes < 2 || scores.len() != places.len() * classes || boxes.len() != places.len() * 4 {
            return Err(Error::failed_precondition(format!(
                "kinglet.toml: feature map {map} has {} default boxes, but {} scores of {classes} classes and {} numbers of boxes",
                places.len(),
                scores.len(),
                boxes.len()
            )));
        }
        number = classes - 1;
        for ((anchor, scores), regressed) in
            places.iter().zip(scores.chunks_exact(classes)).zip(boxes.chunks_exact(4))
        {
            let Some((class, score)) = best(&scores[1..]).filter(|(_, score)| *score >= least) else {
                continue;
            };
            let (x, y, w, h) = match (regressed, x_first) {
                (&[x, y, w, h], true) | (&[y, x, h, w], false) => (x, y, w, h),
                _ => continue,
            };
            let ([cy, cx, ah, aw], [vx, vy, vw, vh]) = (*anchor, anchors.variances);
            let place = around(cy + y * ah * vy, cx + x * aw * vx, ah * (h * vh).exp(), aw * (w * vw).exp());
            found.push(Candidate { place, class, score });
        }
    }
    Ok((found, number))
}
