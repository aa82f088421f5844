//! Bytes that are computed when they are first looked at, and what is known of where they come from: who can use
//! elements as they are stored need not wait for them, nor hold them twice.

#![forbid(unsafe_code)]

use super::{
    Shape,
    buffer::{ALIGNMENT, Buffer, Owner},
};
use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

type Make = dyn Fn() -> Option<Buffer> + Send + Sync;

/// Bytes that are computed when they are first looked at.
pub(super) struct Computed {
    make: Arc<Make>,
    made: OnceLock<Option<Buffer>>,
    origin: Origin,
}

/// Where computed bytes are stored in another form.
#[derive(Clone)]
enum Origin {
    Unknown,
    /// The same bytes, at an address that does not fit their type.
    Misplaced(Buffer),
    Reordered(Arc<Reordered>),
    Panels(Arc<Panels>),
}

impl Origin {
    fn stored(&self) -> Option<&Buffer> {
        match self {
            Self::Unknown => None,
            Self::Misplaced(stored) => Some(stored),
            Self::Reordered(reordered) => Some(&reordered.stored),
            Self::Panels(panels) => Some(&panels.stored),
        }
    }
}

/// Elements as they are stored, for bytes that have them in another order.
pub struct Reordered {
    /// The elements, at any address.
    pub stored: Buffer,
    /// Their shape.
    pub shape: Shape,
    /// Which of its axes are those of the bytes.
    pub axes: Vec<usize>,
}

/// A matrix of floats as matrix products read it: its columns are cut into panels, which are stored one after the other.
pub struct Panels {
    /// The panels, with zeros where a vector is not full.
    pub stored: Buffer,
    /// Rows of the matrix.
    pub k: usize,
    /// Columns of the matrix.
    pub n: usize,
    /// Floats of a vector.
    pub lanes: usize,
    /// Vectors of a row of the widest panel.
    pub vectors: usize,
    /// The elements of this buffer are those of the transposed matrix: columns are contiguous.
    pub transposed: bool,
}

impl Owner for Computed {
    fn bytes(&self) -> &[u8] {
        self.made.get_or_init(|| (self.make)()).as_ref().map_or(&[][..], Buffer::as_bytes)
    }
}

impl Buffer {
    /// `len` bytes that `make` gives when they are first looked at. What it cannot give, or gives in another length,
    /// is seen as no bytes.
    pub fn computed(len: usize, make: impl Fn() -> Option<Buffer> + Send + Sync + 'static) -> Self {
        let make = move || make().filter(|made| made.len() == len);
        Self::of_origin(len, make, Origin::Unknown)
    }

    /// The same for elements in another order than they are stored in.
    pub fn reordered(
        reordered: Reordered,
        make: impl Fn() -> Option<Buffer> + Send + Sync + 'static,
    ) -> Self {
        let len = reordered.stored.len;
        let make = move || make().filter(|made| made.len() == len);
        Self::of_origin(len, make, Origin::Reordered(Arc::new(reordered)))
    }

    /// The same for floats that are stored in panels. Nothing comes of a matrix that is larger than memory.
    pub fn panelled(
        panels: Panels,
        make: impl Fn(&Panels) -> Option<Buffer> + Send + Sync + 'static,
    ) -> Option<Self> {
        let len = panels.k.checked_mul(panels.n)?.checked_mul(size_of::<f32>())?;
        let panels = Arc::new(panels);
        let own = panels.clone();
        let make = move || make(&own).filter(|made| made.len() == len);
        Some(Self::of_origin(len, make, Origin::Panels(panels)))
    }

    fn of_origin(
        len: usize,
        make: impl Fn() -> Option<Buffer> + Send + Sync + 'static,
        origin: Origin,
    ) -> Self {
        let owner = Computed { make: Arc::new(make), made: OnceLock::new(), origin };
        Self { owner: Arc::new(owner), offset: 0, len }
    }

    /// These bytes of a mapped file, copied into aligned memory when they are first looked at as numbers; their pages of
    /// the file are then let go.
    pub fn aligned_when_read(self) -> Self {
        let (len, origin) = (self.len, Origin::Misplaced(self.clone()));
        let make = move || {
            let copy = Self::copy_of(self.as_bytes()).ok();
            self.release();
            copy
        };
        Self::of_origin(len, make, origin)
    }

    fn as_computed(&self) -> Option<&Computed> {
        let owner: &dyn Any = &*self.owner;
        owner.downcast_ref()
    }

    /// True for bytes that are computed when they are looked at.
    pub fn is_computed(&self) -> bool {
        self.as_computed().is_some()
    }

    /// True where [`Buffer::stored_bytes`] are in a mapped file.
    pub fn is_stored_in_file(&self) -> bool {
        let misplaced = |computed: &Computed| matches!(computed.origin, Origin::Misplaced(_));
        self.is_mapped() || self.as_computed().is_some_and(misplaced)
    }

    /// True where the elements are read of a mapped file, in whatever form they have there.
    pub fn is_of_file(&self) -> bool {
        let stored = self.as_computed().and_then(|computed| computed.origin.stored());
        self.is_mapped() || stored.is_some_and(Self::is_of_file)
    }

    /// True where the elements need not be computed to be read: they are in memory or in a mapped file, at whatever address
    /// and in whatever order.
    pub fn is_stored(&self) -> bool {
        let in_order = |origin: &Origin| matches!(origin, Origin::Misplaced(_) | Origin::Reordered(_));
        self.as_computed().is_none_or(|computed| in_order(&computed.origin))
    }

    /// The elements as they are stored, for bytes that have them in another order and were not computed yet.
    pub fn as_reordered(&self) -> Option<&Reordered> {
        let computed = self.as_computed().filter(|computed| computed.made.get().is_none())?;
        match &computed.origin {
            Origin::Reordered(reordered) if self.len == reordered.stored.len => Some(reordered),
            _ => None,
        }
    }

    /// The panels that all of these floats are stored in, if they were not computed yet.
    pub fn as_panels(&self) -> Option<&Panels> {
        let computed = self.as_computed().filter(|computed| computed.made.get().is_none())?;
        match &computed.origin {
            Origin::Panels(panels) if self.len == panels.k * panels.n * size_of::<f32>() => Some(panels),
            _ => None,
        }
    }

    /// The bytes, at whatever address they are: those of a mapped file are not copied for the sake of alignment.
    pub fn stored_bytes(&self) -> &[u8] {
        match self.as_computed() {
            Some(Computed { made, origin: Origin::Misplaced(stored), .. }) if made.get().is_none() => {
                stored.as_bytes().get(self.offset..self.offset + self.len).unwrap_or_default()
            }
            _ => self.as_bytes(),
        }
    }

    /// The same bytes. Where they are computed, this one computes them again when it is looked at: what is looked at
    /// once does not stay in memory for as long as the original.
    pub fn fresh(&self) -> Self {
        match self.as_computed() {
            None => self.clone(),
            Some(computed) => {
                let (make, origin) = (computed.make.clone(), computed.origin.clone());
                let owner = Computed { make, made: OnceLock::new(), origin };
                Self { owner: Arc::new(owner), offset: self.offset, len: self.len }
            }
        }
    }

    /// Lets the pages of a mapped file go, also of one whose elements this buffer has in another form; they are read again
    /// when they are looked at again. Nothing happens to other memory.
    pub fn release(&self) {
        match self.as_computed().map(|computed| &computed.origin) {
            None => self.release_pages(),
            Some(Origin::Unknown) => {}
            Some(Origin::Misplaced(stored)) => {
                if let Some(part) = stored.slice(self.offset, self.len) {
                    part.release();
                }
            }
            Some(Origin::Reordered(reordered)) => reordered.stored.release(),
            Some(Origin::Panels(panels)) => panels.stored.release(),
        }
    }

    /// Where the bytes stand, the same for buffers that share them; nothing is computed for it.
    pub fn address(&self) -> usize {
        match self.as_computed() {
            Some(computed) => Arc::as_ptr(&computed.make).addr().wrapping_add(self.offset),
            None => self.as_bytes().as_ptr().addr(),
        }
    }

    /// True when the address is a multiple of `alignment`.
    pub fn is_aligned_to(&self, alignment: usize) -> bool {
        match self.as_computed() {
            Some(_) => ALIGNMENT.is_multiple_of(alignment) && self.offset.is_multiple_of(alignment),
            None => self.as_bytes().as_ptr().addr().is_multiple_of(alignment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_bytes_are_made_when_looked_at_and_again_by_a_fresh_buffer() {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = calls.clone();
        let buffer = Buffer::computed(128, move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Buffer::copy_of(&[7; 128]).ok()
        });
        let count = || calls.load(std::sync::atomic::Ordering::Relaxed);
        let part = buffer.slice(64, 64).unwrap();
        assert!(part.is_aligned_to(64) && part.address() != buffer.address() && buffer.len() == 128);
        assert_eq!(count(), 0);
        assert_eq!((part.as_bytes(), buffer.as_bytes().len()), (&[7; 64][..], 128));
        assert_eq!(count(), 1, "shared by all parts");
        let fresh = part.fresh();
        assert_eq!(fresh.address(), part.address());
        assert_eq!(fresh.as_bytes(), part.as_bytes());
        assert_eq!(count(), 2);
        let failing = Buffer::computed(8, || Buffer::copy_of(&[1]).ok());
        assert!(failing.as_bytes().is_empty() && failing.as_slice::<f32>().is_none_or(<[f32]>::is_empty));
    }

    #[test]
    fn bytes_of_a_file_are_read_in_place_until_they_are_needed_aligned() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7, 0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
        let buffer = Buffer::map_file(file.path()).unwrap().slice(1, 8).unwrap().aligned_when_read();
        let part = buffer.slice(4, 4).unwrap();
        assert!(buffer.is_stored_in_file() && buffer.is_computed() && !buffer.is_mapped());
        assert_eq!((buffer.stored_bytes()[2], part.stored_bytes()), (128, &[0, 0, 0, 64][..]));
        assert!(buffer.as_computed().unwrap().made.get().is_none(), "nothing was copied");
        assert_eq!(buffer.as_slice::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(part.stored_bytes().as_ptr(), part.as_bytes().as_ptr());
        assert!(buffer.fresh().is_stored_in_file() && !Buffer::from_static(&[1]).is_stored_in_file());
    }

    #[test]
    fn elements_in_another_order_are_read_as_they_are_stored_until_they_are_computed() {
        let stored = Buffer::copy_of(&[1, 2, 3, 4, 5, 6]).unwrap();
        let turned = Reordered { stored, shape: Shape::from([2, 3]), axes: vec![1, 0] };
        let buffer = Buffer::reordered(turned, || Buffer::copy_of(&[1, 4, 2, 5, 3, 6]).ok());
        let fresh = buffer.fresh();
        assert!(buffer.is_computed() && buffer.is_stored() && !buffer.is_stored_in_file());
        assert_eq!(buffer.as_reordered().unwrap().stored.as_bytes(), [1, 2, 3, 4, 5, 6]);
        assert!(buffer.slice(0, 2).unwrap().as_reordered().is_none(), "a part has no order");
        assert_eq!(buffer.stored_bytes(), [1, 4, 2, 5, 3, 6]);
        assert!(buffer.as_reordered().is_none() && fresh.as_reordered().is_some());
        assert!(!Buffer::computed(1, || None).is_stored());
    }
}
