//! A hostile guest: its exports have the right names and other types.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    inline: r#"
        package switchback:policy@0.1.0;
        interface split {
            configure: func(snapshot: string) -> string;
            route: func(position: u32) -> u32;
            route-fields: func(positions: list<u32>) -> u32;
        }
        world split-policy {
            export split;
        }
    "#,
});

struct WrongTypes;

impl exports::switchback::policy::split::Guest for WrongTypes {
    fn configure(snapshot: String) -> String {
        snapshot
    }

    fn route(_position: u32) -> u32 {
        0
    }

    fn route_fields(_positions: Vec<u32>) -> u32 {
        0
    }
}

export!(WrongTypes);
