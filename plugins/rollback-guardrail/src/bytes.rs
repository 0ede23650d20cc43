//! The state's bytes: little-endian numbers in a fixed order, each looked at when it is read.

/// Writes a state.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64s(&mut self, values: &[f64]) {
        values.iter().for_each(|value| self.f64(*value));
    }

    /// A text of at most 255 bytes.
    pub(crate) fn text(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        self.u8(length);
        self.bytes.extend_from_slice(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
    }

    pub(crate) fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a state. Every answer is an error rather than a guess.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, read: 0 }
    }

    fn take(&mut self, what: &str, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| format!("the state ends at byte {} inside of {what}", self.read + self.rest.len()))?;
        self.rest = rest;
        self.read += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, String> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A yes or no.
    pub(crate) fn bool(&mut self, what: &str) -> Result<bool, String> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.refuse(what, &other.to_string(), "0 or 1")),
        }
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number within `least..=most`; not NaN, not infinite.
    pub(crate) fn f64(&mut self, what: &str, least: f64, most: f64) -> Result<f64, String> {
        let value = f64::from_le_bytes(self.array(what)?);
        if value.is_finite() && (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(self.refuse(what, &value.to_string(), &format!("a number from {least:e} to {most:e}")))
    }

    pub(crate) fn f64s(&mut self, what: &str, values: &mut [f64], least: f64, most: f64) -> Result<(), String> {
        for value in values {
            *value = self.f64(what, least, most)?;
        }
        Ok(())
    }

    pub(crate) fn text(&mut self, what: &str) -> Result<&'a str, String> {
        let length = usize::from(self.u8(what)?);
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes).map_err(|_| self.refuse(what, "bytes", "UTF-8 text"))
    }

    pub(crate) fn refuse(&self, what: &str, value: &str, allowed: &str) -> String {
        format!("the state has {what} = {value} before byte {}, where it must be {allowed}", self.read)
    }

    /// # Errors
    /// When there is more than was read.
    pub(crate) fn end(self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("the state has {} bytes behind its end", self.rest.len())) }
    }
}
