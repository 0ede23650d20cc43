//! The split side: the types of `wit/split.wit`, the trait that a policy implements, and the macro that exports it.

/// What `wit-bindgen` makes of `wit/split.wit`. Policies use what [`super::split`] re-exports; the macro uses the rest.
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "split-policy",
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "switchback_policy::split::bindings",
    });
}

pub use bindings::exports::switchback::policy::split::{Decision, Snapshot, Wanted};
pub use bindings::switchback::policy::log::Level;
pub use bindings::switchback::policy::split_types::{Field, Reason, Salt, Share};

/// Positions run from 0 to one below this: a share in parts per million is compared with them directly.
pub const POSITIONS: u32 = 1_000_000;

/// A split policy, configured for one state of the flags.
///
/// Implement [`SplitPolicy::route`] when the policy wants one salt and no fields (the cheap path), else
/// [`SplitPolicy::route_fields`]. Both must be pure: the same question has the same answer on every worker and every router, or
/// units change sides. A panic is a trap: the router takes its native decision for that query and counts a strike.
pub trait SplitPolicy: Sized {
    /// Builds the policy for these flags, and says which salts and request fields it wants to see of each query.
    ///
    /// # Errors
    /// A sentence for the operator, when the flags or the policy's config make no sense. The router decides natively until they change.
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String>;

    /// Routes one query by the unit's position, 0..[`POSITIONS`], under the one salt that was wanted. Asked when no field was
    /// wanted. Not implementing it is right for a policy that wants fields; it sees a query without any.
    fn route(&self, position: u32) -> Decision {
        self.route_fields(&[position], &[])
    }

    /// Routes one query by a position for each wanted salt and the wanted fields, in the order in which they were wanted. A
    /// field that the query does not have is `None`.
    fn route_fields(&self, positions: &[u32], fields: &[Option<&str>]) -> Decision {
        let _ = fields;
        self.route(positions.first().copied().unwrap_or(0))
    }
}

/// Writes one line to the router's log; to standard error when the policy is run natively, as in its own tests. At most 20 lines
/// a second and 512 bytes each get through.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    bindings::switchback::policy::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}

/// Exports a [`SplitPolicy`] as the component's `split` interface, and makes [`crate::blocks`] its global allocator. Does nothing outside WebAssembly.
#[macro_export]
macro_rules! export_split_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::split::{Decision, Snapshot, SplitPolicy, Wanted};

            #[global_allocator]
            static BLOCKS: $crate::blocks::Blocks<std::alloc::System> = $crate::blocks::Blocks::new(std::alloc::System);

            // One instance of the component runs on one thread and is never called while it is in a call, so that a thread-local
            // cell is a plain static here.
            std::thread_local! {
                static POLICY: std::cell::RefCell<Option<$policy>> = const { std::cell::RefCell::new(None) };
            }

            fn ask(question: impl FnOnce(&$policy) -> Decision) -> Decision {
                POLICY.with(|slot| match &*slot.borrow() {
                    Some(policy) => question(policy),
                    None => unreachable!("the host calls configure first"),
                })
            }

            struct Component;

            impl $crate::split::bindings::exports::switchback::policy::split::Guest for Component {
                fn configure(snapshot: Snapshot) -> Result<Wanted, String> {
                    let (policy, wanted) = <$policy as SplitPolicy>::configure(&snapshot)?;
                    POLICY.with(|slot| *slot.borrow_mut() = Some(policy));
                    Ok(wanted)
                }

                fn route(position: u32) -> Decision {
                    ask(|policy| policy.route(position))
                }

                // What is exported asks `decide`.
                fn route_fields(positions: Vec<u32>, fields: Vec<Option<String>>) -> Decision {
                    let fields: Vec<Option<&str>> = fields.iter().map(Option::as_deref).collect();
                    decide(&positions, &fields)
                }
            }

            fn decide(positions: &[u32], fields: &[Option<&str>]) -> Decision {
                ask(|policy| policy.route_fields(positions, fields))
            }

    $crate::split::bindings::export_component!(Component with_types_in $crate::abi);
        };
    };
}
