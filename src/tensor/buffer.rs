//! Memory of tensors: shared and immutable once made, 64-byte aligned when made here.
//!
//! The only module outside the kernels that may use `unsafe`: it turns bytes into typed slices,
//! maps files, and hands out disjoint parts of an arena. Everything above works on slices.

use super::TensorError;
use bytes::Bytes;
use half::{bf16, f16};
use memmap2::{Mmap, MmapMut};
use std::{any::Any, cell::RefCell, fmt, fs::File, marker::PhantomData, path::Path, sync::Arc};

/// Blocks from this size on are pages of their own, which go back to the system when they are freed.
pub const OWN_PAGES: usize = 1 << 20;

/// What large pages hold on most systems.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

/// Alignment of memory made here: one cache line, one AVX-512 vector.
pub const ALIGNMENT: usize = 64;

/// Types without padding, pointers or drop glue, whose values may be viewed as bytes.
///
/// # Safety
/// The type has no padding, and every initialised byte pattern of its size is a valid value unless
/// `ANY_PATTERN` is false.
pub unsafe trait Plain: Copy {
    /// False for `bool`, which is never viewed in memory that was not written as `bool`: steps
    /// read and write it as `u8`, and [`crate::tensor::Tensor::from_buffer`] checks foreign bytes.
    const ANY_PATTERN: bool = true;
}

macro_rules! plain {
    ($($t:ty),*) => { $(
        // SAFETY: a number, or two of them side by side: no padding, no invalid pattern.
        unsafe impl Plain for $t {}
    )* };
}
plain!(u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64, [f32; 2], [f64; 2]);

// SAFETY: no padding, and the constant says that not every pattern is valid.
unsafe impl Plain for bool {
    const ANY_PATTERN: bool = false;
}

/// The bytes of a typed slice.
pub fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, so all `size_of_val` bytes are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// A typed view of bytes; `None` when the length is no multiple of the element, the address is not
/// aligned to it, or the type has invalid patterns.
pub fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    let fits = T::ANY_PATTERN
        && bytes.len().is_multiple_of(size_of::<T>())
        && bytes.as_ptr().cast::<T>().is_aligned();
    // SAFETY: length and alignment were just checked, every pattern is valid (`Plain`), and the
    // lifetime is that of the borrowed bytes.
    fits.then(|| unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) })
}

fn view_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    let fits = T::ANY_PATTERN
        && bytes.len().is_multiple_of(size_of::<T>())
        && bytes.as_ptr().cast::<T>().is_aligned();
    // SAFETY: as in `view`; the borrow is exclusive, and `Plain` types leave no invalid bytes behind.
    fits.then(|| unsafe {
        std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>())
    })
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// Owned, zero-initialised, 64-byte aligned bytes.
pub struct AlignedBytes {
    memory: Memory,
    len: usize,
}

enum Memory {
    /// From the allocator.
    Lines(Vec<Line>),
    /// Pages of their own, which are zero as the system gives them and go back to it when they are dropped, and how much of
    /// them is asked for.
    Pages(MmapMut, usize),
}

impl Memory {
    fn zeroed(len: usize) -> Result<Self, TensorError> {
        if len >= OWN_PAGES {
            return Self::pages(len, 0);
        }
        let count = len.div_ceil(ALIGNMENT);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|_| TensorError::OutOfMemory { bytes: len })?;
        lines.resize(count, Line([0; ALIGNMENT]));
        Ok(Self::Lines(lines))
    }

    /// Pages of their own, large ones from `large_from` on: a page fault costs more than what is computed in a small page.
    /// A hint: not every system has them.
    fn pages(len: usize, large_from: usize) -> Result<Self, TensorError> {
        // Systems place what is large pages as a whole where such a page begins. What is too much is never touched.
        let mapped = if len < LARGE_PAGE { Some(len) } else { len.checked_next_multiple_of(LARGE_PAGE) };
        let pages = mapped.and_then(|mapped| MmapMut::map_anon(mapped).ok());
        let pages = pages.ok_or(TensorError::OutOfMemory { bytes: len })?;
        #[cfg(target_os = "linux")]
        {
            // The last one would be larger than what is left for it.
            let large = (len / LARGE_PAGE * LARGE_PAGE).saturating_sub(large_from);
            if large >= LARGE_PAGE {
                let _ = pages.advise_range(memmap2::Advice::HugePage, large_from, large);
            }
        }
        Ok(Self::Pages(pages, len))
    }

    fn room(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len() * ALIGNMENT,
            Self::Pages(_, len) => *len,
        }
    }

    fn start(&self) -> *const u8 {
        match self {
            Self::Lines(lines) => lines.as_ptr().cast(),
            Self::Pages(pages, _) => pages.as_ptr(),
        }
    }

    fn start_mut(&mut self) -> *mut u8 {
        match self {
            Self::Lines(lines) => lines.as_mut_ptr().cast(),
            Self::Pages(pages, _) => pages.as_mut_ptr(),
        }
    }
}

impl AlignedBytes {
    /// `len` zero bytes; an error, not an abort, when the memory is not to be had.
    pub fn zeroed(len: usize) -> Result<Self, TensorError> {
        Ok(Self { memory: Memory::zeroed(len)?, len })
    }

    /// `len` bytes of whatever was in them before: zeros, or under a [`Recycling`] guard those of a block that was dropped.
    pub fn for_overwrite(len: usize) -> Result<Self, TensorError> {
        match spare(len) {
            Some(memory) => Ok(Self { memory, len }),
            None => Self::zeroed(len),
        }
    }

    /// `len` zero bytes in pages of their own, which are small ones up to `large_from`: what is touched of a large page
    /// takes all of it.
    pub fn in_pages(len: usize, large_from: usize) -> Result<Self, TensorError> {
        Ok(Self { memory: Memory::pages(len, large_from)?, len })
    }

    /// Grows with zeros or shrinks to `len` bytes.
    pub fn resize(&mut self, len: usize) -> Result<(), TensorError> {
        let before = std::mem::replace(&mut self.len, len);
        if len > self.memory.room() {
            self.len = before;
            let mut grown = Self::zeroed(len)?;
            grown.as_mut_slice()[..before].copy_from_slice(self.as_slice());
            *self = grown;
        } else if len > before {
            // What was cut off or belonged to another block is there still.
            self.as_mut_slice()[before..].fill(0);
        }
        Ok(())
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory holds at least `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.memory.start(), self.len) }
    }

    /// All bytes, exclusively.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start_mut(), self.len) }
    }

    /// Where the bytes begin, for owners that hand out parts of them; valid for as long as these bytes live.
    pub(crate) fn start_mut(&mut self) -> *mut u8 {
        self.memory.start_mut()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if (LEAST_SPARE..MOST_SPARE).contains(&self.memory.room()) {
            let memory = std::mem::replace(&mut self.memory, Memory::Lines(Vec::new()));
            // A block that is dropped while the thread ends is just freed.
            let _ = SPARES.try_with(|spares| {
                if let Some(spares) = spares.borrow_mut().as_mut() {
                    spares.push(memory);
                    if spares.len() > MOST_SPARES {
                        spares.sort_by_key(Memory::room);
                        spares.remove(0);
                    }
                }
            });
        }
    }
}

/// Bytes of a block that is worth keeping.
const LEAST_SPARE: usize = 128 << 10;
/// Larger blocks get large pages, which are few; to keep those would be felt in the memory that loading takes.
const MOST_SPARE: usize = 4 << 20;
/// Blocks that are kept.
const MOST_SPARES: usize = 2;

thread_local! {
    static SPARES: RefCell<Option<Vec<Memory>>> = const { RefCell::new(None) };
}

/// A spare block of so many bytes or some more.
fn spare(len: usize) -> Option<Memory> {
    if len < LEAST_SPARE {
        return None;
    }
    SPARES.with_borrow_mut(|spares| {
        let spares = spares.as_mut()?;
        // Much more would be a waste, should the block stay.
        let fits =
            (0..spares.len()).filter(|&index| (len..len.saturating_mul(16)).contains(&spares[index].room()));
        let best = fits.min_by_key(|&index| spares[index].room())?;
        Some(spares.swap_remove(best))
    })
}

/// While it lives, this thread keeps large blocks that are dropped for those that [`AlignedBytes::for_overwrite`] makes. Weights
/// are turned, scaled and packed one after the other: without this each step of each touches new pages, which the
/// system has to clear first. A guard within a guard does nothing.
#[must_use]
pub struct Recycling {
    outermost: bool,
}

/// Begins to keep dropped blocks.
pub fn recycle() -> Recycling {
    SPARES.with_borrow_mut(|spares| {
        let outermost = spares.is_none();
        spares.get_or_insert_default();
        Recycling { outermost }
    })
}

impl Drop for Recycling {
    fn drop(&mut self) {
        if self.outermost {
            // Taken out first: what is dropped here must not find the place borrowed.
            drop(SPARES.with_borrow_mut(Option::take));
        }
    }
}

/// A growing vector in aligned memory, to be frozen into a [`Buffer`] without a copy.
pub struct AlignedVec<T: Plain> {
    bytes: AlignedBytes,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Default for AlignedVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Plain> AlignedVec<T> {
    /// No elements, no memory.
    pub fn new() -> Self {
        Self {
            bytes: AlignedBytes { memory: Memory::Lines(Vec::new()), len: 0 },
            len: 0,
            element: PhantomData,
        }
    }

    /// `len` elements of zero bytes (`false`, 0, 0.0).
    pub fn zeroed(len: usize) -> Result<Self, TensorError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(TensorError::OutOfMemory { bytes: usize::MAX })?;
        Ok(Self { bytes: AlignedBytes::zeroed(bytes)?, len, element: PhantomData })
    }

    /// `len` elements for a caller that writes all of them; see [`AlignedBytes::for_overwrite`]. Numbers only.
    pub fn for_overwrite(len: usize) -> Result<Self, TensorError> {
        if !T::ANY_PATTERN {
            return Self::zeroed(len);
        }
        let bytes = len.checked_mul(size_of::<T>()).ok_or(TensorError::OutOfMemory { bytes: usize::MAX })?;
        Ok(Self { bytes: AlignedBytes::for_overwrite(bytes)?, len, element: PhantomData })
    }

    /// Appends one element.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), TensorError> {
        self.push_expecting(value, || 0)
    }

    /// The same, where the caller knows better than a doubling how many elements there will be: `expected` is
    /// asked when there is no room, and may be wrong.
    ///
    /// # Errors
    /// No memory.
    #[inline]
    pub fn push_expecting(&mut self, value: T, expected: impl FnOnce() -> usize) -> Result<(), TensorError> {
        if (self.len + 1) * size_of::<T>() > self.bytes.len {
            self.grow(expected())?;
        }
        // SAFETY: the slot lies within the initialised bytes (checked above), which are aligned to 64.
        unsafe { self.bytes.memory.start_mut().cast::<T>().add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Appends the elements that `fill` writes to the front of a slice of `most`; it returns how many they are. `expected`
    /// as in `push_expecting`.
    ///
    /// # Errors
    /// No memory.
    #[inline]
    pub fn append_with(
        &mut self,
        most: usize,
        expected: impl Fn() -> usize,
        fill: impl FnOnce(&mut [T]) -> usize,
    ) -> Result<(), TensorError> {
        while self.bytes.len / size_of::<T>() - self.len < most {
            self.grow(expected())?;
        }
        // SAFETY: the slots lie within the initialised bytes (checked above), which are aligned to 64, and are borrowed
        // exclusively; bytes behind the elements are zero or were elements, which both are a `T`.
        let slots = unsafe {
            std::slice::from_raw_parts_mut(self.bytes.memory.start_mut().cast::<T>().add(self.len), most)
        };
        self.len += fill(slots).min(most);
        Ok(())
    }

    #[cold]
    fn grow(&mut self, expected: usize) -> Result<(), TensorError> {
        let least = self.bytes.len + 4 * ALIGNMENT;
        let wanted = if expected > self.len {
            expected.saturating_mul(size_of::<T>()).max(least)
        } else {
            least.max(self.bytes.len * 2)
        };
        self.bytes.resize(wanted)
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the first `len` elements were written or zeroed; the memory is aligned to 64.
        unsafe { std::slice::from_raw_parts(self.bytes.memory.start().cast(), self.len) }
    }

    /// The elements, exclusively.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.memory.start_mut().cast(), self.len) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Shares the memory; nothing is copied.
    pub fn freeze(mut self) -> Buffer {
        self.bytes.len = self.len * size_of::<T>();
        Buffer::from_aligned(Arc::new(self.bytes))
    }
}

/// Owners of tensor memory.
pub(super) trait Owner: Any + Send + Sync {
    fn bytes(&self) -> &[u8];
}

impl Owner for AlignedBytes {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}
impl Owner for Bytes {
    fn bytes(&self) -> &[u8] {
        self
    }
}
impl Owner for Mmap {
    fn bytes(&self) -> &[u8] {
        self
    }
}
impl Owner for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Shared immutable bytes: a part of an allocation, a mapped file, a request body or the binary.
#[derive(Clone)]
pub struct Buffer {
    pub(super) owner: Arc<dyn Owner>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl Buffer {
    /// Shares aligned memory; the caller may keep its `Arc` to reuse the memory when it is alone again.
    pub fn from_aligned(bytes: Arc<AlignedBytes>) -> Self {
        let len = bytes.len();
        Self { owner: bytes, offset: 0, len }
    }

    /// Keeps a slice of a request body alive.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let len = bytes.len();
        Self { owner: Arc::new(bytes), offset: 0, len }
    }

    /// Bytes that are part of the binary.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self { owner: Arc::new(bytes), offset: 0, len: bytes.len() }
    }

    /// Copies into aligned memory.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, TensorError> {
        let mut aligned = AlignedBytes::zeroed(bytes.len())?;
        aligned.as_mut_slice().copy_from_slice(bytes);
        Ok(Self::from_aligned(Arc::new(aligned)))
    }

    /// Maps a file read-only. Pages are read when they are first touched and shared between
    /// processes. A file that another process shortens meanwhile ends this one (SIGBUS), so model
    /// folders are to be replaced by rename, not rewritten in place.
    pub fn map_file(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self::from_static(&[]));
        }
        // SAFETY: the mapping is private and read-only; the documented rule for model folders is
        // that files are not modified while they are loaded.
        let map = unsafe { Mmap::map(&file)? };
        let len = map.len();
        Ok(Self { owner: Arc::new(map), offset: 0, len })
    }

    fn as_mapped(&self) -> Option<&Mmap> {
        let owner: &dyn Any = &*self.owner;
        owner.downcast_ref()
    }

    /// True for a part of a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.as_mapped().is_some()
    }

    /// Lets the pages of a mapped file go. Nothing happens to other memory.
    pub(super) fn release_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Some(map) = self.as_mapped() {
            // Whole pages only: the ends may be parts of others.
            const PAGE: usize = 1 << 16;
            let start = self.offset.next_multiple_of(PAGE);
            let end = (self.offset + self.len) / PAGE * PAGE;
            if start < end {
                // SAFETY: the mapping is private, read-only and of a file, so its pages come back as they were.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
            }
        }
    }

    /// Maps all pages of a mapped file at once, where the system can; to be called before all of it is read, as
    /// one fault per page or few takes longer than the reading. Nothing happens to other memory.
    pub fn prefetch(&self) {
        #[cfg(target_os = "linux")]
        if let Some(map) = self.as_mapped() {
            let _ = map.advise_range(memmap2::Advice::PopulateRead, self.offset, self.len);
        }
    }

    /// The part of this buffer that `bytes` are, if they are one.
    pub fn part(&self, bytes: &[u8]) -> Option<Self> {
        let offset = bytes.as_ptr().addr().checked_sub(self.as_bytes().as_ptr().addr())?;
        self.slice(offset, bytes.len())
    }

    /// The part `offset..offset + len`; `None` when it reaches beyond the end.
    pub fn slice(&self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self { owner: self.owner.clone(), offset: self.offset + offset, len })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.owner.bytes().get(self.offset..self.offset + self.len).unwrap_or_default()
    }

    /// The bytes as elements of `T`; `None` when length or alignment do not fit.
    pub fn as_slice<T: Plain>(&self) -> Option<&[T]> {
        view(self.as_bytes())
    }

    /// The bytes as `bool`; `None` when one of them is neither 0 nor 1.
    pub fn as_bools(&self) -> Option<&[bool]> {
        let bytes = self.as_bytes();
        // SAFETY: every byte was just checked to be a valid `bool`.
        bytes
            .iter()
            .all(|&byte| byte <= 1)
            .then(|| unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// A part of one of the blocks that a run works in, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Index of the block.
    pub block: usize,
    /// First byte within the block; a multiple of [`ALIGNMENT`].
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Region {
    fn overlaps(&self, other: &Region) -> bool {
        self.block == other.block
            && self.len > 0
            && other.len > 0
            && self.offset < other.offset + other.len
            && other.offset < self.offset + self.len
    }
}

/// The regions of one step, checked once: what it writes overlaps nothing else it touches.
#[derive(Clone, Debug)]
pub struct StepRegions {
    inputs: Box<[Region]>,
    outputs: Box<[Region]>,
    scratch: Region,
}

impl StepRegions {
    /// Checks bounds against the blocks' lengths, alignment and disjointness.
    pub fn new(
        blocks: &[usize],
        inputs: Vec<Region>,
        outputs: Vec<Region>,
        scratch: Region,
    ) -> Result<Self, TensorError> {
        let written = || outputs.iter().chain([&scratch]);
        for region in inputs.iter().chain(written()) {
            let end = region.offset.checked_add(region.len);
            let inside = blocks.get(region.block).is_some_and(|&len| end.is_some_and(|end| end <= len));
            if region.len > 0 && !(inside && region.offset.is_multiple_of(ALIGNMENT)) {
                return Err(TensorError::BadRegion(*region));
            }
        }
        for (position, region) in written().enumerate() {
            let clash = inputs.iter().chain(written().skip(position + 1)).any(|other| region.overlaps(other));
            if clash {
                return Err(TensorError::BadRegion(*region));
            }
        }
        Ok(Self { inputs: inputs.into(), outputs: outputs.into(), scratch })
    }

    /// The regions that are written as outputs.
    pub fn outputs(&self) -> &[Region] {
        &self.outputs
    }
}

/// The memory of one run: block 0 is the arena of intermediate values, each further block becomes
/// one output tensor and is reused once nobody else holds it.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<Arc<AlignedBytes>>,
}

impl Blocks {
    /// Makes block `i` at least `lens[i]` bytes long and exclusively ours; a block whose tensor is
    /// still held elsewhere is replaced.
    pub fn prepare(&mut self, lens: &[usize]) -> Result<(), TensorError> {
        self.blocks.truncate(lens.len());
        for (index, &len) in lens.iter().enumerate() {
            match self.blocks.get_mut(index) {
                Some(block) => match Arc::get_mut(block) {
                    Some(bytes) if bytes.len() == len => {}
                    _ => *block = Arc::new(AlignedBytes::for_overwrite(len)?),
                },
                None => self.blocks.push(Arc::new(AlignedBytes::for_overwrite(len)?)),
            }
        }
        Ok(())
    }

    /// Shares a whole block as a buffer.
    pub fn share(&self, block: usize) -> Option<Buffer> {
        self.blocks.get(block).map(|bytes| Buffer::from_aligned(bytes.clone()))
    }

    /// The bytes of a region.
    pub fn bytes_of(&self, region: Region) -> Result<&[u8], TensorError> {
        if region.len == 0 {
            return Ok(&[]);
        }
        let end = region.offset.checked_add(region.len);
        let block = self.blocks.get(region.block);
        block
            .zip(end)
            .and_then(|(block, end)| block.as_slice().get(region.offset..end))
            .ok_or(TensorError::BadRegion(region))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    /// The views of one step: shared ones of its inputs, exclusive ones of what it writes.
    ///
    /// Errors when a block is shared or shorter than a region says, which a caller that ran
    /// [`Blocks::prepare`] with the plan's lengths never sees.
    pub fn views<'a>(&'a mut self, regions: &'a StepRegions) -> Result<Views<'a>, TensorError> {
        for region in regions.inputs.iter().chain(&regions.outputs).chain([&regions.scratch]) {
            let block = self.blocks.get_mut(region.block).and_then(Arc::get_mut);
            if region.len > 0 && block.is_none_or(|bytes| bytes.len() < region.offset + region.len) {
                return Err(TensorError::BadRegion(*region));
            }
        }
        Ok(Views { blocks: &mut self.blocks, regions, taken: 0, scratch_taken: false })
    }
}

/// Views into [`Blocks`] for one step.
pub struct Views<'a> {
    blocks: &'a mut [Arc<AlignedBytes>],
    regions: &'a StepRegions,
    taken: usize,
    scratch_taken: bool,
}

impl<'a> Views<'a> {
    fn pointer(&mut self, region: Region) -> *mut u8 {
        match self.blocks.get_mut(region.block).and_then(Arc::get_mut) {
            // SAFETY: `Blocks::views` checked that the region lies inside the block.
            Some(bytes) if region.len > 0 => unsafe { bytes.memory.start_mut().add(region.offset) },
            _ => std::ptr::without_provenance_mut(ALIGNMENT),
        }
    }

    /// Input region `index` as elements of `T`; `None` when it does not exist or does not fit `T`.
    pub fn input<T: Plain>(&mut self, index: usize) -> Option<&'a [T]> {
        let region = *self.regions.inputs.get(index)?;
        let pointer = self.pointer(region);
        // SAFETY: the region lies inside a block that `self` borrows exclusively for 'a, and
        // `StepRegions::new` checked that no written region overlaps it, so shared views of it
        // may live beside the exclusive ones. The bytes are initialised.
        view(unsafe { std::slice::from_raw_parts(pointer, region.len) })
    }

    /// The next output region as elements of `T`; each is given out once.
    pub fn next_output<T: Plain>(&mut self) -> Option<&'a mut [T]> {
        let region = *self.regions.outputs.get(self.taken)?;
        self.taken += 1;
        let pointer = self.pointer(region);
        // SAFETY: inside an exclusively borrowed block, disjoint from every other region of the
        // step (`StepRegions::new`), and handed out once because `taken` only grows.
        view_mut(unsafe { std::slice::from_raw_parts_mut(pointer, region.len) })
    }

    /// The scratch region; given out once.
    pub fn scratch<T: Plain>(&mut self) -> Option<&'a mut [T]> {
        if std::mem::replace(&mut self.scratch_taken, true) {
            return None;
        }
        let region = self.regions.scratch;
        let pointer = self.pointer(region);
        // SAFETY: as for outputs; `scratch_taken` makes it a single hand-out.
        view_mut(unsafe { std::slice::from_raw_parts_mut(pointer, region.len) })
    }
}

/// To be called when the program starts, before it has threads. By itself the allocator of glibc raises the size
/// from which blocks are pages of their own to that of the largest freed block; the packed weights of models
/// that come and go then lie among small blocks, and a server that reloads a 20 MB model for an hour grows by
/// 100 MB.
pub fn keep_large_blocks_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES as i32);
    }
}

/// Gives freed memory back to the system. The allocator of glibc keeps what a dropped model used; other
/// allocators do this on their own, there it does nothing.
pub fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes a number, touches only free memory and locks the allocator itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_grows() {
        let mut values = AlignedVec::new();
        for i in 0..1000u16 {
            values.push(i).unwrap();
        }
        assert!(values.as_slice().iter().copied().eq(0..1000));
        let buffer = values.freeze();
        assert_eq!(buffer.len(), 2000);
        assert!(buffer.is_aligned_to(ALIGNMENT));
        assert_eq!(buffer.as_slice::<u16>().unwrap()[999], 999);
        assert!(buffer.slice(1, 2).unwrap().as_slice::<u16>().is_none(), "misaligned view");
        assert!(buffer.slice(1999, 2).is_none());
        assert!(buffer.slice(usize::MAX, 2).is_none());
    }

    #[test]
    fn large_blocks_grow_with_zeros_and_keep_what_they_hold() {
        let mut bytes = AlignedBytes::zeroed(OWN_PAGES - 1).unwrap();
        bytes.as_mut_slice().fill(1);
        for len in [OWN_PAGES + 1, 3 * OWN_PAGES] {
            bytes.resize(len).unwrap();
            assert!(bytes.start_mut().addr().is_multiple_of(ALIGNMENT));
        }
        bytes.as_mut_slice()[OWN_PAGES - 1..].fill(2);
        bytes.resize(OWN_PAGES).unwrap();
        bytes.resize(2 * OWN_PAGES).unwrap();
        let mut runs = bytes.as_slice().chunk_by(|a, b| a == b).map(|run| (run[0], run.len()));
        assert_eq!(runs.next(), Some((1, OWN_PAGES - 1)));
        assert_eq!(runs.next(), Some((2, 1)));
        assert_eq!(runs.next(), Some((0, OWN_PAGES)));
    }

    #[test]
    fn released_pages_come_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..1usize << 18).map(|index| (index / 1000) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let map = Buffer::map_file(file.path()).unwrap();
        assert_eq!(map.as_bytes(), bytes);
        let part = map.slice(5, (1 << 18) - 10).unwrap();
        part.release();
        assert!(part.as_bytes() == &bytes[5..(1 << 18) - 5] && map.is_mapped());
        assert_eq!(map.part(part.as_bytes()).unwrap().address(), part.address());
        assert!(map.part(&bytes).is_none());
        Buffer::copy_of(&bytes).unwrap().release();
    }

    #[test]
    fn dropped_blocks_are_used_again_under_a_guard() {
        let block = || {
            let mut bytes = AlignedBytes::for_overwrite(1 << 20).unwrap();
            let first = bytes.as_slice()[0];
            bytes.as_mut_slice().fill(7);
            (first, bytes.as_slice().len())
        };
        assert_eq!([block(), block()], [(0, 1 << 20); 2], "without a guard");
        let guard = recycle();
        let inner = recycle();
        assert_eq!(block(), (0, 1 << 20));
        drop(inner);
        assert_eq!(block(), (7, 1 << 20));
        let less = AlignedVec::<f32>::for_overwrite(100_000).unwrap();
        assert_eq!((less.len(), less.as_slice().len()), (100_000, 100_000));
        drop(less);
        assert!(AlignedBytes::zeroed(1 << 19).unwrap().as_slice().iter().all(|&byte| byte == 0));
        let many: Vec<_> = (0..5).map(|_| AlignedBytes::for_overwrite(1 << 18).unwrap()).collect();
        drop(many);
        assert!(SPARES.with_borrow(|spares| spares.as_ref().unwrap().len()) <= MOST_SPARES);
        drop(guard);
        assert!(SPARES.with_borrow(Option::is_none));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(matches!(AlignedVec::<f64>::zeroed(usize::MAX), Err(TensorError::OutOfMemory { .. })));
        assert!(matches!(AlignedBytes::zeroed(usize::MAX / 2), Err(TensorError::OutOfMemory { .. })));
    }

    #[test]
    fn regions_that_clash_are_refused() {
        let at = |offset, len| Region { block: 0, offset, len };
        let none = Region::default();
        assert!(StepRegions::new(&[256], vec![at(0, 64)], vec![at(64, 64)], at(128, 64)).is_ok());
        assert!(StepRegions::new(&[256], vec![at(0, 65)], vec![at(64, 64)], none).is_err());
        assert!(StepRegions::new(&[256], vec![], vec![at(0, 128), at(64, 8)], none).is_err());
        assert!(StepRegions::new(&[256], vec![], vec![at(192, 65)], none).is_err());
        assert!(StepRegions::new(&[256], vec![], vec![at(8, 8)], none).is_err(), "not aligned");
        assert!(StepRegions::new(&[256], vec![], vec![], Region { block: 1, offset: 0, len: 1 }).is_err());
    }

    #[test]
    fn blocks_are_reused_only_when_free() {
        let mut blocks = Blocks::default();
        blocks.prepare(&[64, 64]).unwrap();
        let held = blocks.share(1).unwrap();
        let address = held.as_bytes().as_ptr();
        blocks.prepare(&[64, 64]).unwrap();
        assert_ne!(blocks.share(1).unwrap().as_bytes().as_ptr(), address, "still held elsewhere");
        let address = blocks.share(1).unwrap().as_bytes().as_ptr();
        blocks.prepare(&[64, 64]).unwrap();
        assert_eq!(blocks.share(1).unwrap().as_bytes().as_ptr(), address);
    }

    #[test]
    fn a_step_sees_its_regions() {
        let mut blocks = Blocks::default();
        blocks.prepare(&[256]).unwrap();
        let at = |offset, len| Region { block: 0, offset, len };
        let regions = StepRegions::new(&[256], vec![at(0, 8)], vec![at(64, 8)], at(128, 4)).unwrap();
        let mut views = blocks.views(&regions).unwrap();
        let input = views.input::<f32>(0).unwrap();
        let output = views.next_output::<f32>().unwrap();
        output.copy_from_slice(&[input[0] + 1.0, input[1] + 2.0]);
        assert_eq!(views.scratch::<u8>().unwrap().len(), 4);
        assert!(views.next_output::<f32>().is_none());
        assert!(views.scratch::<u8>().is_none());
        assert!(views.input::<f64>(1).is_none());
    }
}
