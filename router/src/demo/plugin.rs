//! Another build of the shipped split policy: the same code with another digest, as a new release of a plugin would have.

/// The shipped policy, as the build made it.
const SPLIT_WEIGHTED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/split-weighted.wasm"));
/// Name and content of the custom section that makes the difference. A WebAssembly runtime skips it.
const SECTION: (&[u8], &[u8]) = (b"build", b"demo");

/// The component with a custom section more: id 0, its size, the length of its name, the name, the content. All lengths are below
/// 128, so each is one byte of LEB128.
pub(super) fn another_build() -> Vec<u8> {
    let (name, content) = SECTION;
    let byte = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let mut component = SPLIT_WEIGHTED.to_vec();
    component.extend([0, byte(1 + name.len() + content.len()), byte(name.len())]);
    component.extend(name);
    component.extend(content);
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_shipped_policy_and_ends_with_the_mark() {
        let component = another_build();
        assert!(component.starts_with(SPLIT_WEIGHTED));
        assert_eq!(component.strip_prefix(SPLIT_WEIGHTED), Some(&b"\x00\x0a\x05builddemo"[..]));
    }
}
