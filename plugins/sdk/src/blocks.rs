//! The allocator of a split policy: a list of free blocks for each size.
//!
//! What a policy is asked comes to it in blocks that the host has it allocate, and that it frees when it has answered: the same few sizes again and again.
//! A general allocator puts neighbours together and takes them apart for it, which cost more than half of what a rule did (`docs/PERFORMANCE.md`).
//! Here a block of up to [`MOST`] bytes is the first of its list, and its first once more when it is freed. It never goes back to the
//! allocator behind: a policy holds at most what it once had of each size at a time, twice at the worst, for sizes are rounded up to powers of two.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// The largest block that is kept, in bytes.
pub const MOST: usize = 1 << (LEAST_BITS + SIZES - 1);
/// The smallest one.
const LEAST: usize = 1 << LEAST_BITS;
const LEAST_BITS: usize = 4;
const SIZES: usize = 7;

/// Lists of free blocks, before an allocator that has the memory.
pub struct Blocks<Behind> {
    /// For each size the first free block, whose first word is the next one.
    free: [UnsafeCell<*mut u8>; SIZES],
    behind: Behind,
}

// One instance of a component runs on one thread.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
// SAFETY: there is no other thread that could share it.
unsafe impl<Behind> Sync for Blocks<Behind> {}

impl<Behind> Blocks<Behind> {
    /// Empty lists before `behind`.
    #[must_use]
    pub const fn new(behind: Behind) -> Blocks<Behind> {
        Blocks { free: [const { UnsafeCell::new(null_mut()) }; SIZES], behind }
    }

    /// The list of a layout; `None` where it has none.
    #[inline]
    fn list(&self, layout: Layout) -> Option<&UnsafeCell<*mut u8>> {
        if layout.align() > LEAST {
            return None;
        }
        self.free.get(bits(layout) - LEAST_BITS)
    }
}

/// Two to the power of this is the size of the blocks for a layout.
fn bits(layout: Layout) -> usize {
    (usize::BITS - (layout.size().wrapping_sub(1) | (LEAST - 1)).leading_zeros()) as usize
}

impl<Behind: GlobalAlloc> Blocks<Behind> {
    /// A block for the list of this layout. Wherever in the list it comes to stand, it is good for all that do.
    #[cold]
    fn another(&self, layout: Layout) -> *mut u8 {
        let Ok(whole) = Layout::from_size_align(1 << bits(layout), LEAST) else { return null_mut() };
        #[allow(unsafe_code)]
        // SAFETY: its size is not 0.
        unsafe {
            self.behind.alloc(whole)
        }
    }
}

#[allow(unsafe_code)]
// SAFETY: a block of a list was allocated by `behind` with the size of its list, is in the list only while it is free, and its first word is its own
// then. A layout names the same list whenever it is asked for.
unsafe impl<Behind: GlobalAlloc> GlobalAlloc for Blocks<Behind> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = self.list(layout) else {
            return unsafe { self.behind.alloc(layout) };
        };
        unsafe {
            let first = *list.get();
            if first.is_null() {
                return self.another(layout);
            }
            *list.get() = *first.cast::<*mut u8>();
            first
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(list) = self.list(layout) else {
            return unsafe { self.behind.dealloc(block, layout) };
        };
        unsafe {
            *block.cast::<*mut u8>() = *list.get();
            *list.get() = block;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        match (self.list(layout), self.list(wanted)) {
            // Large blocks grow where they stand, if they can.
            (None, None) => unsafe { self.behind.realloc(block, layout, size) },
            (Some(before), Some(after)) if core::ptr::eq(before, after) => block,
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    core::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::collections::VecDeque;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 4).unwrap()
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_freed_block_is_the_next_of_its_size() {
        let blocks = Blocks::new(System);
        unsafe {
            let (first, other) = (blocks.alloc(layout(17)), blocks.alloc(layout(200)));
            blocks.dealloc(first, layout(17));
            blocks.dealloc(other, layout(200));
            assert_eq!(blocks.alloc(layout(32)), first);
            assert_ne!(blocks.alloc(layout(24)), first);
            assert_eq!(blocks.alloc(layout(256)), other);
        }
    }

    /// Blocks of all sizes, the largest of a list and the next above it among them, that grow, shrink and go: each keeps what was written to it.
    #[test]
    #[allow(unsafe_code)]
    fn blocks_keep_their_bytes() {
        let sizes = [1, 4, 15, 16, 17, 33, 64, 65, 500, MOST - 1, MOST, MOST + 1, 5 * MOST];
        let blocks = Blocks::new(System);
        let mut held: VecDeque<(*mut u8, usize, u8)> = VecDeque::new();
        let check = |block: *mut u8, size: usize, mark: u8| {
            let bytes = unsafe { core::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|byte| *byte == mark), "a block of {size} bytes");
        };
        for turn in 0..2_000_usize {
            let (size, mark) = (sizes[turn * 7 % sizes.len()], u8::try_from(turn % 251).unwrap());
            unsafe {
                let block = blocks.alloc(layout(size));
                block.write_bytes(mark, size);
                held.push_back((block, size, mark));
                if turn % 3 == 0 {
                    let (block, size, mark) = held.pop_front().unwrap();
                    let other = sizes[turn * 5 % sizes.len()];
                    let block = blocks.realloc(block, layout(size), other);
                    check(block, size.min(other), mark);
                    block.write_bytes(mark, other);
                    held.push_back((block, other, mark));
                }
                if held.len() > 40 {
                    let (block, size, mark) = held.pop_front().unwrap();
                    check(block, size, mark);
                    blocks.dealloc(block, layout(size));
                }
            }
        }
        for (block, size, mark) in held {
            check(block, size, mark);
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_larger_alignment_is_for_the_allocator_behind() {
        let blocks = Blocks::new(System);
        let layout = Layout::from_size_align(16, 64).unwrap();
        unsafe {
            let block = blocks.alloc(layout);
            assert_eq!(block.addr() % 64, 0);
            blocks.dealloc(block, layout);
        }
    }
}
