//! Plugins for tests: the shipped one, variants of it, and the hostile ones.

use std::path::Path;

/// A hostile guest as built by the build script: it misbehaves from the first decision on.
pub fn hostile(name: &str) -> Vec<u8> {
    read(&Path::new(env!("SWITCHBACK_GUESTS")).join(format!("{name}.wasm")))
}

/// A hostile guest that behaves until `flag.misbehave` is set.
pub fn sleeper(name: &str) -> Vec<u8> {
    read(&Path::new(env!("SWITCHBACK_GUESTS")).join("sleepers").join(format!("{name}.wasm")))
}

/// The shipped policy with a custom section more: the same decisions, another digest.
pub fn variant_of_split_weighted(number: u64) -> Vec<u8> {
    let mut bytes = read(&Path::new(env!("SWITCHBACK_GUESTS")).join("split-weighted.wasm"));
    let name = b"variant";
    let text = number.to_string();
    // Section id 0, its size, the length of its name, its name, its content: all below 128, so each number is one byte.
    let size = 1 + name.len() + text.len();
    bytes.extend([0, u8::try_from(size).unwrap(), u8::try_from(name.len()).unwrap()]);
    bytes.extend(name);
    bytes.extend(text.as_bytes());
    bytes
}

/// The shipped policy with rules, as a file.
pub fn split_rules() -> Vec<u8> {
    read(&Path::new(env!("SWITCHBACK_GUESTS")).join("split-rules.wasm"))
}

/// The example in C. It is built where there is a clang.
pub fn c_split() -> Vec<u8> {
    let path = Path::new(env!("SWITCHBACK_GUESTS")).join("c-split.wasm");
    assert!(
        path.exists(),
        "the guest in C was not built: install clang and lld (scripts/install_test_tools.sh clang) and build the tests again"
    );
    read(&path)
}

/// Puts a plugin into a watched folder, whole at once.
pub fn install(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder).unwrap();
    let part = folder.join(format!(".{name}.part"));
    std::fs::write(&part, bytes).unwrap();
    std::fs::rename(part, folder.join(format!("{name}.wasm"))).unwrap();
}

/// SHA-256 in hex, as flags and status name a plugin.
pub fn digest(bytes: &[u8]) -> String {
    switchback::policy::digest(bytes)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
