//! mimalloc, by its short way: the crate of that name asks for an alignment with every allocation, which costs three times as much, and
//! next to nothing needs more than mimalloc's own.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{mi_collect, mi_free, mi_malloc, mi_malloc_aligned, mi_realloc_aligned, mi_zalloc_aligned};

/// The program's allocator.
#[derive(Debug)]
pub struct Mimalloc;

/// What `mi_malloc` aligns to, as long as the block is that large.
const OWN_ALIGNMENT: usize = 16;

// SAFETY: mimalloc answers every size with a block of at least that size, or null; all blocks here are its own. `mi_malloc` aligns a block
// to the largest power of two that divides its size class, up to 16, and no size class is smaller than the size: where the alignment is at
// most 16 and at most the size, a block is aligned as the layout says. Every other layout goes to the functions that take an alignment.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= OWN_ALIGNMENT && layout.align() <= layout.size() {
            // SAFETY: any size may be asked for; see above for the alignment.
            unsafe { mi_malloc(layout.size()).cast() }
        } else {
            // SAFETY: a layout's alignment is a power of two.
            unsafe { mi_malloc_aligned(layout.size(), layout.align()).cast() }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { mi_zalloc_aligned(layout.size(), layout.align()).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller gives back what one of these functions gave.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the block keeps its alignment.
        unsafe { mi_realloc_aligned(block.cast(), size, layout.align()).cast() }
    }
}

/// Has the process use pages of the usual size. The allocator asks for huge ones, of which each thread touches the beginning of a few: two thirds of a router's memory
/// would be room that nobody uses. Where the system does not know of it, nothing changes.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Gives the system back what this thread has freed, which is otherwise kept for its next allocations. For a thread that has done something large, and may
/// have nothing to do for long.
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: it may be called by any thread at any time, and touches no block in use.
    unsafe { mi_collect(true) }
}
