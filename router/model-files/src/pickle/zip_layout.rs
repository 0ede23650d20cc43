//! ZIP archives, read strictly: the entries lie one after another from the first byte to the central directory, and both of their headers
//! say the same. Then every reader sees the same archive. (The crate `zip` is made to read what is there: it takes archives with other
//! bytes in front, between and after the entries, and the last of two entries of one name; so only the decompressor is a library's.)

use std::collections::HashSet;

use super::error::shown;

/// The longest name, in bytes.
const NAME_BYTES: usize = 512;
/// Local headers begin so.
pub(super) const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL_NUMBER: u32 = 0x0403_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;
/// Says that the number is in the extra field.
const IN_EXTRA: u32 = u32::MAX;
/// Extra fields that give an entry another name: in another encoding, and Info-ZIP's in Unicode, which Python takes from 3.12 on and does not before. (Its twin for comments,
/// 0x6375, names nothing.)
const NAMING: [u16; 2] = [0x0008, 0x7075];
/// Flags that may be set: sizes come after the data; names are UTF-8; two bits of how hard the packer tried. Where the second is not set, some take a name for code page 437
/// and not for UTF-8. What is ASCII is the same in both, and what is not is ASCII in neither: every name that an entry is known by here, and `schema.json`, is ASCII.
const FLAGS: u16 = 0x0008 | 0x0800 | 0x0006;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: String,
    /// Whether it is deflated; it is stored otherwise.
    pub(super) is_deflated: bool,
    pub(super) crc: u32,
    /// Its bytes in the archive.
    pub(super) packed: &'a [u8],
    /// Its size after unpacking.
    pub(super) bytes: u64,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    bytes: u64,
    name: Vec<u8>,
    offset: u64,
    has_64: bool,
    /// An extra field gives another name.
    is_renamed: bool,
}

/// All entries of an archive, in the order of its bytes.
pub(super) fn entries(bytes: &[u8], most: usize) -> Result<Vec<Entry<'_>>, String> {
    let end = End::read(bytes)?;
    if end.count > most as u64 {
        return Err(format!("the archive has {} entries: at most {most} are looked at", end.count));
    }
    let start = usize::try_from(end.offset).map_err(|_| broken("its end"))?;
    let mut directory = Fields(bytes.get(start..end.directory_end).ok_or_else(|| broken("its end"))?);
    let mut headers = Vec::new();
    for _ in 0..end.count {
        headers.push(central(&mut directory).ok_or_else(|| broken("its directory"))?);
    }
    if !directory.0.is_empty() {
        return Err(broken("its directory"));
    }
    headers.sort_by_key(|header| header.offset);
    let mut names = HashSet::new();
    let mut entries = Vec::new();
    let mut files = headers.iter().peekable();
    let mut at = 0;
    while let Some(header) = files.next() {
        let name = checked_name(&header.name)?;
        if header.is_renamed {
            return Err(renamed(name));
        }
        // What differs only in case is one file for some.
        if !names.insert(name.to_lowercase()) {
            return Err(format!("two entries of the archive are called {}", shown(name)));
        }
        let next = files.peek().map_or(end.offset, |next| next.offset);
        if header.offset != at || next < at {
            return Err(format!("{}: entries overlap, or there is something between them", shown(name)));
        }
        entries.push(entry(bytes, header, name, next)?);
        at = next;
    }
    if at != end.offset {
        return Err("there is something between the entries and the directory of the archive".to_owned());
    }
    Ok(entries)
}

/// The end of an archive.
struct End {
    count: u64,
    offset: u64,
    directory_end: usize,
}

impl End {
    fn read(bytes: &[u8]) -> Result<End, String> {
        let whole = || broken("its end; nothing may come after it, a comment neither");
        let at = bytes.len().checked_sub(END_BYTES).ok_or_else(whole)?;
        let mut fields = Fields(bytes.get(at..).unwrap_or_default());
        let read = |fields: &mut Fields<'_>| {
            let (sign, disks) = (fields.u32()?, fields.u32()?);
            let (here, count) = (fields.u16()?, fields.u16()?);
            let (size, offset, comment) = (fields.u32()?, fields.u32()?, fields.u16()?);
            (sign == END && disks == 0 && here == count && comment == 0).then_some((count, size, offset))
        };
        let (count, size, offset) = read(&mut fields).ok_or_else(whole)?;
        let long =
            at.checked_sub(LOCATOR_BYTES).and_then(|from| bytes.get(from..at)).filter(|bytes| Fields(bytes).u32() == Some(LOCATOR_64));
        let (end, size) = if let Some(locator) = long {
            let (end, size) = End::read_64(bytes, at, locator).ok_or_else(whole)?;
            let agrees = |short: u32, long: u64| short == IN_EXTRA || u64::from(short) == long;
            let counts = count == u16::MAX || u64::from(count) == end.count;
            if !counts || !agrees(u32::try_from(size).unwrap_or(IN_EXTRA), size) || !agrees(offset, end.offset) {
                return Err("the archive has two ends that say different things".to_owned());
            }
            (end, size)
        } else {
            (End { count: u64::from(count), offset: u64::from(offset), directory_end: at }, u64::from(size))
        };
        let fits = end.offset.checked_add(size) == u64::try_from(end.directory_end).ok();
        if fits { Ok(end) } else { Err(broken("its end")) }
    }

    fn read_64(bytes: &[u8], end_at: usize, locator: &[u8]) -> Option<(End, u64)> {
        let mut fields = Fields(locator);
        let (_, _, place, _) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.u32()?);
        let at = end_at.checked_sub(LOCATOR_BYTES)?.checked_sub(END_64_BYTES)?;
        let mut fields = Fields(bytes.get(at..at.checked_add(END_64_BYTES)?)?);
        let (sign, size, _versions) = (fields.u32()?, fields.u64()?, fields.u32()?);
        let (disks, here, count) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (directory_size, offset) = (fields.u64()?, fields.u64()?);
        let is_good = sign == END_64 && size == 44 && disks == 0 && here == count && u64::try_from(at) == Ok(place);
        is_good.then_some((End { count, offset, directory_end: at }, directory_size))
    }
}

fn central(fields: &mut Fields<'_>) -> Option<Header> {
    if fields.u32()? != CENTRAL {
        return None;
    }
    let _versions = fields.u32()?;
    let (flags, method, _time) = (fields.u16()?, fields.u16()?, fields.u32()?);
    let (crc, packed, bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (disk, _inner, _outer, offset) = (fields.u16()?, fields.u16()?, fields.u32()?, fields.u32()?);
    let (name, extra, _) = (fields.take(name)?, fields.take(extra)?, fields.take(comment)?);
    let mut long = Long::find(extra)?;
    let header = Header {
        flags,
        method,
        crc,
        bytes: long.number(bytes)?,
        packed: long.number(packed)?,
        offset: long.number(offset)?,
        name: name.to_vec(),
        has_64: long.is_there,
        is_renamed: long.is_renamed,
    };
    (disk == 0).then_some(header)
}

/// The local header and the data of an entry, which ends where `next` begins.
fn entry<'a>(bytes: &'a [u8], header: &Header, name: &str, next: u64) -> Result<Entry<'a>, String> {
    let differ = || format!("{}: its two headers differ, or it is not as long as they say", shown(name));
    if header.flags & !FLAGS != 0 || !matches!(header.method, 0 | 8) {
        return Err(format!("{}: it is encrypted, or packed in another way than by deflate", shown(name)));
    }
    let whole = usize::try_from(header.offset).ok().zip(usize::try_from(next).ok()).and_then(|(from, to)| bytes.get(from..to));
    let mut fields = Fields(whole.ok_or_else(differ)?);
    let (local, has_64) = local(&mut fields).ok_or_else(differ)?;
    let has_descriptor = header.flags & 0x0008 != 0;
    let is_open = has_descriptor && (local.crc, local.packed, local.bytes) == (0, 0, 0);
    if local.is_renamed {
        return Err(renamed(name));
    }
    let agrees = (local.flags, local.method, &local.name) == (header.flags, header.method, &header.name)
        && (is_open || (local.crc, local.packed, local.bytes) == (header.crc, header.packed, header.bytes));
    let packed = usize::try_from(header.packed).ok().and_then(|packed| fields.take_bytes(packed)).filter(|_| agrees).ok_or_else(differ)?;
    // The archive writer of torch sets the flag for empty entries, and writes nothing after them.
    let is_empty = fields.0.is_empty() && (!has_descriptor || header.bytes == 0);
    let is_whole = is_empty || (has_descriptor && is_descriptor(fields.0, header, has_64));
    let is_size = header.method == 8 || header.packed == header.bytes;
    if !is_whole || !is_size {
        return Err(differ());
    }
    Ok(Entry { name: name.to_owned(), is_deflated: header.method == 8, crc: header.crc, packed, bytes: header.bytes })
}

fn local(fields: &mut Fields<'_>) -> Option<(Header, bool)> {
    if fields.u32()? != LOCAL_NUMBER {
        return None;
    }
    let (_version, flags, method, _time) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u32()?);
    let (crc, packed, bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name, extra) = (fields.u16()?, fields.u16()?);
    let (name, extra) = (fields.take(name)?, fields.take(extra)?);
    let mut long = Long::find(extra)?;
    let (bytes, packed) = (long.number(bytes)?, long.number(packed)?);
    let (has_64, is_renamed) = (long.is_there, long.is_renamed);
    Some((Header { flags, method, crc, packed, bytes, name: name.to_vec(), offset: 0, has_64, is_renamed }, has_64))
}

/// What may come after the data: the checksum and the sizes again, with or without a signature.
fn is_descriptor(bytes: &[u8], header: &Header, has_64: bool) -> bool {
    let mut fields = Fields(bytes);
    if bytes.len().is_multiple_of(8) && fields.u32() != Some(DESCRIPTOR) {
        return false;
    }
    if fields.u32() != Some(header.crc) {
        return false;
    }
    let sizes = match fields.0.len() {
        8 => fields.u32().map(u64::from).zip(fields.u32().map(u64::from)),
        16 if has_64 || header.has_64 || bytes.len() == 24 => fields.u64().zip(fields.u64()),
        _ => None,
    };
    sizes == Some((header.packed, header.bytes))
}

/// A name inside the archive: relative, without steps up, and one that no two systems read differently.
fn checked_name(name: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(name).map_err(|_| "a name in the archive is not UTF-8".to_owned())?;
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '\\' | ':');
    let is_path = text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if name.len() > NAME_BYTES || text.chars().any(is_odd) || !is_path {
        return Err(format!("{}: the name leads out of the archive, or is no file's", shown(text)));
    }
    Ok(text)
}

fn renamed(name: &str) -> String {
    format!("{}: an extra field gives it another name, which some readers take", shown(name))
}

/// The extra field with 64-bit numbers.
struct Long<'a> {
    rest: Fields<'a>,
    is_there: bool,
    /// There is also one that gives another name.
    is_renamed: bool,
}

impl<'a> Long<'a> {
    /// None: the extra fields are broken, or there are two of them.
    fn find(extra: &'a [u8]) -> Option<Long<'a>> {
        let mut fields = Fields(extra);
        let mut long = Long { rest: Fields(&[]), is_there: false, is_renamed: false };
        while !fields.0.is_empty() {
            let (kind, size) = (fields.u16()?, fields.u16()?);
            let bytes = fields.take(size)?;
            if kind == 1 {
                if long.is_there {
                    return None;
                }
                (long.rest, long.is_there) = (Fields(bytes), true);
            }
            long.is_renamed |= NAMING.contains(&kind);
        }
        Some(long)
    }

    /// A number that is here when the short one says so.
    fn number(&mut self, short: u32) -> Option<u64> {
        if short == IN_EXTRA { self.rest.u64() } else { Some(u64::from(short)) }
    }
}

/// Little-endian numbers, one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take_bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn take(&mut self, count: u16) -> Option<&'a [u8]> {
        self.take_bytes(usize::from(count))
    }

    fn u16(&mut self) -> Option<u16> {
        self.take_bytes(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take_bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take_bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

fn broken(what: &str) -> String {
    format!("the archive is broken at {what}")
}
