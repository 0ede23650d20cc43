//! Memory of the process that only its start needed.
//!
//! A start reads the config, compiles policies and opens what there is to open: most of the program's code runs once, and hardly any of it again. Its pages are the file's, so that
//! the system could take them back whenever it is short of memory; but as long as it is not, they count as the router's.

use crate::allocator;

/// Gives back what the start has freed on this thread, and takes pages of the program's own file out of the process: those that are needed come back, from the system's memory
/// of files and not from disk, as they are needed.
pub fn forget_start() {
    allocator::give_back();
    #[cfg(target_os = "linux")]
    if let (Ok(maps), Ok(program)) = (std::fs::read_to_string("/proc/self/maps"), std::env::current_exe()) {
        for range in unchanged(&maps, &program.to_string_lossy()) {
            forget(range);
        }
    }
}

/// Where pages of a file are in the process that nobody can have changed: its code, and what stands before that. What the loader has changed, and made readable alone again, lies behind it.
#[cfg(any(target_os = "linux", test))]
fn unchanged(maps: &str, file: &str) -> Vec<std::ops::Range<usize>> {
    let one = |line: &str| {
        let mut words = line.splitn(6, ' ');
        let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
        let path = words.nth(2)?.trim_start();
        let is_first = offset.bytes().all(|digit| digit == b'0');
        let is_it = path == file && (rights == "r-xp" || (rights == "r--p" && is_first));
        let (from, to) = range.split_once('-')?;
        let place = |text| usize::from_str_radix(text, 16).ok();
        is_it.then_some(place(from)?..place(to)?)
    };
    maps.lines().filter_map(one).collect()
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn forget(range: std::ops::Range<usize>) {
    let start = std::ptr::without_provenance_mut(range.start);
    // SAFETY: it is a mapping of a file that is private to this process and that nobody writes to, so that every page is read from the file again, with the same bytes. Where the
    // mapping is gone or another, the caller's list was made after the program was loaded, and programs are not unloaded.
    let _ = unsafe { rustix::mm::madvise(start, range.len(), rustix::mm::Advice::LinuxDontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_are_unchanged_and_what_the_loader_writes_is_not() {
        let maps = "\
55d0c0000000-55d0c0100000 r--p 00000000 fe:00 1234                       /usr/bin/switch back
55d0c0100000-55d0c0300000 r-xp 00100000 fe:00 1234                       /usr/bin/switch back
55d0c0300000-55d0c0320000 r--p 00300000 fe:00 1234                       /usr/bin/switch back
55d0c0320000-55d0c0330000 rw-p 00320000 fe:00 1234                       /usr/bin/switch back
7f0000000000-7f0000001000 r-xp 00000000 fe:00 99                         /usr/lib/libc.so.6
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
7ffff0000000-7ffff0001000 r-xp 00000000 00:00 0                          [vdso]
";
        assert_eq!(unchanged(maps, "/usr/bin/switch back"), [0x55d0_c000_0000..0x55d0_c010_0000, 0x55d0_c010_0000..0x55d0_c030_0000]);
        assert!(unchanged("", "/usr/bin/switchback").is_empty());
        assert!(unchanged("garbage\n1-2 r-xp\n", "/usr/bin/switchback").is_empty());
    }

    #[test]
    fn the_program_goes_on_without_its_start() {
        let before: Vec<u64> = (0..10_000).map(|number| number * number).collect();
        forget_start();
        assert_eq!(before.iter().sum::<u64>(), 333_283_335_000);
        assert_eq!(format!("{:?}", std::time::Duration::from_millis(1_500)), "1.5s");
    }
}
