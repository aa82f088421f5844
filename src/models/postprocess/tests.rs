use super::{
    boxes::{overlap, suppress},
    heads::Candidate,
    *,
};
use crate::models::{
    TensorInfo,
    image::{ImageInput, Placement, images_to_tensor},
};

fn response(outputs: &[(&str, &[usize], &[f32])]) -> Response {
    let outputs = outputs
        .iter()
        .map(|(name, shape, values)| ((*name).to_owned(), Tensor::from_slice(*shape, values).unwrap()));
    Response { model: "m".into(), version: 1, signature: "s".into(), outputs: outputs.collect() }
}

fn labels(names: &[&str]) -> Labels {
    Labels(names.iter().map(|name| (*name).to_owned()).collect())
}

/// A picture of the size of its input, so that places are fractions times that.
fn placement(size: usize) -> Placement {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, size as u32, size as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&vec![0; size * size]).unwrap();
    let info = TensorInfo {
        name: "x".into(),
        tensor: "x:0".into(),
        dtype: Some(DType::F32),
        taken: None,
        shape: Some(vec![Some(1), None, None, Some(3)]),
        image: None,
    };
    images_to_tensor(&info, &ImageInput::default(), &[png.into()]).unwrap().1[0]
}

fn detect(head: Head, names: &[&str], response: &Response, size: usize) -> Vec<(String, [f32; 4], f32)> {
    let detection = Detection { head, labels: labels(names), nms: Nms::default() };
    let found = detection.apply(response, &placement(size)).unwrap();
    let rounded = |value: f32| (value * 100.0).round() / 100.0;
    found.into_iter().map(|found| (found.label, found.place.map(rounded), rounded(found.score))).collect()
}

#[test]
fn the_best_labels() {
    let response = response(&[("scores", &[2, 3], &[0.1, 0.7, 0.2, 0.5, 0.5, 0.0])]);
    let classification =
        Classification { labels: labels(&["a", "b", "c"]), top: 2, ..Classification::default() };
    let best = classification.apply(&response, 2).unwrap();
    assert_eq!(best[0], [("b".to_owned(), 0.7), ("c".to_owned(), 0.2)]);
    assert_eq!(best[1], [("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]);
    let softmax = Classification {
        labels: labels(&["background", "a", "b", "c"]),
        top: 1,
        activation: Activation::Softmax,
        ..classification
    };
    let best = softmax.apply(&response, 2).unwrap();
    assert_eq!(best[0][0].0, "b");
    assert!((best[0][0].1 - 0.7f32.exp() / (0.1f32.exp() + 0.7f32.exp() + 0.2f32.exp())).abs() < 1e-6);
    assert!(softmax.apply(&response, 4).is_err());
    assert_eq!(labels(&[]).name(3, 10), "3");
}

#[test]
fn overlapping_boxes_of_one_class_are_one() {
    let (a, b) = ([0., 0., 2., 2.], [0., 1., 2., 3.]);
    assert!((overlap(&a, &b) - 1.0 / 3.0).abs() < 1e-6);
    assert_eq!(overlap(&a, &[5., 5., 6., 6.]), 0.0);
    let candidate = |place, class, score| Candidate { place, class, score };
    let all = vec![candidate(a, 0, 0.9), candidate(b, 0, 0.8), candidate(b, 1, 0.7), candidate(a, 0, 0.6)];
    let kept = |iou_threshold, most| {
        let kept = suppress(all.clone(), &Nms { iou_threshold, most, ..Nms::default() });
        kept.iter().map(|candidate| candidate.score).collect::<Vec<_>>()
    };
    assert_eq!(kept(0.3, 9), [0.9, 0.7]);
    assert_eq!(kept(0.5, 9), [0.9, 0.8, 0.7]);
    assert_eq!(kept(0.5, 1), [0.9]);
}

#[test]
fn decoded_boxes_of_either_kind() {
    let head = |classes: Option<&str>, format, background| Head::Decoded {
        boxes: "b".into(),
        scores: "s".into(),
        classes: classes.map(str::to_owned),
        format,
        extent: (1.0, 1.0),
        background,
    };
    let boxes: (&str, &[usize], &[f32]) = ("b", &[1, 2, 4], &[0.1, 0.2, 0.5, 0.6, 0., 0., 1., 1.]);
    let with_classes = response(&[boxes, ("s", &[1, 2], &[0.9, 0.1]), ("c", &[1, 2], &[2.0, 1.0])]);
    let found = detect(head(Some("c"), BoxFormat::Yxyx, true), &["cat", "dog"], &with_classes, 10);
    assert_eq!(found, [("dog".to_owned(), [1.0, 2.0, 5.0, 6.0], 0.9)]);
    let per_class = response(&[boxes, ("s", &[1, 2, 2], &[0.2, 0.8, 0.9, 0.1])]);
    let found = detect(head(None, BoxFormat::Xyxy, true), &["face"], &per_class, 10);
    assert_eq!(found, [("face".to_owned(), [2.0, 1.0, 6.0, 5.0], 0.8)]);
}

#[test]
fn yolo_either_way_round() {
    // Three places of one class, more than numbers of a place only when turned.
    let rows: Vec<f32> =
        (0..8).flat_map(|at| if at == 3 { [5., 4., 4., 2., 0.9, 0.8] } else { [0.; 6] }).collect();
    let turned: Vec<f32> = (0..6)
        .flat_map(|number| (0..8).map(move |at| (number, at)))
        .map(|(number, at)| rows[at * 6 + number])
        .collect();
    let head = Head::Yolo { tensor: None, extent: (10.0, 10.0), objectness: None };
    for (shape, values) in [([1, 8, 6], rows), ([1, 6, 8], turned)] {
        let found = detect(head.clone(), &["car"], &response(&[("o", &shape, &values)]), 10);
        assert_eq!(found, [("car".to_owned(), [3.0, 3.0, 5.0, 7.0], 0.72)]);
        // Two labels: the fifth number is a class.
        let found = detect(head.clone(), &["car", "bus"], &response(&[("o", &shape, &values)]), 10);
        assert_eq!(found, [("car".to_owned(), [3.0, 3.0, 5.0, 7.0], 0.9)]);
    }
    assert!(
        Detection { head, labels: labels(&[]), nms: Nms::default() }
            .apply(&response(&[("o", &[4], &[0.; 4])]), &placement(2))
            .is_err()
    );
}

#[test]
fn fastest_det_is_its_published_formula() {
    // One class, 2 x 2 cells; the thing is in the cell at row 1, column 0.
    let mut values = [0.0f32; 24];
    let mut set = |number: usize, value: f32| values[number * 4 + 2] = value;
    set(0, 0.5);
    set(1, 0.3);
    set(2, -0.2);
    set(5, 0.9);
    let found =
        detect(Head::FastestDet { tensor: None }, &["dog"], &response(&[("o", &[1, 6, 2, 2], &values)]), 100);
    let (cx, cy) = (0.3f32.tanh() / 2.0 * 100.0, (1.0 - 0.2f32.tanh()) / 2.0 * 100.0);
    let score = 0.5f32.powf(0.6) * 0.9f32.powf(0.4);
    let expected = [cy - 25.0, (cx - 25.0).max(0.0), cy + 25.0, cx + 25.0];
    assert_eq!(found.len(), 1);
    assert!((found[0].2 - score).abs() < 0.01);
    for (found, expected) in found[0].1.iter().zip(expected) {
        assert!((found - expected).abs() < 0.02, "{found} instead of {expected}");
    }
}

#[test]
fn center_net_finds_hill_tops() {
    // 3 x 3 cells, one class: a hill at (1, 1) with a slope at (1, 2).
    let mut heat = [0.0f32; 9];
    (heat[4], heat[5]) = (0.9, 0.6);
    let sizes: Vec<f32> = (0..9).flat_map(|_| [2.0, 1.0]).collect();
    let turned: Vec<f32> = [[2.0; 9], [1.0; 9]].concat();
    let offsets = [0.5f32; 18];
    let head =
        Head::CenterNet { heatmap: "h".into(), size: "w".into(), offset: Some("o".into()), logits: false };
    let last = response(&[
        ("h", &[1, 3, 3, 1], &heat),
        ("w", &[1, 3, 3, 2], &sizes),
        ("o", &[1, 3, 3, 2], &offsets),
    ]);
    let first = response(&[
        ("h", &[1, 1, 3, 3], &heat),
        ("w", &[1, 2, 3, 3], &turned),
        ("o", &[1, 2, 3, 3], &offsets),
    ]);
    for response in [last, first] {
        let found = detect(head.clone(), &["x"], &response, 30);
        assert_eq!(found, [("x".to_owned(), [10.0, 5.0, 20.0, 25.0], 0.9)]);
    }
}

// The count and the first boxes are those of the paper's SSD-300.
#[test]
fn default_boxes_of_ssd() {
    let anchors = Anchors::default();
    let maps = [38, 19, 10, 5, 3, 1];
    let all: usize = maps.iter().enumerate().map(|(map, &size)| anchors.of_map(map, size, size).len()).sum();
    assert_eq!(all, 8732);
    let first = anchors.of_map(0, 38, 38);
    assert_eq!(first[0], [4.0 / 300.0, 4.0 / 300.0, 0.07, 0.07]);
    assert!((first[2][3] - 0.07 * 2f32.sqrt()).abs() < 1e-6, "ratio 2 is wide");
    // One map, one cell; a box that is not moved lies on its default box.
    let anchors = Anchors {
        image: 10.0,
        sizes: vec![[4., 9.]],
        ratios: vec![vec![]],
        steps: vec![10.],
        ..Anchors::default()
    };
    let head = Head::Ssd { scores: vec!["p".into()], boxes: vec!["l".into()], anchors, x_first: true };
    let outputs = response(&[
        ("p", &[1, 1, 1, 2, 3], &[0.1, 0.1, 0.8, 0.9, 0.05, 0.05]),
        ("l", &[1, 1, 1, 2, 4], &[0., 0., 0., 0., 1., 1., 1., 1.]),
    ]);
    let found = detect(head, &["a", "b"], &outputs, 10);
    assert_eq!(found, [("b".to_owned(), [3.0, 3.0, 7.0, 7.0], 0.8)]);
}
