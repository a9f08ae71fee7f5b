//! `demo.sh`: what it fills a gateway with is in the runbook's tests; here, what it says
//! when it cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

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

#[test]
fn what_the_gateway_refuses_of_the_demo_is_told_with_its_status_and_message() {
    let home = Home::new();
    let gateway = home.start();
    run(demo(&home, &gateway).env("ADMIN_TOKEN", "not-the-operator-s-token"))
        .assert_status(1)
        .assert_says("demo.sh: POST /v1/tools answers 401: a valid bearer token is required");
    let body = json!({"name": "reader", "scope": "read"});
    let answer = gateway.operator("POST", "/v1/admin/tokens", Some(&body));
    let reader = answer.body["token"].as_str().expect("a token");
    let ran = run(demo(&home, &gateway).env("ADMIN_TOKEN", reader));
    ran.assert_status(1).assert_says("demo.sh: POST /v1/tools answers 403: ");
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1));
    // Also where the script reads the answer: no agent comes without its token.
    let tools = home.path("tools");
    fs::create_dir(&tools).expect("a folder");
    let curl = "#!/bin/sh\ncase \"$*\" in\n*/register*) printf '{\"message\":\"no more\"}\\n409' ;;\n\
                *) printf '{}\\n200' ;;\nesac\n";
    fs::write(tools.join("curl"), curl).expect("written");
    fs::set_permissions(tools.join("curl"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let ran = run(demo(&home, &gateway).env("PATH", path));
    ran.assert_status(1).assert_says("demo.sh: POST /v1/agents/register answers 409: no more");
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1));
}
