//! What the service sees, and how its answers come back.

use std::time::{Duration, Instant};

use super::support::{Client, PATIENCE, Rig, answers_in, get, short, status_of};
use aegis_gateway::http::gate::Limits;

#[test]
fn the_service_sees_no_connection_headers_and_one_true_peer() {
    let rig = Rig::new(short(), 2);
    let mut client = rig.connect();
    client.send(
        b"POST http://t/head?q HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, x\r\nKeep-Alive: 5\r\n\
          TE: chunked\r\nTrailer: A\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nX-Peer: 6.6.6.6:6\r\n\
          x-peer: 7\r\nTransfer-Encoding: chunked\r\nX-A:  b\r\n\r\n3\r\nabc\r\n0\r\nX-Peer: 8\r\n\r\n",
    );
    let peer = client.stream.local_addr().expect("an address");
    let expected = format!("POST /head?q\nHost: t\nX-A: b\nX-Peer: {peer}\nContent-Length: 3\n");
    assert_eq!(client.answer().text(), expected);
    client.send(b"POST /head HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.answer().text(), format!("POST /head\nHost: t\nX-Peer: {peer}\n"));
    client.send(b"POST /head HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    assert!(client.answer().text().ends_with("Content-Length: 0\n"));
}

#[test]
fn bodies_of_every_size_come_back_whole() {
    let rig = Rig::new(short(), 2);
    let mut client = rig.connect();
    for size in [0, 1, 1023, 1024, 1025, 4096, 16_384, 65_000, 65_536, 70_000, 400_000, 1 << 20] {
        let body: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let answer = client.post("/echo", &body);
        assert_eq!((answer.status, answer.body == body), (200, true), "{size}");
    }
    let mut chunked = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..200 {
        chunked.extend_from_slice(b"3e8\r\n");
        chunked.extend_from_slice(&[b'y'; 1000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    client.send(&chunked);
    assert_eq!(client.answer().body, [b'y'; 200_000]);
    assert_eq!(client.get("/livez").status, 200);
}

#[test]
fn an_http_1_0_client_is_answered_as_it_asks() {
    let rig = Rig::new(short(), 2);
    let said = rig.say(b"GET /livez HTTP/1.0\r\n\r\n");
    assert!(said.contains("Connection: close") && said.ends_with("ok"), "{said}");
    let mut client = rig.connect();
    for _ in 0..3 {
        client.send(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("keep-alive")));
    }
}

#[test]
fn connection_close_is_acknowledged_and_kept() {
    let rig = Rig::new(short(), 2);
    let said = rig.say(b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\nGET /livez");
    assert_eq!((status_of(&said), answers_in(&said)), (200, 1));
    assert!(said.contains("Connection: close"));
    assert_eq!(rig.connect().get("/livez").header("Connection"), None);
}

#[test]
fn answers_without_a_body_keep_the_connection_in_step() {
    let rig = Rig::new(short(), 2);
    let mut client = rig.connect();
    client.send(b"HEAD /large?bytes=5000 HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = client.answer_to(true);
    assert_eq!((answer.status, answer.header("Content-Length")), (200, Some("5000")));
    let answer = client.get("/empty");
    assert_eq!((answer.status, answer.header("Content-Length")), (204, None));
    client.send(b"HEAD /large?bytes=500000 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.answer_to(true).header("Content-Length"), Some("500000"));
    assert_eq!(client.get("/livez").text(), "ok");
    assert_eq!(rig.counts().upstreams_replaced, 0);
    let said = rig.say(b"HEAD / HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999\r\n\r\n");
    assert!(status_of(&said) == 413 && said.ends_with("\r\n\r\n"), "{said}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::new(short(), 4);
    let mut client = rig.connect();
    let mut all = Vec::new();
    for n in 0..50 {
        let wait = if n % 10 == 0 { 20 } else { 0 };
        all.extend_from_slice(get(&format!("/slow?ms={wait}")).as_bytes());
        let body = format!("body {n}");
        all.extend_from_slice(
            format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .as_bytes(),
        );
    }
    client.send(&all);
    for n in 0..50 {
        assert_eq!(client.answer().text(), "slow");
        assert_eq!(client.answer().text(), format!("body {n}"));
    }
}

#[test]
fn a_large_answer_comes_whole_and_frees_its_memory() {
    let rig = Rig::new(Limits { idle: PATIENCE, stall: PATIENCE, ..short() }, 2);
    let mut client = rig.connect();
    for bytes in [65_000, 65_536, 100_000, 3_000_000, 20_000_000] {
        let answer = client.get(&format!("/large?bytes={bytes}"));
        assert_eq!((answer.status, answer.body.len()), (200, bytes));
    }
    client.send(b"GET /large?bytes=300000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.body.len(), answer.header("Connection")), (300_000, Some("keep-alive")));
    assert_eq!(rig.counts().upstreams_replaced, 0);
}

#[test]
fn a_client_that_dies_mid_answer_desynchronises_nobody() {
    let rig = Rig::new(Limits { upstreams: 2, upstream_wait: PATIENCE, ..short() }, 2);
    for _ in 0..20 {
        let mut client = rig.connect();
        client.send(get("/large?bytes=30000000").as_bytes());
        drop(client);
        let mut client = rig.connect();
        client.send(get("/slow?ms=5").as_bytes());
        drop(client);
    }
    for n in 0..50 {
        let body = format!("body {n}");
        assert_eq!(rig.connect().post("/echo", body.as_bytes()).text(), body);
    }
}

#[test]
fn an_answer_before_the_body_was_read_neither_hangs_nor_desynchronises() {
    let rig = Rig::new(Limits { upstreams: 2, ..short() }, 2);
    let began = Instant::now();
    for _ in 0..4 {
        let mut client = rig.connect();
        let answer = client.post("/large?bytes=3000000", &vec![b'x'; 1 << 20]);
        assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
        assert_eq!(client.post("/echo", b"after").text(), "after");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_panic_in_a_handler_is_a_500_and_the_worker_lives() {
    let rig = Rig::new(short(), 2);
    let mut client = rig.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/panic").status, 500);
    }
    assert_eq!(client.get("/slow?ms=0").status, 200);
}

#[test]
fn no_answer_waits_for_a_delayed_acknowledgement() {
    let rig = Rig::new(short(), 2);
    let mut client = rig.connect();
    for bytes in [900, 2000, 10_000, 40_000, 100_000] {
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let began = Instant::now();
                client.get(&format!("/large?bytes={bytes}"));
                began.elapsed()
            })
            .collect();
        times.sort();
        assert!(times[10] < Duration::from_millis(20), "{bytes}: {:?}", times[10]);
    }
}

#[test]
fn probes_answer_while_every_worker_is_busy() {
    let rig = Rig::new(short(), 2);
    let mut busy: Vec<Client> = (0..8).map(|_| rig.connect()).collect();
    for client in &mut busy {
        client.send(get("/slow?ms=300").as_bytes());
    }
    rig.wait_until("all are in progress", |counts| counts.busy == 8);
    let began = Instant::now();
    assert_eq!(rig.connect().get("/livez?x").status, 200);
    assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
}
