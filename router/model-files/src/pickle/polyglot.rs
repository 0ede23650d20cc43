//! Files that are more than one thing: a loader that looks for a ZIP archive from the end, or for a tar archive before a pickle, would load
//! what was not walked.

const ZIP_END: &[u8] = b"PK\x05\x06";
const ZIP_END_BYTES: usize = 22;
/// The longest comment of a ZIP archive, in bytes: it is after the archive's end.
const ZIP_COMMENT_BYTES: usize = 65_535;
const TAR_BLOCK: usize = 512;
/// Where a tar header has its checksum; the checksum counts these bytes as spaces.
const TAR_SUM: std::ops::Range<usize> = 148..156;

/// What else a file is that is no archive by its first bytes.
pub(super) fn second_nature(bytes: &[u8]) -> Option<&'static str> {
    if has_zip_end(bytes) {
        return Some("a ZIP archive");
    }
    is_tar(bytes).then_some("a tar archive")
}

/// Whether there is the end of a ZIP archive whose comment reaches to the end of the file, or would reach over it.
fn has_zip_end(bytes: &[u8]) -> bool {
    let from = bytes.len().saturating_sub(ZIP_END_BYTES + ZIP_COMMENT_BYTES);
    let tail = bytes.get(from..).unwrap_or_default();
    tail.windows(ZIP_END_BYTES).enumerate().any(|(at, window)| {
        let comment = match window {
            [.., low, high] if window.starts_with(ZIP_END) => usize::from(u16::from_le_bytes([*low, *high])),
            _ => return false,
        };
        at + ZIP_END_BYTES + comment >= tail.len()
    })
}

/// Whether the first block is the header of a tar archive: its checksum is right. The old form of tar has no other mark, and old torch
/// files are tar archives.
fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..TAR_BLOCK) else { return false };
    let sum = |signed: bool| {
        let one = |(at, byte): (usize, &u8)| match (TAR_SUM.contains(&at), signed) {
            (true, _) => i64::from(b' '),
            (false, true) => i64::from(byte.cast_signed()),
            (false, false) => i64::from(*byte),
        };
        block.iter().enumerate().map(one).sum::<i64>()
    };
    let digits = block.get(TAR_SUM).unwrap_or_default();
    // Octal digits between spaces and zeros, or a number in base 256.
    let text: String = digits.iter().map(|byte| char::from(*byte)).collect();
    let text = text.trim_matches(|letter: char| letter == '\0' || letter.is_whitespace());
    let octal = i64::from_str_radix(text.split('\0').next().unwrap_or_default().trim(), 8);
    let binary = digits.split_first().filter(|(first, _)| matches!(**first, 0x80 | 0xff)).map(|(first, rest)| {
        let start = if *first == 0xff { -1 } else { 0 };
        rest.iter().fold(start, |number: i64, byte| number.wrapping_mul(256).wrapping_add(i64::from(*byte)))
    });
    let stated = binary.or_else(|| octal.ok());
    stated.is_some_and(|stated| stated == sum(false) || stated == sum(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zip_end_counts_only_where_a_reader_would_take_it() {
        let mut file = b"\x80\x02N.".to_vec();
        assert_eq!(second_nature(&file), None);
        file.extend_from_slice(ZIP_END);
        file.extend_from_slice(&[0; 18]);
        assert_eq!(second_nature(&file), Some("a ZIP archive"));
        file.extend_from_slice(b"more");
        assert_eq!(second_nature(&file), None);
        let at = file.len() - 6;
        file[at] = 4;
        assert_eq!(second_nature(&file), Some("a ZIP archive"));
    }

    #[test]
    fn a_tar_header_is_known_by_its_checksum() {
        let mut block = vec![0_u8; 512];
        block[..4].copy_from_slice(b"\x80\x02N.");
        assert_eq!(second_nature(&block), None);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(second_nature(&block), Some("a tar archive"));
    }
}
