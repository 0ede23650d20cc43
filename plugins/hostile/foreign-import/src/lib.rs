//! A hostile guest: it imports something that is neither ours nor WASI.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    inline: r#"
        package switchback:policy@0.1.0;
        interface secrets {
            read: func(name: string) -> string;
        }
        interface split {
            route: func(position: u32) -> u32;
        }
        world split-policy {
            import secrets;
            export split;
        }
    "#,
});

struct ForeignImport;

impl exports::switchback::policy::split::Guest for ForeignImport {
    fn route(_position: u32) -> u32 {
        u32::try_from(switchback::policy::secrets::read("salt").len()).unwrap_or(0)
    }
}

export!(ForeignImport);
