//! How the host calls a split policy: as the bindings have it, but for `route-fields`, whose arguments are read where the host put them.
//!
//! The bindings make a `Vec<Option<String>>` of the fields: one allocation more and three more to free, for a policy that only looks at them. What stands
//! in memory is said by the canonical ABI of the component model: a list is an address and a length, an `option<string>` three words.

use core::alloc::{GlobalAlloc, Layout};

use crate::split::Decision;

/// Fields that are looked at without an allocation.
const FEW: usize = 4;

/// An `option<string>` in a list.
#[doc(hidden)]
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Field {
    is_some: u8,
    text: *mut u8,
    bytes: usize,
}

/// A list that the host has had allocated.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct List<T> {
    /// Not to be read where there are none.
    pub first: *mut T,
    /// How many.
    pub count: usize,
}

/// A `decision` that is returned.
#[doc(hidden)]
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pool: u32,
    reason: u8,
    has_arm: u32,
    arm: u32,
}

impl Answer {
    /// Where there is none yet.
    pub const NONE: Answer = Answer { pool: 0, reason: 0, has_arm: 0, arm: 0 };

    fn of(decision: &Decision) -> Answer {
        let Decision { pool, reason, arm } = *decision;
        Answer { pool, reason: reason as u8, has_arm: u32::from(arm.is_some()), arm: arm.unwrap_or(0) }
    }
}

#[allow(unsafe_code)]
impl<T> List<T> {
    /// # Safety
    /// Its items are there, and nobody changes them.
    unsafe fn items<'a>(self) -> &'a [T] {
        if self.count == 0 {
            return &[];
        }
        unsafe { core::slice::from_raw_parts(self.first, self.count) }
    }

    /// # Safety
    /// It came from `memory`, and nobody looks at it any more.
    unsafe fn free(self, memory: &impl GlobalAlloc) {
        unsafe { free(memory, self.first.cast(), self.count * size_of::<T>(), align_of::<T>()) }
    }
}

#[allow(unsafe_code)]
impl Field {
    /// # Safety
    /// As the host wrote it, with a text that stays and is UTF-8: the host has looked.
    unsafe fn get<'a>(&self) -> Option<&'a str> {
        if self.is_some == 0 {
            return None;
        }
        let bytes = unsafe { List { first: self.text, count: self.bytes }.items() };
        Some(unsafe { core::str::from_utf8_unchecked(bytes) })
    }
}

/// `route-fields`: decides, and frees the arguments.
///
/// # Safety
/// The arguments are the host's: allocated by [`allocate`] with this `memory`, and not looked at after this.
#[allow(unsafe_code)]
#[inline]
pub unsafe fn route_fields(
    memory: &impl GlobalAlloc,
    positions: List<u32>,
    fields: List<Field>,
    decide: impl FnOnce(&[u32], &[Option<&str>]) -> Decision,
) -> Answer {
    unsafe {
        let raw = fields.items();
        let mut few = [None; FEW];
        let decision = if let Some(views) = few.get_mut(..raw.len()) {
            views.iter_mut().zip(raw).for_each(|(view, field)| *view = field.get());
            decide(positions.items(), views)
        } else {
            let views: Vec<Option<&str>> = raw.iter().map(|field| field.get()).collect();
            decide(positions.items(), &views)
        };
        for field in raw.iter().filter(|field| field.is_some != 0) {
            free(memory, field.text, field.bytes, 1);
        }
        fields.free(memory);
        positions.free(memory);
        Answer::of(&decision)
    }
}

/// `cabi_realloc`: memory for what the host is about to write.
///
/// # Safety
/// `old`, where `old_size` is not 0, came from here with this `memory`, that size and alignment; `align` is a power of two.
#[allow(unsafe_code)]
#[inline]
pub unsafe fn allocate(memory: &impl GlobalAlloc, old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    let layout = |size| unsafe { Layout::from_size_align_unchecked(size, align) };
    let block = match (old_size, size) {
        (0, 0) => return core::ptr::without_provenance_mut(align),
        (0, _) => unsafe { memory.alloc(layout(size)) },
        _ => unsafe { memory.realloc(old, layout(old_size), size) },
    };
    if block.is_null() {
        std::alloc::handle_alloc_error(layout(size));
    }
    block
}

/// # Safety
/// The block came from `memory` with this size and alignment; where the size is 0 there is none.
#[allow(unsafe_code)]
unsafe fn free(memory: &impl GlobalAlloc, block: *mut u8, size: usize, align: usize) {
    if size > 0 {
        unsafe { memory.dealloc(block, Layout::from_size_align_unchecked(size, align)) };
    }
}

// The bindings' macro looks for its functions under the path that it is given: this one has ours.
#[doc(hidden)]
pub mod exports {
    pub mod switchback {
        pub mod policy {
            pub mod split {
                pub use crate::__export_split_functions as __export_switchback_policy_split_0_1_0_cabi;
            }
        }
    }
}

/// What the bindings' macro of the same place does, with our `route-fields` and `cabi_realloc`. Where it is expanded there are `decide` and `BLOCKS`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_split_functions {
    ($component:ident with_types_in $($path:tt)*) => {
        const _: () = {
            use $crate::abi::{self, Answer, Field, List};
            use $crate::split::bindings::exports::switchback::policy::split as bindings;

            static mut ANSWER: Answer = Answer::NONE;

            #[unsafe(export_name = "switchback:policy/split@0.1.0#configure")]
            unsafe extern "C" fn configure(snapshot: *mut u8) -> *mut u8 {
                unsafe { bindings::_export_configure_cabi::<$component>(snapshot) }
            }

            #[unsafe(export_name = "cabi_post_switchback:policy/split@0.1.0#configure")]
            unsafe extern "C" fn after_configure(answer: *mut u8) {
                unsafe { bindings::__post_return_configure::<$component>(answer) }
            }

            #[unsafe(export_name = "switchback:policy/split@0.1.0#route")]
            unsafe extern "C" fn route(position: i32) -> *mut u8 {
                unsafe { bindings::_export_route_cabi::<$component>(position) }
            }

            #[unsafe(export_name = "switchback:policy/split@0.1.0#route-fields")]
            unsafe extern "C" fn route_fields(positions: *mut u32, salts: usize, fields: *mut Field, count: usize) -> *const Answer {
                let (positions, fields) = (List { first: positions, count: salts }, List { first: fields, count });
                // One instance of the component runs on one thread and is never called while it is in a call; the host has read an answer when it calls again.
                unsafe {
                    ANSWER = abi::route_fields(&BLOCKS, positions, fields, decide);
                    &raw const ANSWER
                }
            }

            #[unsafe(export_name = "cabi_realloc")]
            unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
                unsafe { abi::allocate(&BLOCKS, old, old_size, align, size) }
            }
        };
    };
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::alloc::System;
    use std::cell::Cell;

    use super::*;
    use crate::split::Reason;

    /// Counts what is held.
    struct Counting {
        held: Cell<usize>,
    }

    // SAFETY: the system's, and numbers beside it.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.held.set(self.held.get() + layout.size());
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.held.set(self.held.get() - layout.size());
            unsafe { System.dealloc(block, layout) }
        }
    }

    /// A list with these items, as the host makes it.
    fn list<T: Copy>(memory: &Counting, items: &[T]) -> List<T> {
        let first = unsafe { allocate(memory, core::ptr::null_mut(), 0, align_of::<T>(), size_of_val(items)) }.cast::<T>();
        unsafe { first.copy_from_nonoverlapping(items.as_ptr(), items.len()) };
        List { first, count: items.len() }
    }

    /// What a policy sees of these arguments, and what is returned for its decision.
    fn asked(positions: &[u32], fields: &[Option<&str>], decision: Decision) -> Answer {
        let memory = Counting { held: Cell::new(0) };
        let raw: Vec<Field> = fields
            .iter()
            .map(|field| {
                let List { first, count } = list(&memory, field.unwrap_or_default().as_bytes());
                Field { is_some: u8::from(field.is_some()), text: first, bytes: count }
            })
            .collect();
        let (positions_list, fields_list) = (list(&memory, positions), list(&memory, &raw));
        let answer = unsafe {
            route_fields(&memory, positions_list, fields_list, |seen_positions, seen_fields| {
                assert_eq!((seen_positions, seen_fields), (positions, fields));
                decision
            })
        };
        assert_eq!(memory.held.get(), 0, "all of it is freed");
        answer
    }

    #[test]
    fn a_policy_sees_what_the_host_wrote() {
        let decision = Decision { pool: 3, reason: Reason::Rule, arm: None };
        assert_eq!(asked(&[7], &[None], decision), Answer { pool: 3, reason: 4, has_arm: 0, arm: 0 });
        asked(&[], &[], decision);
        asked(&[1, 2, 999_999], &[Some("é"), None, Some(""), Some("0")], decision);
        let many: Vec<Option<&str>> = (0..40).map(|at| (at % 3 != 0).then_some("text")).collect();
        asked(&[5], &many[..16], decision);
        asked(&[5], &many, decision);
        let arm = Decision { pool: 0, reason: Reason::Experiment, arm: Some(2) };
        assert_eq!(asked(&[7], &[None], arm), Answer { pool: 0, reason: 3, has_arm: 1, arm: 2 });
    }

    /// As the canonical ABI has it, where a word is of four bytes.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn structures_are_those_of_the_abi() {
        assert_eq!((size_of::<Answer>(), core::mem::offset_of!(Answer, has_arm), core::mem::offset_of!(Answer, arm)), (16, 8, 12));
        assert_eq!((size_of::<Field>(), core::mem::offset_of!(Field, text), core::mem::offset_of!(Field, bytes)), (24, 8, 16));
    }

    #[test]
    fn a_block_of_the_host_grows() {
        let memory = Counting { held: Cell::new(0) };
        unsafe {
            let block = allocate(&memory, core::ptr::null_mut(), 0, 4, 8);
            block.write_bytes(7, 8);
            let block = allocate(&memory, block, 8, 4, 800);
            assert_eq!(core::slice::from_raw_parts(block, 8), [7; 8]);
            free(&memory, block, 800, 4);
        }
        assert_eq!(memory.held.get(), 0);
        assert_eq!(unsafe { allocate(&memory, core::ptr::null_mut(), 0, 4, 0) }.addr(), 4);
    }
}
