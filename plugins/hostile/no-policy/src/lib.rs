//! A hostile guest: a component that is no policy at all.
#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    inline: r#"
        package somebody:calculator@1.0.0;
        world calculator {
            export add: func(left: u32, right: u32) -> u32;
        }
    "#,
});

struct NoPolicy;

impl Guest for NoPolicy {
    fn add(left: u32, right: u32) -> u32 {
        left.wrapping_add(right)
    }
}

export!(NoPolicy);
