//! Housekeeping: what is cleaned up while the gateway runs and when it stops.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use aegis_gateway::service::housekeeping;
use aegis_gateway::store::Error;

use crate::support::{Home, PATIENCE};

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

#[test]
fn a_call_that_the_database_keeps_is_told_and_not_tried_for_ever() {
    let home = Home::new();
    let (gateway, guard) = home.services();
    home.sql(
        "INSERT INTO approvals (id, decision_id, agent_id, status, original_action_hash, action_hash, tool_call, \
         approver_group, approver_user_id, decided_at, created_at, expires_at) \
         SELECT 'i', 'd', 'a', 'REJECTED', hash, hash, '{}', 'g', 'u', at, at, at \
         FROM (SELECT lower(hex(zeroblob(32))) AS hash, '2020-01-01T00:00:00.000000Z' AS at); \
         CREATE TRIGGER mine BEFORE UPDATE ON approvals BEGIN SELECT RAISE(IGNORE); END",
    );
    thread::scope(|scope| {
        let tidying = scope.spawn(|| housekeeping::tidy(&gateway));
        let deadline = Instant::now() + PATIENCE;
        while !tidying.is_finished() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(2));
        }
        housekeeping::stop(&gateway);
        let error = tidying.join().expect("no panic").expect_err("the call is there");
        assert!(matches!(&error, Error::Corrupt(what) if what.contains("kept them")), "{error}");
    });
    gateway.store.close().expect("closed");
    guard.release().expect("released");
}
