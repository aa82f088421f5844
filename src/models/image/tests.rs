use super::*;

fn info(dtype: DType, shape: &[Option<usize>], image: Option<ImageInput>) -> TensorInfo {
    TensorInfo {
        name: "x".into(),
        tensor: "x:0".into(),
        dtype: Some(dtype),
        taken: None,
        shape: Some(shape.to_vec()),
        image: image.map(std::sync::Arc::new),
    }
}

/// An uncompressed BMP of RGB pixels.
fn bmp(height: usize, width: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Bytes {
    let mut file = b"BM".to_vec();
    file.resize(54, 0);
    (file[10], file[14], file[28]) = (54, 40, 24);
    file[18..20].copy_from_slice(&(width as u16).to_le_bytes());
    file[22..24].copy_from_slice(&(height as u16).to_le_bytes());
    for y in (0..height).rev() {
        let start = file.len();
        (0..width).for_each(|x| file.extend(pixel(y, x).iter().rev()));
        file.resize(start + (width * 3).next_multiple_of(4), 0);
    }
    file.into()
}

fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_slice::<f32>().unwrap()
}

#[test]
fn undeclared_inputs_take_pixels_as_they_are() {
    let file = bmp(2, 2, |y, x| [y as u8, x as u8, 9]);
    let last = info(DType::F32, &[None, Some(2), Some(2), Some(3)], None);
    let how = image_input(&last).unwrap();
    let (tensor, placements) = images_to_tensor(&last, &how, &[file.clone(), file.clone()]).unwrap();
    assert_eq!(tensor.shape().to_vec(), [2, 2, 2, 3]);
    assert_eq!(values(&tensor)[..12], [0., 0., 9., 0., 1., 9., 1., 0., 9., 1., 1., 9.]);
    assert_eq!(placements[0].to_picture(1.5, 3.0), (1.5, 2.0));
    let first = info(DType::U8, &[Some(3), Some(2), Some(2)], None);
    let (tensor, _) = images_to_tensor(&first, &how, &[file.clone()]).unwrap();
    assert_eq!(tensor.as_slice::<u8>().unwrap(), [0, 0, 1, 1, 0, 1, 0, 1, 9, 9, 9, 9]);
    assert!(images_to_tensor(&first, &how, &[file.clone(), file]).is_err());
    for other in [info(DType::F32, &[None, Some(4)], None), info(DType::String, &[None], None)] {
        assert!(image_input(&other).is_none());
    }
    assert!(image_input(&info(DType::F32, &[None, Some(8), Some(8), Some(5)], None)).is_none());
}

#[test]
fn presets_are_the_published_formulas() {
    let file = bmp(1, 1, |_, _| [255, 128, 0]);
    let shape = [None, Some(1), Some(1), Some(3)];
    let run = |preset: &str| {
        let info = info(DType::F32, &shape, ImageInput::preset(preset));
        let (tensor, _) = images_to_tensor(&info, &image_input(&info).unwrap(), &[file.clone()]).unwrap();
        values(&tensor).to_vec()
    };
    for (preset, expected) in [
        ("imagenet", [(1.0 - 0.485) / 0.229, (128.0 / 255.0 - 0.456) / 0.224, -0.406 / 0.225]),
        ("tf", [1.0, 128.0 / 127.5 - 1.0, -1.0]),
        ("caffe", [-103.939, 128.0 - 116.779, 255.0 - 123.68]),
        ("yolo", [1.0, 128.0 / 255.0, 0.0]),
        ("ssd", [132.0, 11.0, -104.0]),
        ("fastestdet", [0.0, 128.0 / 255.0, 1.0]),
    ] {
        for (found, expected) in run(preset).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4f32, "{preset}: {found} instead of {expected}");
        }
    }
    assert!(ImageInput::preset("other").is_none());
}

#[test]
fn letterbox_and_crop_know_where_the_picture_lies() {
    let file = bmp(2, 4, |_, x| [x as u8 * 10; 3]);
    let shape = [None, Some(4), Some(4), Some(3)];
    let boxed =
        info(DType::F32, &shape, Some(ImageInput { fit: Fit::Letterbox(114), ..ImageInput::default() }));
    let (tensor, placements) =
        images_to_tensor(&boxed, &image_input(&boxed).unwrap(), &[file.clone()]).unwrap();
    let red: Vec<f32> = values(&tensor).iter().step_by(3).copied().collect();
    assert_eq!(red[..8], [114., 114., 114., 114., 0., 10., 20., 30.]);
    assert_eq!(red[12..], [114.; 4]);
    assert_eq!(placements[0].to_picture(2.0, 1.0), (1.0, 1.0));
    assert_eq!(placements[0].to_picture(0.0, 0.0), (0.0, 0.0));
    let shape = [None, Some(2), Some(2), Some(3)];
    let cropped = info(DType::F32, &shape, Some(ImageInput { fit: Fit::Crop(1.0), ..ImageInput::default() }));
    let (tensor, placements) = images_to_tensor(&cropped, &image_input(&cropped).unwrap(), &[file]).unwrap();
    assert_eq!(values(&tensor).iter().step_by(3).copied().collect::<Vec<_>>(), [10., 20., 10., 20.]);
    assert_eq!(placements[0].to_picture(0.0, 0.0), (0.0, 1.0));
}

// By hand: half-pixel centres.
#[test]
fn filters() {
    let picture = Picture { height: 1, width: 4, channels: 1, pixels: vec![0, 100, 200, 40] };
    let run =
        |count: usize, resample| resize::resize(&picture, Axis::whole(1, 1), Axis::whole(4, count), resample);
    assert_eq!(run(4, Resample::Bilinear), [0, 100, 200, 40]);
    assert_eq!(run(2, Resample::Bilinear), [50, 120]);
    assert_eq!(run(2, Resample::Area), [50, 120]);
    assert_eq!(run(1, Resample::Bilinear), [150]);
    assert_eq!(run(1, Resample::Area), [85]);
    assert_eq!(run(2, Resample::Nearest), [100, 40]);
    assert_eq!(run(8, Resample::Bilinear), [0, 25, 75, 125, 175, 160, 80, 40]);
    // Triangle of radius 2 around 1: 0.75, 0.75, 0.25 of pixels 0, 1, 2.
    assert_eq!(run(2, Resample::Antialias)[0], ((0.75 * 100.0 + 0.25 * 200.0) / 1.75f32).round() as u8);
}

#[test]
fn what_is_no_image_is_named() {
    let info = info(DType::F32, &[None, Some(2), Some(2), Some(3)], None);
    let how = ImageInput { max_pixels: 3, ..ImageInput::default() };
    for file in [Bytes::from_static(b"text"), bmp(2, 2, |_, _| [0; 3]), Bytes::new()] {
        let error = images_to_tensor(&info, &how, &[file]).unwrap_err();
        assert!(error.message.starts_with("image 0 of input x: "), "{}", error.message);
    }
}
