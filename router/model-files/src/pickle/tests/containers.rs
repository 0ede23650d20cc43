//! Archives and compressed files, good and hostile.

use std::io::Write;

use super::super::{Allowed, Container, Limits, Unsafe, examine};
use super::asm::Asm;
use super::{look, refused, refused_globals};

/// An entry of an archive that is written by hand.
#[derive(Clone)]
pub(super) struct Part {
    name: &'static str,
    local_name: &'static str,
    data: Vec<u8>,
    flags: u16,
    pub(super) deflated: bool,
    /// Extra fields of the directory's header, and of the local one.
    pub(super) extra: Vec<u8>,
    pub(super) local_extra: Vec<u8>,
}

pub(super) fn part(name: &'static str, data: &[u8]) -> Part {
    Part { name, local_name: name, data: data.to_vec(), flags: 0, deflated: false, extra: Vec::new(), local_extra: Vec::new() }
}

/// Info-ZIP's extra field of the kind `kind`, which says that an entry called `name` is called otherwise.
pub(super) fn renaming(kind: u16, name: &str, other: &str) -> Vec<u8> {
    let data = [&[1_u8][..], &crc32fast::hash(name.as_bytes()).to_le_bytes(), other.as_bytes()].concat();
    [&kind.to_le_bytes()[..], &u16::try_from(data.len()).unwrap().to_le_bytes(), &data].concat()
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

/// The archive, and where the central directory is.
pub(super) fn zip(parts: &[Part]) -> (Vec<u8>, usize) {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for part in parts {
        let packed = if part.deflated { deflated(&part.data) } else { part.data.clone() };
        let head = |name: &str, extra: &[u8]| {
            let mut head = Vec::new();
            head.extend_from_slice(&[20, 0]);
            head.extend_from_slice(&part.flags.to_le_bytes());
            head.extend_from_slice(&[if part.deflated { 8 } else { 0 }, 0, 0, 0, 0, 0]);
            head.extend_from_slice(&crc32fast::hash(&part.data).to_le_bytes());
            head.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
            head.extend_from_slice(&u32::try_from(part.data.len()).unwrap().to_le_bytes());
            head.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            head.extend_from_slice(&u16::try_from(extra.len()).unwrap().to_le_bytes());
            head
        };
        let offset = u32::try_from(bytes.len()).unwrap();
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend_from_slice(&head(part.local_name, &part.local_extra));
        bytes.extend_from_slice(part.local_name.as_bytes());
        bytes.extend_from_slice(&part.local_extra);
        bytes.extend_from_slice(&packed);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&head(part.name, &part.extra));
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(part.name.as_bytes());
        directory.extend_from_slice(&part.extra);
    }
    let at = bytes.len();
    let count = u16::try_from(parts.len()).unwrap().to_le_bytes();
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&count);
    bytes.extend_from_slice(&count);
    bytes.extend_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    (bytes, at)
}

fn payload() -> Vec<u8> {
    Asm::protocol(2).global("os", "system").stop()
}

fn state() -> Vec<u8> {
    Asm::protocol(2)
        .raw(b"}")
        .text("w")
        .global("torch._utils", "_rebuild_tensor_v2")
        .raw(b"((")
        .text("storage")
        .global("torch", "FloatStorage")
        .text("0")
        .text("cpu")
        .raw(b"K\x06tQ")
        .raw(b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89")
        .global("collections", "OrderedDict")
        .raw(b")RtRs")
        .stop()
}

fn torch() -> Vec<Part> {
    // What is in a storage is never unpickled: six numbers.
    let mut numbers = payload();
    numbers.resize(24, 0);
    vec![part("m/data.pkl", &state()), part("m/data/0", &numbers), part("m/version", b"3\n"), part("m/byteorder", b"little")]
}

fn with(extra: Part) -> Vec<u8> {
    let mut parts = torch();
    parts.push(extra);
    zip(&parts).0
}

#[test]
fn a_torch_archive_is_accepted() {
    let examined = look(&zip(&torch()).0).unwrap();
    assert_eq!((examined.container, examined.pickles), (Container::Torch, 1));
    assert_eq!(examined.globals, ["collections.OrderedDict", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2"]);
    for (bytes, says) in [(vec![0; 23], "it has 23 bytes"), (vec![0; 25], "it has 25 bytes")] {
        let mut parts = torch();
        parts[1] = part("m/data/0", &bytes);
        assert_eq!(refused(&zip(&parts).0), format!("data/0, at byte 0: a storage of a tensor has 24 bytes, and {says}"));
    }
    let mut parts = torch();
    parts.remove(1);
    assert!(refused(&zip(&parts).0).contains("it is not there"));
    // The same pickle outside of an archive names storages that are not there.
    assert!(refused(&state()).contains("outside of the pickle"));
}

#[test]
fn a_payload_in_an_archive_is_found_wherever_it_is() {
    let mut parts = torch();
    parts[0].data = payload();
    assert_eq!(refused(&zip(&parts).0), "m/data.pkl, at byte 2 (GLOBAL): names os.system, which is not among the allowed globals");
    parts[0].deflated = true;
    assert_eq!(refused_globals(&zip(&parts).0), ["os.system"]);
    for name in ["m/extra", "m/data/x", "m/data/0.bin", "m/code/model"] {
        assert_eq!(refused_globals(&with(part(name, &payload()))), ["os.system"], "{name}");
    }
}

#[test]
fn an_entry_of_another_kind_is_refused() {
    let good = Asm::protocol(2).raw(b"N").stop();
    for (name, data) in [
        ("m/constants.pkl", &good[..]),
        ("m/code/__torch__.py", b"import os"),
        ("m/lib.so", b"\x7fELF"),
        ("m/inner.zip", b"PK\x03\x04"),
        ("m/inner", b"PK\x03\x04"),
        ("m/notes.txt", b"hello"),
        ("m/version2", b"3"),
        ("m/x.pkl", b"(lp0\n."),
    ] {
        assert!(refused(&with(part(name, data))).contains("neither torch's nor numpy's"), "{name}");
    }
    assert!(refused(&with(part("n/data.pkl", &good))).contains("neither torch's (one data.pkl)"));
    assert!(refused(&with(part("n/version", b"3"))).contains("more than one folder"));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../data.pkl", "/m/data/1", "m/../data/1", "m\\data\\1", "m//data/1", "c:/data/1", "m/data/1\0.npy", "m/", "m/./data/1"] {
        assert!(refused(&with(part(name, b"x"))).contains("leads out of the archive"), "{name:?}");
    }
    assert!(refused(&with(part("m/data/0", b"x"))).contains("two entries"));
    assert!(refused(&with(part("M/DATA/0", b"x"))).contains("two entries"));
}

#[test]
fn headers_that_differ_are_refused() {
    let mut other = part("m/data/1", b"x");
    other.local_name = "m/data/2";
    assert!(refused(&with(other)).contains("two headers differ"));
    let mut secret = part("m/data/1", b"x");
    secret.flags = 1;
    assert!(refused(&with(secret)).contains("encrypted"));
    // Each number of the local header says something else than the directory's.
    let (good, _) = zip(&torch());
    for at in [6, 8, 14, 18, 22, 26] {
        let mut bytes = good.clone();
        bytes[at] ^= 2;
        assert!(look(&bytes).is_err(), "byte {at}");
    }
}

#[test]
fn an_extra_field_gives_no_entry_another_name() {
    for (kind, is_refused) in [(0x7075, true), (0x0008, true), (0x6375, false), (0x5455, false)] {
        let other = renaming(kind, "m/data/1", "m/data.pkl");
        for (extra, local_extra) in [(other.clone(), Vec::new()), (Vec::new(), other.clone()), (other.clone(), other.clone())] {
            let bytes = with(Part { extra, local_extra, ..part("m/data/1", b"x") });
            if is_refused {
                assert!(refused(&bytes).starts_with("m/data/1: an extra field gives it another name"), "{kind:#x}");
            } else {
                assert!(look(&bytes).is_ok(), "{kind:#x}");
            }
        }
    }
}

#[test]
fn every_changed_byte_outside_of_raw_data_is_noticed_or_harmless() {
    let (good, directory) = zip(&torch());
    for at in directory..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        // Versions, times and attributes say nothing about the contents.
        if let Ok(examined) = look(&bytes) {
            assert_eq!(examined.globals.len(), 3, "byte {at}");
        }
    }
}

#[test]
fn what_is_between_around_or_behind_is_refused() {
    let (good, directory) = zip(&torch());
    assert!(look(&good).is_ok());
    assert!(refused(&[good.as_slice(), b"x"].concat()).contains("nothing may come after it"));
    assert!(refused(&[good.as_slice(), &payload()].concat()).contains("nothing may come after it"));
    assert!(refused(&[payload(), good.clone()].concat()).contains("also a ZIP archive"));
    let padded = [&good[..directory], b"hidden".as_slice(), &good[directory..]].concat();
    assert!(look(&padded).is_err());
    // A pickle that has a whole archive as a text in it, and ends where the archive's comment would.
    let inside =
        [b"\x80\x02T".as_slice(), &u32::try_from(good.len()).unwrap().to_le_bytes(), &good[..good.len() - 2], &[1, 0], b"."].concat();
    assert!(refused(&inside).contains("also a ZIP archive"));
    for other in [&b"7z\xbc\xaf\x27\x1c"[..], b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd", b"PK\x05\x06", b"\x89HDF", b"<html>"] {
        assert!(look(&[other, &[0; 40]].concat()).is_err(), "{other:?}");
    }
}

#[test]
fn a_wrong_checksum_is_refused() {
    let (mut bytes, _) = zip(&torch());
    let at = bytes.windows(6).position(|window| window == b"little").unwrap();
    bytes[at] = b'L';
    assert!(refused(&bytes).contains("the checksum"));
}

#[test]
fn bombs_are_refused() {
    let mut bomb = part("m/data/1", &vec![0; 80 << 20]);
    bomb.deflated = true;
    let bytes = with(bomb);
    assert!(bytes.len() < 100 << 10);
    assert!(refused(&bytes).contains("bytes after decompression for a file of this size"), "{}", refused(&bytes));
    let limits = Limits { unpacked_bytes: 1 << 10, ..Limits::default() };
    let packed = gzip(&Asm::protocol(3).raw(b"B\xff\xff\0\0").raw(&[0; 0xffff]).stop());
    let result = examine(&packed, &Allowed::default(), &limits);
    assert!(matches!(result, Err(Unsafe::Limit { what: "bytes after decompression", .. })), "{result:?}");
    let many = Limits { entries: 3, ..Limits::default() };
    assert!(examine(&zip(&torch()).0, &Allowed::default(), &many).unwrap_err().to_string().contains("at most 3"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_compressed_file_is_opened_once() {
    let good = Asm::protocol(2).raw(b"N").stop();
    let examined = look(&gzip(&good)).unwrap();
    assert_eq!((examined.container, examined.compression), (Container::Joblib, Some(super::super::Compression::Gzip)));
    assert_eq!(refused_globals(&gzip(&payload())), ["os.system"]);
    assert!(refused(&gzip(&gzip(&good))).contains("0x1f is no opcode"));
    assert!(refused(&gzip(&zip(&torch()).0)).contains("outside of the pickle"));
    assert!(refused(&[gzip(&good), gzip(&payload())].concat()).contains("come after the compressed stream"));
    assert!(refused(&[gzip(&good), payload()].concat()).contains("come after the compressed stream"));
    let whole = gzip(&good);
    for length in 0..whole.len() {
        assert!(look(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn array_files_hold_one_pickle_or_none() {
    let npy = |form: &str, data: &[u8]| {
        let text = format!("{{'descr': '{form}', 'fortran_order': False, 'shape': (1,), }}\n");
        [b"\x93NUMPY\x01\x00".as_slice(), &u16::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes(), data].concat()
    };
    // Raw data is data, whatever it looks like.
    assert!(look(&npy("|S14", &payload())).is_ok());
    assert!(refused(&npy("<f8", &payload())).contains("by its shape and type its data has 8 bytes, and there are 14"));
    assert_eq!(refused_globals(&npy("|O", &payload())), ["os.system"]);
    let npz = |name: &'static str, form: &str| zip(&[part(name, &npy(form, &payload()))]).0;
    assert_eq!(look(&npz("x.npy", "|S14")).unwrap().container, Container::Npz);
    assert_eq!(refused(&npz("x.npy", "|O")), "x.npy, at byte 69 (GLOBAL): names os.system, which is not among the allowed globals");
}
