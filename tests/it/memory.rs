//! The memory that a client can make the gateway use is bounded.

use std::thread;

use crate::gate::support::process_number;
use crate::support::{Home, assert_failure};

const BODY_BYTES: usize = 1 << 20;
const RESIDENT_KIB_MAX: usize = 400 << 10;

/// A call with `element` repeated `count` times as parameters, padded to the maximum size.
fn call(element: &str, count: usize) -> String {
    let head = r#"{"tool":"t","action":"read","mutates_state":false,"parameters":["#;
    let elements = vec![element; count].join(",");
    let spaces = " ".repeat(BODY_BYTES - head.len() - elements.len() - 2);
    format!("{head}{elements}{spaces}]}}")
}

/// A value can take two bytes in a body and thirty times as many in memory.
#[test]
fn bodies_of_many_small_values_do_not_fill_the_memory() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (element, count) in [("0", 60_000), ("[0]", 30_000), (r#"{"a":0}"#, 30_000)] {
        let body = call(element, count);
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| assert_eq!(gateway.authorize(&agent.token, &body).status, 200, "{element}"));
            }
        });
    }
    let resident = process_number(&gateway.pid().to_string(), "VmHWM");
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
}

#[test]
fn a_body_of_too_many_values_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let answer = gateway.authorize(&agent.token, &call("0", 70_000));
    assert_failure(&answer, 400, "BadRequest");
    assert!(answer.body["message"].as_str().expect("text").contains("too many values"), "{answer:?}");
}
