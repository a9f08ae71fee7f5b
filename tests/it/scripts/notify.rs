//! Readiness, as a service manager is told of it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::super::support::{Home, PATIENCE, wait_until};

fn told(manager: &UnixDatagram) -> String {
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut text = [0; 256];
    let bytes = manager.recv(&mut text).expect("the gateway tells");
    String::from_utf8_lossy(&text[..bytes]).into_owned()
}

/// One datagram when it serves, one when it stops, and nothing else.
fn is_told(manager: &UnixDatagram, socket: &str) {
    let home = Home::new().with("NOTIFY_SOCKET", socket);
    let gateway = home.start();
    assert_eq!(told(manager), "READY=1");
    assert_eq!(gateway.request("GET", "/health", None, None).status, 200);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(told(manager), "STOPPING=1");
    manager.set_nonblocking(true).expect("a mode");
    assert!(manager.recv(&mut [0; 16]).is_err(), "nothing else is told");
}

#[test]
fn a_service_manager_is_told_of_readiness_and_of_the_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    is_told(&manager, path.to_str().expect("text"));
}

#[test]
fn a_service_manager_on_an_abstract_socket_is_told_too() {
    let name = format!("aegis-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let manager = UnixDatagram::bind_addr(&address).expect("a socket");
    is_told(&manager, &format!("@{name}"));
}

#[test]
fn a_service_manager_that_is_not_there_is_logged_and_no_more() {
    let home = Home::new().with("NOTIFY_SOCKET", "/does/not/exist");
    let gateway = home.start();
    wait_until("it is logged", || gateway.log().contains("cannot tell the service manager READY=1"));
    assert_eq!(gateway.request("GET", "/health", None, None).status, 200);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_start_that_is_refused_is_never_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let home = Home::new().with("NOTIFY_SOCKET", path.to_str().expect("text"));
    std::fs::create_dir(home.path("db")).expect("a folder");
    std::fs::write(home.database(), "no database").expect("written");
    assert_eq!(home.start_refused().0, 3);
    manager.set_nonblocking(true).expect("a mode");
    assert!(manager.recv(&mut [0; 16]).is_err());
}
