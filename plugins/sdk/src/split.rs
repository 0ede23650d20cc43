//! The split side: the types of `wit/split.wit`, the trait that a policy implements, and the macro that exports it.

#[allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]
pub mod generated {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "split-policy",
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "switchback_policy::split::bindings",
    });
}

#[doc(hidden)]
pub use generated as bindings;

pub use generated::exports::switchback::policy::split::{Decision, Snapshot, Wanted};
pub use generated::switchback::policy::log::{Level, log};
pub use generated::switchback::policy::split_types::{Field, Reason, Salt, Share};

/// Positions run from 0 to one below this: a share in parts per million is compared with them directly.
pub const POSITIONS: u32 = 1_000_000;

/// A split policy, configured for one state of the flags.
pub trait SplitPolicy: Sized {
    /// Builds the policy for these flags, and says which salts and request fields it wants to see of each query.
    ///
    /// # Errors
    /// A sentence for the operator, when the flags or the policy's config make no sense. The previous one stays in force.
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String>;

    /// Routes one query by the unit's position, 0..[`POSITIONS`], under the one salt that was wanted.
    fn route(&self, position: u32) -> Decision;

    /// Routes one query by a position for each wanted salt and the wanted fields, in the order in which they were wanted.
    fn route_fields(&self, positions: &[u32], fields: &[Option<String>]) -> Decision {
        let _ = fields;
        self.route(positions.first().copied().unwrap_or(0))
    }
}

/// Exports a [`SplitPolicy`] as the component's `split` interface. Does nothing outside WebAssembly.
#[macro_export]
macro_rules! export_split_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::split::{Decision, Snapshot, SplitPolicy, Wanted};

            std::thread_local! {
                static POLICY: std::cell::RefCell<Option<$policy>> = const { std::cell::RefCell::new(None) };
            }

            struct Component;

            impl $crate::split::bindings::exports::switchback::policy::split::Guest for Component {
                fn configure(snapshot: Snapshot) -> Result<Wanted, String> {
                    let (policy, wanted) = <$policy as SplitPolicy>::configure(&snapshot)?;
                    POLICY.with(|slot| *slot.borrow_mut() = Some(policy));
                    Ok(wanted)
                }

                fn route(position: u32) -> Decision {
                    POLICY.with(|slot| match &*slot.borrow() {
                        Some(policy) => policy.route(position),
                        None => unreachable!("the host calls configure first"),
                    })
                }

                fn route_fields(positions: Vec<u32>, fields: Vec<Option<String>>) -> Decision {
                    POLICY.with(|slot| match &*slot.borrow() {
                        Some(policy) => policy.route_fields(&positions, &fields),
                        None => unreachable!("the host calls configure first"),
                    })
                }
            }

    $crate::split::bindings::export_component!(Component with_types_in $crate::split::bindings);
        };
    };
}
