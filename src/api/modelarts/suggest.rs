//! Reads a customize_service.py as text and says which kinglet.toml does the same.
//!
//! Python is not run, and not really parsed: the few ways in which such files open, resize and scale an image and pick a
//! label are looked for. What is not found is left out, and the result is a suggestion for a person to check.

use regex::Regex;
use std::fmt::Write;

/// What is read of a file.
const MAX_TEXT: usize = 1 << 20;

/// The kinglet.toml that does what the Python text seems to do; `input` is the name of the model's input, if it has one for
/// images.
pub fn suggest(python: &str, input: Option<&str>) -> String {
    let end = python.floor_char_boundary(MAX_TEXT);
    let code = without_comments(python.get(..end).unwrap_or_default());
    let mut text = String::from("# Suggested by customize_service.py; check it against the code.\n");
    let named = first(&code, r#"(?:preprocessed_data|result|data)\s*\[\s*['"]([A-Za-z_]\w*)['"]\s*\]\s*="#);
    let is_image = code.contains("Image.open")
        || code.contains("cv2.")
        || code.contains("imread")
        || code.contains("imdecode");
    if is_image {
        let name = input.map(str::to_owned).or(named).unwrap_or_else(|| "images".to_owned());
        let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let name = if bare { name } else { format!("{name:?}") };
        line(&mut text, format_args!("[input.{name}]"));
        image(&code, &mut text);
    } else if code.contains("req_data") {
        table(&code, &mut text);
    }
    if code.contains("argmax")
        || code.contains("predicted_label")
        || code.contains("top_k")
        || code.contains("argsort")
    {
        output(&code, &mut text);
    } else if code.contains("detection_boxes") || code.contains("nms") || code.contains("non_max_suppression")
    {
        line(
            &mut text,
            format_args!(
                "\n[output]\nkind = \"detection\"\nhead = \"decoded\"  # or yolo, ssd, centernet, fastestdet"
            ),
        );
        line(&mut text, format_args!("labels = \"labels.txt\""));
        if let Some(score) = first(&code, r"(?i)(?:score|conf)\w*\s*(?:=|>|>=)\s*(0?\.\d+)") {
            line(&mut text, format_args!("score_threshold = {}", decimal(&score)));
        }
        if let Some(overlap) = first(&code, r"(?i)(?:iou|nms)\w*\s*=\s*(0?\.\d+)") {
            line(&mut text, format_args!("iou_threshold = {}", decimal(&overlap)));
        }
    }
    if text.lines().count() == 1 {
        text.push_str("# Nothing was recognised: the tensors are answered as they are.\n");
    }
    text
}

fn image(code: &str, text: &mut String) {
    // PIL and OpenCV say width first; a size in one number is both.
    let numbers = r"\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)";
    let resize = Regex::new(&format!(r"resize\s*\((?:[^()\n]*,)?\s*\[?{numbers}")).ok();
    let found =
        resize.and_then(|regex| regex.captures(code).map(|found| (found[1].to_owned(), found[2].to_owned())));
    if let Some((width, height)) = found {
        line(text, format_args!("size = [{height}, {width}]  # height, width"));
    }
    if code.contains("cv2.") && !code.contains("COLOR_BGR2RGB") && !code.contains("Image.open") {
        line(text, format_args!("channels = \"bgr\""));
    } else if code.contains("convert('L')")
        || code.contains("convert(\"L\")")
        || code.contains("COLOR_BGR2GRAY")
    {
        line(text, format_args!("channels = \"gray\""));
    }
    let pillow = code.contains("Image.open") && code.contains("resize") && !code.contains("cv2.resize");
    if code.contains("ANTIALIAS") || code.contains("LANCZOS") || code.contains("BICUBIC") {
        line(text, format_args!("resample = \"bicubic\""));
    } else if code.contains("NEAREST") {
        line(text, format_args!("resample = \"nearest\""));
    } else if code.contains("INTER_AREA") {
        line(text, format_args!("resample = \"area\""));
    } else if pillow && code.contains("BILINEAR") {
        line(text, format_args!("resample = \"antialias\"  # what Pillow calls BILINEAR"));
    } else if pillow {
        line(text, format_args!("resample = \"bicubic\"  # what Pillow does where nothing is said"));
    }
    if found_in(code, r"transpose\s*\(\s*(?:\w+\s*,\s*)?[\[(]?\s*2\s*,\s*0\s*,\s*1") {
        line(text, format_args!("layout = \"nchw\""));
    }
    let list = r"\s*=\s*(?:np\.array\s*\(\s*)?[\[(]\s*(-?[\d.]+\s*,\s*-?[\d.]+\s*,\s*-?[\d.]+)\s*[\])]";
    let (mean, std) = (first(code, &format!("(?i)mean{list}")), first(code, &format!("(?i)std{list}")));
    if found_in(code, r"/\s*127\.5\s*\)?\s*-\s*1") || found_in(code, r"-\s*127\.5\s*\)?\s*/\s*127\.5") {
        line(text, format_args!("preset = \"tf\"  # from -1 to 1"));
    } else if found_in(code, r"/=?\s*255|\*=?\s*\(?\s*1\.?0?\s*/\s*255") {
        line(text, format_args!("scale = 0.00392156862745098  # 1 / 255"));
    }
    for (key, values) in [("mean", mean), ("std", std)] {
        if let Some(values) = values {
            let values: Vec<String> = values.split(',').map(|value| decimal(value.trim())).collect();
            line(text, format_args!("{key} = [{}]", values.join(", ")));
        }
    }
}

fn table(code: &str, text: &mut String) {
    let Ok(regex) = Regex::new(r#"\w+\s*\[\s*['"](\w+)['"]\s*\]"#) else { return };
    let mut columns: Vec<&str> = Vec::new();
    for found in regex.captures_iter(code).filter_map(|found| found.get(1)) {
        let name = found.as_str();
        if !columns.contains(&name)
            && !matches!(name, "data" | "req_data" | "resp_data" | "meta" | "uuid" | "images")
        {
            columns.push(name);
        }
    }
    line(text, format_args!("[table]"));
    if columns.is_empty() {
        line(text, format_args!("columns = []  # the keys of a row, in the order of the model's columns"));
    } else {
        let columns: Vec<String> = columns.iter().take(256).map(|name| format!("\"{name}\"")).collect();
        line(
            text,
            format_args!("columns = [{}]  # only where the model takes one matrix", columns.join(", ")),
        );
    }
}

fn output(code: &str, text: &mut String) {
    line(text, format_args!("\n[output]\nkind = \"classification\""));
    let quoted = r#"\[\s*((?:['"][^'"\n]*['"]\s*,?\s*)+)\]"#;
    match first(code, &format!(r"(?i)(?:label|class|categor)\w*\s*=\s*{quoted}")) {
        Some(list) => {
            let names: Vec<String> = list
                .split(',')
                .map(|name| name.trim().trim_matches(['\'', '"']))
                .filter(|name| !name.is_empty())
                .map(|name| format!("{name:?}"))
                .collect();
            line(text, format_args!("labels = [{}]", names.join(", ")));
        }
        None => line(text, format_args!("labels = \"labels.txt\"  # one name per line, beside this file")),
    }
    if code.contains("softmax") {
        line(text, format_args!("activation = \"softmax\""));
    } else if code.contains("sigmoid") {
        line(text, format_args!("activation = \"sigmoid\""));
    }
    if let Some(top) = first(code, r"(?:top_?k?\s*=\s*|\[\s*:\s*|\[\s*-\s*)(\d{1,3})\b") {
        line(text, format_args!("top = {top}"));
    }
}

/// The text without what follows a `#`; strings with one are cut, which does no harm here.
fn without_comments(python: &str) -> String {
    let mut code = String::with_capacity(python.len());
    for text in python.lines() {
        code.push_str(text.split('#').next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// `.5` and `1.` as TOML writes them.
fn decimal(number: &str) -> String {
    let number = number.trim();
    match (number.strip_prefix('.'), number.strip_suffix('.')) {
        (Some(rest), _) => format!("0.{rest}"),
        (None, Some(rest)) => format!("{rest}.0"),
        _ => number.to_owned(),
    }
}

fn first(code: &str, pattern: &str) -> Option<String> {
    Regex::new(pattern).ok()?.captures(code)?.get(1).map(|found| found.as_str().trim().to_owned())
}

fn found_in(code: &str, pattern: &str) -> bool {
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(code))
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Written after the shape of the published samples.
    const IMAGES: &str = r#"
class mnist_service(TfServingBaseService):
    def _preprocess(self, data):
        preprocessed_data = {}
        for k, v in data.items():
            for file_name, file_content in v.items():
                image1 = Image.open(file_content)  # PIL
                image1 = image1.resize((224, 160), Image.BILINEAR)
                image1 = np.array(image1, dtype=np.float32) / 255.
                mean = np.array([0.485, .456, 0.406])
                std = [0.229, 0.224, 0.225]
                image1 = (image1 - mean) / std
                preprocessed_data[k] = image1.transpose((2, 0, 1))
        return preprocessed_data
    def _postprocess(self, data):
        labels = ['cat', 'dog']
        index = np.argmax(softmax(data['scores'][0]))
        return {'predicted_label': labels[index]}
"#;

    #[test]
    fn an_image_classifier() {
        assert_eq!(
            suggest(IMAGES, Some("images")),
            "# Suggested by customize_service.py; check it against the code.
[input.images]
size = [160, 224]  # height, width
resample = \"antialias\"  # what Pillow calls BILINEAR
layout = \"nchw\"
scale = 0.00392156862745098  # 1 / 255
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[output]
kind = \"classification\"
labels = [\"cat\", \"dog\"]
activation = \"softmax\"
"
        );
    }

    #[test]
    fn a_table_and_a_detector() {
        let table =
            "for item in data['data']['req_data']:\n  row = [float(item['attr_a']), float(item['attr_b'])]\n";
        assert!(suggest(table, None).contains("columns = [\"attr_a\", \"attr_b\"]"));
        let detector = "img = cv2.imdecode(x, 1)\nimg = cv2.resize(img, (352, 352)) / 255.0\nboxes = nms(out, iou_thresh=.45)\n";
        assert!(suggest(detector, Some("input.1")).contains("[input.\"input.1\"]"));
        let text = suggest(detector, None);
        for part in
            ["channels = \"bgr\"", "size = [352, 352]", "kind = \"detection\"", "iou_threshold = 0.45"]
        {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(suggest("print(1)", None).contains("Nothing was recognised"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn what_is_suggested_is_text(at in 0..IMAGES.len(), rest in "[ -~]{0,20}") {
            let mut text = IMAGES.as_bytes().to_vec();
            text.splice(at..(at + rest.len()).min(IMAGES.len()), rest.bytes());
            prop_assert!(!suggest(&String::from_utf8_lossy(&text), Some("images")).is_empty());
        }
    }

    #[test]
    fn the_suggestion_is_toml() {
        assert!(suggest(IMAGES, None).parse::<toml::Table>().is_ok());
    }
}
