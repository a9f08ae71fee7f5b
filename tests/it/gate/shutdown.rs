//! The end of a gate.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::{Client, PATIENCE, Rig, get, short};
use aegis_gateway::http::gate::{Limits, ShutdownReport};

#[test]
fn requests_in_flight_finish_and_idle_connections_end_at_once() {
    let mut rig = Rig::new(Limits { idle: PATIENCE, ..short() }, 4);
    let address = rig.address();
    let mut idle = rig.connect();
    assert_eq!(idle.get("/livez").status, 200);
    let mut begun = rig.connect();
    begun.send(b"GET / HT");
    let mut busy: Vec<Client> = (0..4).map(|_| rig.connect()).collect();
    for client in &mut busy {
        client.send(get("/slow?ms=500").as_bytes());
    }
    rig.wait_until("all are there", |counts| (counts.open, counts.busy) == (6, 4));
    let began = Instant::now();
    let report = rig.shutdown(Duration::from_secs(5));
    assert_eq!(report, ShutdownReport { finished: 4, cut: 0 });
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for client in &mut busy {
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    }
    assert!(idle.is_closed());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn stuck_clients_are_cut_at_the_deadline() {
    let mut rig = Rig::new(Limits { body: PATIENCE, stall: PATIENCE, ..short() }, 4);
    let mut slow = rig.connect();
    slow.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
    let mut deaf = rig.connect();
    deaf.send(get("/large?bytes=40000000").as_bytes());
    let mut good = rig.connect();
    good.send(get("/slow?ms=300").as_bytes());
    rig.wait_until("all are in progress", |counts| counts.busy == 3);
    let began = Instant::now();
    let report = rig.shutdown(Duration::from_millis(800));
    assert_eq!(report, ShutdownReport { finished: 1, cut: 2 });
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(good.answer().status, 200);
}

#[test]
fn a_request_that_arrived_before_the_stop_is_still_answered() {
    for _ in 0..20 {
        let mut rig = Rig::new(Limits { idle: PATIENCE, ..short() }, 2);
        let mut client = rig.connect();
        assert_eq!(client.get("/livez").status, 200);
        client.send(get("/slow?ms=10").as_bytes());
        let report = rig.shutdown(Duration::from_secs(5));
        assert_eq!(report.cut, 0);
        let answer = client.finish();
        assert!(answer.is_empty() || answer.contains("200 OK"), "{answer}");
    }
}
