//! A hostile guest: it is made for another version of the interface.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    inline: r#"
        package switchback:policy@0.9.0;
        interface split {
            route: func(position: u32) -> u32;
        }
        world split-policy {
            export split;
        }
    "#,
});

struct WrongVersion;

impl exports::switchback::policy::split::Guest for WrongVersion {
    fn route(_position: u32) -> u32 {
        0
    }
}

export!(WrongVersion);
