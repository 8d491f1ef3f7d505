//! The edge core as a component of the typed world in `wit/`: bindings on one side, the core's
//! [`Host`](skerry_edge_core::ports::Host) on the other, and nothing in between.
//!
//! Invariant: no state of a request outlives it, since instances are reused; what stays is the
//! core's `WorkerState`, decoded copies of what the host holds, keyed by epoch. Every import is a
//! plain call that is done when it returns, so that one poll finishes the core's future.

#![cfg(target_family = "wasm")]

mod convert;
mod host;

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "edge" });
}

use bindings::skerry::edge::types::{Request, Response};

use skerry_edge_core::{WorkerState, serve};
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Once;
use std::task::{Context, Poll, Waker};

struct Worker;

thread_local! {
    static STATE: RefCell<WorkerState> = RefCell::new(WorkerState::default());
}
static PANICS_ARE_LOGGED: Once = Once::new();

impl bindings::Guest for Worker {
    fn handle(request: Request) -> Response {
        PANICS_ARE_LOGGED.call_once(|| {
            std::panic::set_hook(Box::new(|panic| host::log_panic(&panic.to_string())))
        });
        // The host never enters an instance twice at once.
        STATE.with_borrow_mut(|state| {
            convert::response(once(serve(
                &host::Imports,
                state,
                convert::request(request),
            )))
        })
    }
}

/// Runs a future whose every port call is done when it returns.
fn once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        // The core awaits nothing but ports: the trap discards this instance and the host answers.
        Poll::Pending => std::process::abort(),
    }
}

bindings::export!(Worker with_types_in bindings);
