//! What is tidied up while the gateway runs, and when it stops.

use std::sync::Arc;

use aegis_gateway::service::housekeeping;

use crate::support::Home;

#[test]
fn once_it_is_stopped_its_thread_has_ended() {
    let home = Home::new();
    let (gateway, guard) = home.services();
    let gateway = Arc::new(gateway);
    housekeeping::start(&gateway).expect("started");
    housekeeping::stop(&gateway);
    assert_eq!(Arc::strong_count(&gateway), 1);
    gateway.store.close().expect("closed");
    guard.release().expect("released");
}
