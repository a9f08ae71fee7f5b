//! Every limit of the table, met from outside.

use std::time::{Duration, Instant};

use super::support::{Client, PATIENCE, Rig, answers_in, get, short, status_of};
use aegis_gateway::http::gate::Limits;

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let rig = Rig::new(short(), 2);
    let began = Instant::now();
    assert_eq!(rig.connect().finish(), "");
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());
    let mut kept = rig.connect();
    assert_eq!(kept.get("/livez").status, 200);
    assert_eq!(kept.finish(), "");
}

#[test]
fn a_dribbled_head_meets_408_however_it_dribbles() {
    let rig = Rig::new(short(), 2);
    let began = Instant::now();
    let mut client = rig.connect();
    for byte in get("/livez").bytes().chain(std::iter::repeat(b'a')) {
        if !client.try_send(&[byte]) || began.elapsed() > Duration::from_millis(600) {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(30));
    }
    let said = client.finish();
    assert_eq!((status_of(&said), answers_in(&said)), (408, 1), "{said}");
    assert!(said.contains("\"reason\":\"Timeout\"") && said.contains("Connection: close"));
}

#[test]
fn a_slow_body_meets_408_by_the_deadline() {
    let rig = Rig::new(short(), 2);
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let began = Instant::now();
        let mut client = rig.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n").as_bytes());
        while client.try_send(b"3") && began.elapsed() < Duration::from_millis(300) {
            std::thread::park_timeout(Duration::from_millis(50));
            if framing.starts_with('T') {
                break;
            }
        }
        assert_eq!(status_of(&client.finish()), 408, "{framing}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn oversized_heads_meet_431_and_414() {
    let rig = Rig::new(short(), 2);
    let long = "x".repeat(40_000);
    let many = "X-A: b\r\n".repeat(1000);
    let one = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n");
    let lines = format!("GET / HTTP/1.1\r\nHost: t\r\n{many}\r\n");
    let name = format!("GET / HTTP/1.1\r\nHost: t\r\n{long}: b\r\n\r\n");
    let target = format!("GET /{long} HTTP/1.1\r\nHost: t\r\n\r\n");
    for (head, expected) in [(one, 431), (lines, 431), (name, 431), (target, 414)] {
        let said = rig.say(head.as_bytes());
        assert_eq!((status_of(&said), answers_in(&said)), (expected, 1));
    }
    assert!(rig.is_alive());
}

#[test]
fn an_oversized_body_meets_413_before_it_is_read() {
    let limits = Limits { body_bytes_max: 1000, ..short() };
    let rig = Rig::new(limits, 2);
    for length in ["1001", "1000000000", "100000000000", "99999999999999999999"] {
        let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
        let said = rig.say(head.as_bytes());
        assert_eq!(status_of(&said), 413, "{length}");
        assert!(said.contains("\"reason\":\"PayloadTooLarge\""));
    }
    let chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(status_of(&rig.say(format!("{chunked}3e9\r\n").as_bytes())), 413);
    let piled = format!("{chunked}{}", "64\r\n".to_owned() + &"x".repeat(100) + "\r\n");
    let piled = piled + &("64\r\n".to_owned() + &"x".repeat(100) + "\r\n").repeat(10);
    assert_eq!(status_of(&rig.say(piled.as_bytes())), 413);
    assert_eq!(rig.connect().post("/echo", &[b'x'; 1000]).body.len(), 1000);
}

#[test]
fn a_refused_upload_still_reads_its_answer() {
    let rig = Rig::new(Limits { linger: Duration::from_secs(2), ..short() }, 2);
    let mut client = rig.connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n");
    for _ in 0..100 {
        client.send(&[b'x'; 80_000]);
    }
    assert_eq!(status_of(&client.finish()), 413);
}

#[test]
fn bodies_beyond_the_common_budget_meet_503() {
    let limits = Limits { memory_bytes_max: 300_000, ..short() };
    let rig = Rig::new(limits, 2);
    let mut held: Vec<Client> = (0..4).map(|_| rig.connect()).collect();
    for client in &mut held {
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n");
        client.send(&[b'x'; 150_000]);
    }
    let said: Vec<u16> = held.iter_mut().map(|c| status_of(&c.finish())).collect();
    assert!(said.contains(&503), "{said:?}");
    assert!(said.iter().all(|s| matches!(s, 503 | 408)), "{said:?}");
    assert_eq!(rig.connect().post("/echo", &[b'x'; 200_000]).body.len(), 200_000);
}

#[test]
fn over_the_cap_the_oldest_idle_connection_goes_first() {
    let rig = Rig::new(Limits { connections_max: 3, idle: PATIENCE, ..short() }, 4);
    let mut old = rig.connect();
    assert_eq!(old.get("/livez").status, 200);
    std::thread::park_timeout(Duration::from_millis(5));
    let mut busy = rig.connect();
    busy.send(get("/slow?ms=800").as_bytes());
    let mut young = rig.connect();
    assert_eq!(young.get("/livez").status, 200);
    let mut new = rig.connect();
    assert_eq!(new.get("/livez").status, 200);
    assert!(old.is_closed());
    assert_eq!(young.get("/livez").status, 200);
    assert_eq!(busy.answer().status, 200);
    assert_eq!(rig.counts().evicted, 1);
}

#[test]
fn over_the_cap_with_all_busy_a_connection_meets_503() {
    let rig = Rig::new(Limits { connections_max: 2, ..short() }, 4);
    let mut busy: Vec<Client> = (0..2).map(|_| rig.connect()).collect();
    for client in &mut busy {
        client.send(get("/slow?ms=600").as_bytes());
    }
    rig.wait_until("both are busy", |counts| counts.busy == 2);
    let said = rig.say(get("/livez").as_bytes());
    assert_eq!(status_of(&said), 503, "{said}");
    assert!(said.contains("Retry-After: 5"));
    for client in &mut busy {
        assert_eq!(client.answer().status, 200);
    }
    drop(busy);
    rig.wait_until("both are gone", |counts| counts.open == 0);
    assert!(rig.is_alive());
}

#[test]
fn overload_is_answered_with_200_or_with_503_and_retry_after() {
    let rig = Rig::new(Limits { upstreams: 4, ..short() }, 2);
    let mut clients: Vec<Client> = (0..40).map(|_| rig.connect()).collect();
    let began = Instant::now();
    for client in &mut clients {
        client.send(get("/slow?ms=150").as_bytes());
    }
    let answers: Vec<_> = clients.iter_mut().map(Client::answer).collect();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let served = answers.iter().filter(|a| a.status == 200).count();
    assert!((4..40).contains(&served), "{served} served");
    for answer in answers.iter().filter(|a| a.status != 200) {
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")));
    }
}

#[test]
fn an_answer_that_does_not_come_meets_504_and_its_upstream_is_replaced() {
    let limits = Limits { answer: Duration::from_millis(300), upstreams: 2, ..short() };
    let rig = Rig::new(limits, 4);
    assert_eq!(rig.connect().get("/slow?ms=900").status, 504);
    rig.wait_until("it was replaced", |counts| counts.upstreams_replaced == 1);
    for _ in 0..10 {
        assert_eq!(rig.connect().get("/slow?ms=1").text(), "slow");
    }
}

#[test]
fn a_hundred_continue_is_sent_only_when_waited_for() {
    let rig = Rig::new(short(), 2);
    let head = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n";
    let mut client = rig.connect();
    client.send(head.as_bytes());
    assert_eq!(client.answer().status, 100);
    client.send(b"abc");
    assert_eq!(client.answer().text(), "abc");
    client.send(format!("{head}abc").as_bytes());
    assert_eq!(client.answer().status, 200);
    let said = rig.say(head.replace(" 3\r", " 9999999\r").as_bytes());
    assert_eq!((status_of(&said), answers_in(&said)), (413, 1), "{said}");
    let said = rig.say(head.replace("100-Continue", "200-ok").as_bytes());
    assert_eq!((status_of(&said), answers_in(&said)), (417, 1), "{said}");
}
