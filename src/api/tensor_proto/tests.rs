use super::*;
use crate::{
    proto::tensorflow::{DataType, TensorProto, TensorShapeProto, tensor_shape_proto::Dim},
    tensor::{Bytes, DType, Tensor},
};
use bytes::BytesMut;
use half::{bf16, f16};
use proptest::prelude::*;
use prost::Message;

fn shape(dims: &[i64]) -> Option<TensorShapeProto> {
    let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
    Some(TensorShapeProto { dim, unknown_rank: false })
}

fn proto(dtype: DataType, dims: &[i64]) -> TensorProto {
    TensorProto { dtype: dtype as i32, tensor_shape: shape(dims), ..TensorProto::default() }
}

fn read(proto: &TensorProto) -> Result<Tensor, DecodeError> {
    decode(&proto.encode_to_vec().into(), &mut Budget::new(1 << 20))
}

fn write(tensor: &Tensor, form: Form) -> Bytes {
    let writer = TensorWriter::new(tensor, form);
    let mut out = BytesMut::new();
    writer.write(&mut out);
    assert_eq!(out.len(), writer.len());
    out.freeze()
}

fn floats(tensor: &Tensor) -> &[f32] {
    tensor.as_slice().unwrap()
}

#[test]
fn lists_are_filled_up_with_their_last_value() {
    let list = |values: &[f32], dims: &[i64]| {
        read(&TensorProto { float_val: values.to_vec(), ..proto(DataType::DtFloat, dims) }).unwrap()
    };
    assert_eq!(floats(&list(&[1.0, 2.0, 3.0], &[3])), [1.0, 2.0, 3.0]);
    assert_eq!(floats(&list(&[1.0, 2.0], &[2, 2])), [1.0, 2.0, 2.0, 2.0]);
    assert_eq!(floats(&list(&[], &[2])), [0.0, 0.0]);
    assert_eq!(floats(&list(&[1.0, 2.0, 3.0], &[2])), [1.0, 2.0]);
    assert_eq!(*list(&[1.0], &[3, 0]).shape(), [3, 0].into());
}

#[test]
fn the_list_of_another_type_counts_as_none() {
    let wrong = TensorProto { double_val: vec![1.0], int_val: vec![7], ..proto(DataType::DtFloat, &[2]) };
    assert_eq!(floats(&read(&wrong).unwrap()), [0.0, 0.0]);
}

#[test]
fn content_wins_and_must_fit() {
    let content = |bytes: &'static [u8], dims: &[i64]| TensorProto {
        tensor_content: Bytes::from_static(bytes),
        float_val: vec![9.0],
        ..proto(DataType::DtFloat, dims)
    };
    assert_eq!(floats(&read(&content(&[0, 0, 0x80, 0x3f], &[1])).unwrap()), [1.0]);
    assert_eq!(read(&content(&[0; 3], &[1])), Err(DecodeError::Content));
    assert_eq!(read(&content(&[0; 8], &[1])), Err(DecodeError::Content));
    // TensorFlow does not look at the content of a tensor without elements.
    assert!(read(&content(&[1], &[0])).is_ok());
}

#[test]
fn content_is_shared_when_aligned() {
    let tensor = Tensor::from_slice([64], &[1.5f32; 64]).unwrap();
    let message = write(&tensor, Form::Content);
    let start = message.len() - 256;
    // Room to move the message so that the content is aligned.
    let mut backing = vec![0u8; 16 + message.len()];
    let offset = backing[start..].as_ptr().align_offset(4);
    backing[offset..offset + message.len()].copy_from_slice(&message);
    let moved = Bytes::from(backing).slice(offset..offset + message.len());
    let decoded = decode(&moved, &mut Budget::new(0)).unwrap();
    assert_eq!(decoded, tensor);
    assert_eq!(decoded.as_bytes().as_ptr(), moved[start..].as_ptr());
    let list = write(&tensor, Form::Lists);
    assert_eq!(decode(&list, &mut Budget::new(0)).unwrap(), tensor, "a whole packed list costs nothing");
}

#[test]
fn strings_come_as_list_and_as_content() {
    let strings = |proto: TensorProto| read(&proto).map(|tensor| tensor.as_strings().unwrap().to_vec());
    let list = TensorProto { string_val: vec!["a".into(), "bc".into()], ..proto(DataType::DtString, &[3]) };
    assert_eq!(strings(list).unwrap(), ["a", "bc", "bc"]);
    assert_eq!(strings(proto(DataType::DtString, &[2])).unwrap(), ["", ""]);
    let content = |bytes: &'static [u8]| TensorProto {
        tensor_content: Bytes::from_static(bytes),
        ..proto(DataType::DtString, &[2])
    };
    assert_eq!(strings(content(b"\x01\x02abc")).unwrap(), ["a", "bc"]);
    for wrong in [&b"\x01\x02ab"[..], b"\x01\x02abcd", b"\x01", b"\x80\x80", b"\xff\xff\xff\xff\x0f\x00a"] {
        assert_eq!(strings(content(wrong)), Err(DecodeError::Content), "{wrong:?}");
    }
}

#[test]
fn sixteen_bit_floats_are_patterns() {
    let half = TensorProto { half_val: vec![0x3e00, 0xc000], ..proto(DataType::DtHalf, &[2]) };
    assert_eq!(read(&half).unwrap().as_slice::<f16>().unwrap(), [1.5, -2.0].map(f16::from_f32));
    let brain = TensorProto { half_val: vec![0x3fc0], ..proto(DataType::DtBfloat16, &[1]) };
    assert_eq!(read(&brain).unwrap().as_slice::<bf16>().unwrap(), [bf16::from_f32(1.5)]);
}

#[test]
fn narrow_integers_wrap() {
    let wide = |dtype| TensorProto { int_val: vec![300, -1], ..proto(dtype, &[2]) };
    assert_eq!(read(&wide(DataType::DtInt8)).unwrap().as_slice::<i8>().unwrap(), [44, -1]);
    assert_eq!(read(&wide(DataType::DtUint8)).unwrap().as_slice::<u8>().unwrap(), [44, 255]);
    assert_eq!(read(&wide(DataType::DtUint16)).unwrap().as_slice::<u16>().unwrap(), [300, 65535]);
}

#[test]
fn complex_values_come_in_pairs() {
    let odd = TensorProto { scomplex_val: vec![1.0, 2.0, 3.0], ..proto(DataType::DtComplex64, &[2]) };
    assert_eq!(read(&odd).unwrap().as_slice::<[f32; 2]>().unwrap(), [[1.0, 2.0], [1.0, 2.0]]);
}

#[test]
fn shapes_are_checked() {
    let error = |dims: &[i64]| read(&proto(DataType::DtFloat, dims)).unwrap_err();
    assert_eq!(error(&[-1]), DecodeError::Shape);
    assert_eq!(error(&[i64::MIN, 0]), DecodeError::Shape);
    assert_eq!(error(&[i64::MAX, 2]), DecodeError::Shape);
    assert_eq!(error(&[1; 255]), DecodeError::Shape);
    assert!(read(&proto(DataType::DtFloat, &[1; 254])).is_ok());
    let unknown = TensorProto {
        tensor_shape: Some(TensorShapeProto { dim: Vec::new(), unknown_rank: true }),
        float_val: vec![2.0],
        ..proto(DataType::DtFloat, &[])
    };
    assert_eq!(read(&unknown).unwrap(), Tensor::scalar(2.0f32));
    let unset = TensorProto { tensor_shape: None, ..unknown };
    assert_eq!(read(&unset).unwrap(), Tensor::scalar(2.0f32));
}

#[test]
fn types_are_checked() {
    // Invalid, quantised, resource, a number that means nothing, a reference to float.
    for dtype in [0, 11, 20, 99, 101] {
        let message = TensorProto { dtype, ..TensorProto::default() };
        assert_eq!(read(&message), Err(DecodeError::DType(dtype)));
    }
}

#[test]
fn a_claim_beyond_the_budget_is_refused() {
    for dtype in [DataType::DtFloat, DataType::DtString, DataType::DtComplex128] {
        let claim = proto(dtype, &[1 << 40]);
        assert_eq!(read(&claim), Err(DecodeError::TooLarge { limit: 1 << 20 }), "{dtype:?}");
    }
    let half = TensorProto { float_val: vec![1.0], ..proto(DataType::DtFloat, &[150_000]) };
    let mut budget = Budget::new(1 << 20);
    assert!(decode(&half.encode_to_vec().into(), &mut budget).is_ok());
    assert!(decode(&half.encode_to_vec().into(), &mut budget).is_err(), "the second takes the rest");
}

/// What the generated code reads back from what we write.
#[test]
fn writes_what_the_generated_code_reads() {
    let back = |tensor: &Tensor| TensorProto::decode(write(tensor, Form::Lists)).unwrap();
    let wide = Tensor::from_slice([2, 1], &[-1i32, 300]).unwrap();
    let expected = TensorProto { int_val: vec![-1, 300], ..proto(DataType::DtInt32, &[2, 1]) };
    assert_eq!(back(&wide), expected);
    let scalar = back(&Tensor::scalar(2.5f64));
    assert_eq!(scalar, TensorProto { double_val: vec![2.5], ..proto(DataType::DtDouble, &[]) });
    let empty = back(&Tensor::empty(DType::I64));
    assert_eq!(empty, proto(DataType::DtInt64, &[0]));
    let bools = back(&Tensor::from_slice([3], &[true, false, true]).unwrap());
    assert_eq!(bools.bool_val, [true, false, true]);
    let halves = back(&Tensor::from_slice([2], &[f16::from_f32(1.5), f16::from_f32(-2.0)]).unwrap());
    assert_eq!(halves.half_val, [0x3e00, 0xc000]);
    let strings = Tensor::from_strings([2], vec!["".into(), "xyz".into()]).unwrap();
    assert_eq!(back(&strings).string_val, ["", "xyz"]);
    let content = TensorProto::decode(write(&strings, Form::Content)).unwrap();
    assert_eq!(content.tensor_content, "\x00\x03xyz");
    let unsigned = Tensor::from_slice([1], &[u64::MAX]).unwrap();
    assert_eq!(back(&unsigned).uint64_val, [u64::MAX]);
}

/// TensorFlow's parser in the plainest words, on the generated message.
fn naive(proto: &TensorProto, elements: usize) -> Vec<f32> {
    (0..elements)
        .map(|position| {
            let values = &proto.float_val;
            values.get(position).or(values.last()).copied().unwrap_or(0.0)
        })
        .collect()
}

proptest! {
    #[test]
    fn float_lists_agree_with_the_naive_parser(
        values in prop::collection::vec(any::<f32>(), 0..20),
        dims in prop::collection::vec(0i64..4, 0..4),
    ) {
        let message = TensorProto { float_val: values, ..proto(DataType::DtFloat, &dims) };
        let tensor = read(&message).unwrap();
        let expected = naive(&message, dims.iter().product::<i64>() as usize);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(floats(&tensor)), bits(&expected));
        prop_assert_eq!(tensor.shape().to_i64(), dims);
    }

    #[test]
    fn what_is_written_is_read_back(
        values in prop::collection::vec(any::<i64>(), 1..20),
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..9),
    ) {
        let count = values.len();
        let narrow: Vec<i16> = values.iter().map(|&value| value as i16).collect();
        let doubles: Vec<f64> = values.iter().map(|&value| f64::from_bits(value as u64)).collect();
        let tensors = [
            Tensor::from_slice([count, 1], &values).unwrap(),
            Tensor::from_slice([1, count], &narrow).unwrap(),
            Tensor::from_slice([count], &doubles).unwrap(),
            Tensor::from_strings([strings.len()], strings.into_iter().map(Bytes::from).collect()).unwrap(),
        ];
        for tensor in &tensors {
            for form in [Form::Lists, Form::Content] {
                let back = decode(&write(tensor, form), &mut Budget::new(1 << 20)).unwrap();
                prop_assert_eq!(&back, tensor);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&bytes.into(), &mut Budget::new(1 << 16));
    }
}
