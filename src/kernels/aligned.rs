//! Memory of packed weights: zero floats that begin at a cache line.
//!
//! A model is packed into many blocks, each touched for the first time while the first caller waits, and the fault of a
//! small page costs more than packing it. So blocks lie side by side in chunks that ask for large pages, one after
//! the other and never again; a chunk goes when the last block in it is dropped. Only what a small model needs of the
//! first chunk is in small pages.

use crate::tensor::buffer::{ALIGNMENT, AlignedBytes, LARGE_PAGE};
use std::{
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Floats that begin at a cache line, so that a packed row never straddles two.
pub(super) struct AlignedFloats {
    block: Block,
    length: usize,
}

enum Block {
    Own(AlignedBytes),
    Part(Part),
}

/// Blocks below this are the allocator's.
const LEAST_PART: usize = 64 << 10;
/// Larger blocks have a chunk's advantages by themselves.
const LARGEST_PART: usize = 4 << 20;
/// Addresses, not memory: what no block was placed in is never touched.
const CHUNK: usize = 16 << 20;
/// What a small model needs.
const IN_SMALL_PAGES: usize = 512 << 10;

impl AlignedFloats {
    /// `length` zeros. Ends the program where the memory is not to be had, as the allocator does.
    pub(super) fn zeroed(length: usize) -> AlignedFloats {
        let bytes = length.saturating_mul(size_of::<f32>());
        let part = if (LEAST_PART..=LARGEST_PART).contains(&bytes) { Part::place(bytes) } else { None };
        let block = part.map(Block::Part).unwrap_or_else(|| {
            let own = AlignedBytes::zeroed(bytes);
            Block::Own(own.unwrap_or_else(|_| std::alloc::handle_alloc_error(layout(bytes))))
        });
        AlignedFloats { block, length }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        let start = match &self.block {
            Block::Own(bytes) => bytes.as_slice().as_ptr(),
            Block::Part(part) => part.start.as_ptr().cast_const(),
        };
        // SAFETY: the block holds `length` floats from an aligned start, zero or written; any pattern is a float.
        unsafe { std::slice::from_raw_parts(start.cast(), self.length) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        let start = match &mut self.block {
            Block::Own(bytes) => bytes.start_mut(),
            Block::Part(part) => part.start.as_ptr(),
        };
        // SAFETY: as above; the borrow is unique, and so is the part.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.length) }
    }
}

fn layout(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, ALIGNMENT).unwrap_or(std::alloc::Layout::new::<u8>())
}

impl Clone for AlignedFloats {
    fn clone(&self) -> AlignedFloats {
        let mut copy = AlignedFloats::zeroed(self.length);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl std::fmt::Debug for AlignedFloats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[f32; {}]", self.length)
    }
}

/// A place in a chunk that nobody else was given.
struct Part {
    start: NonNull<u8>,
    _chunk: Arc<Chunk>,
}

// SAFETY: a part is the only way to its bytes, which live as long as the chunk that it holds.
unsafe impl Send for Part {}
// SAFETY: as above; through a shared part the bytes are only read.
unsafe impl Sync for Part {}

/// Held for its memory; reached through parts only.
struct Chunk(#[expect(dead_code, reason = "owns the memory of the parts")] AlignedBytes);

/// The chunk that is being filled: where its free rest begins, and how long that is.
struct Filling {
    chunk: Weak<Chunk>,
    next: Option<NonNull<u8>>,
    free: usize,
}

// SAFETY: the pointer is used only while the chunk is held, and behind the lock.
unsafe impl Send for Filling {}

static FILLING: Mutex<Filling> = Mutex::new(Filling { chunk: Weak::new(), next: None, free: 0 });

impl Part {
    fn place(bytes: usize) -> Option<Part> {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        let mut filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        let current = filling.chunk.upgrade().filter(|_| filling.free >= bytes);
        let chunk = match current {
            Some(chunk) => chunk,
            None => filling.begin()?,
        };
        let start = filling.next?;
        // SAFETY: `bytes` of the chunk are free from here on (`free`), so the sum is within it or at its end.
        filling.next = Some(unsafe { start.add(bytes) });
        filling.free -= bytes;
        Some(Part { start, _chunk: chunk })
    }
}

impl Filling {
    /// A new chunk.
    fn begin(&mut self) -> Option<Arc<Chunk>> {
        let goes_on = self.chunk.strong_count() > 0;
        let mut memory = AlignedBytes::in_pages(CHUNK, if goes_on { 0 } else { LARGE_PAGE }).ok()?;
        // Of the first, all but the end of its small pages is left out.
        let skipped = if goes_on { 0 } else { LARGE_PAGE - IN_SMALL_PAGES };
        // SAFETY: fewer bytes than the chunk has.
        self.next = NonNull::new(unsafe { memory.start_mut().add(skipped) });
        self.free = CHUNK - skipped;
        let chunk = Arc::new(Chunk(memory));
        self.chunk = Arc::downgrade(&chunk);
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_aligned_and_apart() {
        let lengths = [0, 1, 100, LEAST_PART / 4, LEAST_PART / 4 + 7, 1 << 20, LARGEST_PART / 4 + 1, 3 << 20];
        let mut blocks: Vec<AlignedFloats> = Vec::new();
        for round in 0..3 {
            for &length in &lengths {
                let mut block = AlignedFloats::zeroed(length);
                assert!(block.as_slice().as_ptr().addr().is_multiple_of(ALIGNMENT));
                assert!(block.as_slice().iter().all(|&value| value == 0.0) && block.len() == length);
                block.as_mut_slice().fill((blocks.len() + 1) as f32);
                blocks.push(block);
            }
            if round == 1 {
                // Chunks that lost some of their blocks keep the others.
                for index in (0..blocks.len()).step_by(2) {
                    blocks[index] = AlignedFloats::zeroed(1);
                    blocks[index].as_mut_slice().fill((index + 1) as f32);
                }
            }
        }
        for (index, block) in blocks.iter().enumerate() {
            assert!(block.as_slice().iter().all(|&value| value == (index + 1) as f32), "block {index}");
            assert_eq!(block.clone().as_slice(), block.as_slice());
        }
    }

    #[test]
    fn blocks_move_between_threads() {
        let held: Vec<_> = (0..4)
            .map(|thread| {
                std::thread::spawn(move || {
                    let mut block = AlignedFloats::zeroed(100_000);
                    block.as_mut_slice().fill(thread as f32);
                    block
                })
            })
            .collect();
        for (thread, block) in held.into_iter().enumerate() {
            assert!(block.join().unwrap().as_slice().iter().all(|&value| value == thread as f32));
        }
    }
}
