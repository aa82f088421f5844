//! The orientation of a photo: which way up the camera was held (EXIF, tag 0x0112).

const ORIENTATION: u16 = 0x0112;

/// The orientation that a JPEG file names, 1 to 8; 1 (upright) where it names none.
pub(super) fn of_jpeg(file: &[u8]) -> u8 {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = file.get(at..at + 4).and_then(|head| head.first_chunk()) {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let content = file.get(at + 4..at.saturating_add(2 + length)).unwrap_or_default();
        match marker {
            0xe1 if content.starts_with(b"Exif\0\0") => return of_tiff(content.get(6..).unwrap_or_default()),
            // The picture itself begins: nothing of interest follows.
            0xda | 0xd9 => return 1,
            _ => at += 2 + length,
        }
    }
    1
}

/// The orientation in a TIFF structure, as EXIF blocks are.
pub(super) fn of_tiff(block: &[u8]) -> u8 {
    find(block)
        .and_then(|value| u8::try_from(value).ok())
        .filter(|value| (1..=8).contains(value))
        .unwrap_or(1)
}

fn find(block: &[u8]) -> Option<u16> {
    let little = match block.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes: [u8; 2] = block.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let offset: [u8; 4] = block.get(4..8)?.try_into().ok()?;
    let offset = if little { u32::from_le_bytes(offset) } else { u32::from_be_bytes(offset) };
    let directory = usize::try_from(offset).ok()?;
    let entries = usize::from(u16_at(directory)?);
    (0..entries)
        .map(|entry| directory.saturating_add(2 + 12 * entry))
        .take_while(|&at| at < block.len())
        .find(|&at| u16_at(at) == Some(ORIENTATION))
        .and_then(|at| u16_at(at.checked_add(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tiff(little: bool, value: u8) -> Vec<u8> {
        match little {
            true => [&b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[value, 0, 0, 0]].concat(),
            false => [&b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"[..], &[0, value, 0, 0]].concat(),
        }
    }

    #[test]
    fn either_byte_order() {
        for value in 1..=8 {
            assert_eq!(of_tiff(&tiff(true, value)), value);
            let block = [b"Exif\0\0", &tiff(false, value)[..]].concat();
            let length = u16::try_from(block.len() + 2).unwrap().to_be_bytes();
            let file = [&[0xff, 0xd8, 0xff, 0xe0, 0, 3, 9, 0xff, 0xe1][..], &length, &block].concat();
            assert_eq!(of_jpeg(&file), value);
        }
        assert_eq!(of_tiff(&tiff(true, 9)), 1);
        assert_eq!(of_jpeg(&[0xff, 0xd8, 0xff, 0xda, 0, 2]), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_orientation(little: bool, at in 0usize..22, value: u8, rest in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut block = tiff(little, 6);
            block[at] = value;
            prop_assert!((1..=8).contains(&of_tiff(&block)));
            prop_assert!((1..=8).contains(&of_jpeg(&[&[0xff, 0xd8, 0xff, 0xe1][..], &rest].concat())));
        }
    }
}
