//! WASI, as a policy gets it: everything is there, and everything traps.
//!
//! `wasm32-wasip2` imports a dozen WASI interfaces through the standard library even where nothing calls them. With these stubs
//! such a component loads as it is, and is granted nothing.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};

use super::engine::Guest;

/// Defines every `wasi:` import of a component as a trap that names it. (wasmtime's own way to do this defines every import that is
/// not there under its exact version, ours among them, and so would keep `log@0.1.7` from finding `log@0.1.0`.)
///
/// # Errors
/// When an import is of a kind that WASI does not have: a module or a component.
pub(super) fn stub_wasi(linker: &mut Linker<Guest>, component: &Component) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    for (interface, import) in component.component_type().imports(&engine) {
        if !interface.starts_with("wasi:") {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            return Err(wasmtime::Error::msg(format!("{interface} is not imported as an interface")));
        };
        let mut stubs = linker.instance(interface)?;
        for (name, export) in instance.exports(&engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    let trap = format!("it called {interface}#{name}, which no policy gets");
                    stubs.func_new(name, move |_, _, _, _| Err(wasmtime::Error::msg(trap.clone())))?;
                }
                ComponentItem::Resource(_) => stubs.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?,
                ComponentItem::Type(_) => {}
                _ => return Err(wasmtime::Error::msg(format!("{interface}#{name} is neither a function nor a type"))),
            }
        }
    }
    Ok(())
}
