//! Cases as text, for people and for other programs to read: `=== VERDICT NAME`, then what is expected, then lines of bytes with escapes.

/// One case of `tests/smuggling/*.txt`.
pub struct Case {
    /// The first word of its title.
    pub verdict: String,
    /// The rest of it.
    pub name: String,
    /// What the other side should read, a line each: `> METHOD HOST TARGET BODY`.
    pub expected: Vec<String>,
    /// The other lines, still with their escapes.
    pub lines: Vec<String>,
}

impl Case {
    /// Every case of a file, in order. Empty lines and those that begin with `#` mean nothing.
    pub fn all(text: &str) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(title) = line.strip_prefix("=== ") {
                let (verdict, name) = title.split_once(' ').unwrap();
                cases.push(Case { verdict: verdict.to_owned(), name: name.to_owned(), expected: Vec::new(), lines: Vec::new() });
                continue;
            }
            let case = cases.last_mut().unwrap();
            match line.strip_prefix("> ") {
                Some(expected) => case.expected.push(String::from_utf8_lossy(&unescaped(expected)).into_owned()),
                None => case.lines.push(line.to_owned()),
            }
        }
        cases
    }

    /// Its lines as one row of bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| unescaped(line)).collect()
    }
}

/// The bytes that a line stands for: `\r`, `\n`, `\t`, `\xNN`, and `\` before anything else for itself.
pub fn unescaped(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut letters = line.bytes();
    while let Some(letter) = letters.next() {
        if letter != b'\\' {
            bytes.push(letter);
            continue;
        }
        bytes.push(match letters.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => {
                let digits = [letters.next().unwrap(), letters.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    bytes
}
