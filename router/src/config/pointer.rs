//! JSON pointers (RFC 6901) into response bodies, with `*` for each element of an array.

/// A pointer, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    steps: Vec<Option<String>>,
}

/// Steps of one pointer.
const STEPS: usize = 16;
/// Its length.
const BYTES: usize = 256;

impl Pointer {
    /// Reads one; `None` where it is none, leads to the whole body, or is too long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Pointer> {
        let steps: Vec<&str> = text.strip_prefix('/').filter(|_| text.len() <= BYTES)?.split('/').collect();
        let is_escaped = |step: &&str| step.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if steps.len() > STEPS || !steps.iter().all(is_escaped) {
            return None;
        }
        let name = |step: &str| (step != "*").then(|| step.replace("~1", "/").replace("~0", "~"));
        Some(Pointer { text: text.to_owned(), steps: steps.into_iter().map(name).collect() })
    }

    /// Names of fields or numbers of elements, in order; `None` is each element.
    #[must_use]
    pub fn steps(&self) -> &[Option<String>] {
        &self.steps
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_read_as_the_rfc_has_it() {
        let steps = |text: &str| Pointer::parse(text).map(|pointer| pointer.steps);
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(steps("/hits/*/a~1b~0c"), Some(vec![name("hits"), None, name("a/b~c")]));
        assert_eq!(steps("/"), Some(vec![name("")]));
        for bad in ["", "hits", "/a~", "/a~2", &"/a".repeat(17), &format!("/{}", "a".repeat(256))] {
            assert_eq!(steps(bad), None, "{bad}");
        }
    }
}
