//! Reads alongside traffic: each sees one consistent state and blocks nobody.

use std::thread;

use serde_json::json;

use aegis_gateway::service::operators::Actor;
use aegis_gateway::service::{Error, Keys, Page, approvals, audit, decisions, policies};
use aegis_gateway::store;

use crate::support::{Home, wait_until};

#[test]
fn every_statement_of_a_read_aside_sees_one_state() {
    let home = Home::new();
    let (gateway, guard) = home.services();
    let versions = |view: &_| store::policies::versions(view, "p", 10, 0).map(|all| all.len());
    let create = || {
        let rule = json!({"id": "r", "effect": "deny", "when": {"tool": "none"}});
        let document = json!({"rules": [rule]}).to_string();
        policies::create(&gateway, Actor::configured(), "p".to_owned(), "n".to_owned(), document)
    };
    create().expect("created");
    let seen: Result<_, store::Error> = gateway.store.read_aside(|view| {
        let before = versions(view)?;
        create().expect("created");
        Ok((before, versions(view)?))
    });
    assert_eq!(seen.expect("read"), (1, 1));
    assert_eq!(gateway.store.read_aside(versions).expect("read"), 2, "another view");
    gateway.store.close().expect("closed");
    guard.release().expect("released");
}

#[test]
fn a_list_waits_for_no_other_reader() {
    let home = Home::new();
    let (gateway, guard) = home.services();
    let page = Page { limit: 50, offset: 0 };
    let without_index = store::decisions::Filter { text: Some("x".to_owned()), ..Default::default() };
    let lists: [&(dyn Fn() -> Result<usize, Error> + Sync); 4] = [
        &|| decisions::list(&gateway, &without_index, &Keys::default(), page).map(|all| all.decisions.len()),
        &|| audit::list(&gateway, &store::audit::Filter::default(), page).map(|all| all.len()),
        &|| approvals::list(&gateway, &Actor::configured(), page).map(|all| all.len()),
        &|| policies::list(&gateway, page).map(|all| all.len()),
    ];
    thread::scope(|scope| {
        let meanwhile: Result<(), store::Error> = gateway.store.read(|_| {
            let running = lists.map(|list| scope.spawn(list));
            wait_until("every list is there", || running.iter().all(|list| list.is_finished()));
            let counts = running.map(|list| list.join().expect("no panic").expect("listed"));
            assert_eq!(counts, [0; 4]);
            Ok(())
        });
        meanwhile.expect("read");
    });
    gateway.store.close().expect("closed");
    guard.release().expect("released");
}

#[test]
fn a_stop_ends_what_takes_long_and_lets_a_list_finish() {
    let home = Home::new();
    let (gateway, guard) = home.services();
    let page = Page { limit: 50, offset: 0 };
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let count = |view: &rusqlite::Connection| {
        view.query_row(endless, [], |_| Ok(())).map_err(store::Error::cannot("count without end"))
    };
    thread::scope(|scope| {
        let counting = scope.spawn(|| gateway.store.read_aside(count));
        gateway.store.end_long_work();
        assert_eq!(approvals::list(&gateway, &Actor::configured(), page).expect("listed").len(), 0);
        let error = counting.join().expect("no panic").expect_err("it ends");
        assert!(error.is_stop(), "{error}");
    });
    gateway.store.close().expect("closed");
    let late = gateway.store.read_aside(|_| Ok::<_, store::Error>(()));
    assert!(matches!(late, Err(store::Error::Closed)), "{late:?}");
    guard.release().expect("released");
}

/// Number of newer approvals listed before the one being edited.
const NEWER: usize = 10_001;

#[test]
fn a_list_of_approvals_shows_each_as_it_was_at_one_moment_however_far_back() {
    const EDITS: usize = 300;
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let asked = agent.ask("write", "semi_trusted_customer");
    let id = asked.body["approval"]["approval_id"].as_str().expect("an id");
    assert_eq!(gateway.stop(), 0);
    home.sql(&format!(
        "INSERT INTO approvals (id, decision_id, agent_id, status, original_action_hash, action_hash, \
         tool_call, approver_group, created_at, expires_at) \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {NEWER}) \
         SELECT i, i, agent_id, status, original_action_hash, action_hash, tool_call, approver_group, \
         created_at, expires_at FROM approvals, n"
    ));
    let gateway = home.start();
    let edit = |number: usize| {
        let call = json!({"tool": "t", "action": "write", "resource": "r", "mutates_state": true,
                          "parameters": {"amount": number}});
        let body = json!({"approver_user_id": "alice", "edited_tool_call": call});
        let answer = gateway.operator("POST", &format!("/v1/approvals/{id}/edit"), Some(&body));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    thread::scope(|scope| {
        let editing = scope.spawn(|| (0..EDITS).for_each(edit));
        while !editing.is_finished() {
            let listed = gateway.get(&format!("/v1/approvals?limit=1&offset={NEWER}"));
            assert_eq!(listed[0]["approval_id"], id, "{listed}");
        }
    });
}
