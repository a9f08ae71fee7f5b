//! `demo.sh`: what it fills a gateway with is in the runbook's tests; here, what it says
//! when it cannot.

use std::process::Command;

use super::super::support::{Gateway, Home};
use super::{run, script};

fn demo(home: &Home, gateway: &Gateway) -> Command {
    let mut demo = script(home, "demo.sh", &[]);
    demo.env("AEGIS_URL", format!("http://{}/", gateway.address()));
    demo
}

#[test]
fn the_address_of_the_demo_may_end_with_a_slash() {
    let home = Home::new();
    let gateway = home.start();
    run(&mut demo(&home, &gateway)).assert_status(0).assert_says("decisions. Look at them with");
}
