//! Writes pickles by hand.

/// A pickle that is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Asm(pub(super) Vec<u8>);

impl Asm {
    pub(super) fn protocol(protocol: u8) -> Asm {
        Asm(vec![0x80, protocol])
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Asm {
        self.0.extend_from_slice(bytes);
        self
    }

    /// SHORT_BINUNICODE.
    pub(super) fn text(self, text: &str) -> Asm {
        let length = u8::try_from(text.len()).unwrap();
        self.raw(&[0x8c, length]).raw(text.as_bytes())
    }

    /// GLOBAL.
    pub(super) fn global(self, module: &str, name: &str) -> Asm {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    /// STACK_GLOBAL.
    pub(super) fn stack_global(self, module: &str, name: &str) -> Asm {
        self.text(module).text(name).raw(b"\x93")
    }

    /// `numpy.dtype(form)` and its state with these flags; it is the top of the stack after that.
    pub(super) fn dtype(self, form: &str, order: &str, bytes: i8, flags: u8) -> Asm {
        let size = [
            b'J',
            bytes.cast_unsigned(),
            if bytes < 0 { 0xff } else { 0 },
            if bytes < 0 { 0xff } else { 0 },
            if bytes < 0 { 0xff } else { 0 },
        ];
        self.global("numpy", "dtype")
            .text(form)
            .raw(b"\x89\x88\x87R(K\x03")
            .text(order)
            .raw(b"NNN")
            .raw(&size)
            .raw(&size)
            .raw(&[b'K', flags])
            .raw(b"tb")
    }

    pub(super) fn stop(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }
}
