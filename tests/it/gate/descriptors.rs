//! The real process, with few descriptors or watched from outside.

use std::time::{Duration, Instant};

use super::demo::Demo;
use super::support::{Client, get, process_number, status_of, wait_until};

fn status(demo: &Demo) -> u16 {
    let mut client = Client::connect(demo.address);
    client.try_send(b"GET /slow?ms=0 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    status_of(&client.finish())
}

#[test]
fn with_sixty_four_descriptors_it_sheds_and_is_well_again_at_once() {
    for fits in [true, false] {
        let demo = Demo::start(64, fits);
        assert_eq!(status(&demo), 200, "{fits}");
        let mut held: Vec<Client> = (0..200).map(|_| Client::connect(demo.address)).collect();
        // Idle ones give way, so an honest client is served or told, in the middle of it.
        let began = Instant::now();
        // Without a descriptor to linger with, a reset may overtake the 503 (status 0).
        let told = status(&demo);
        assert!(matches!(told, 200 | 503) || (told == 0 && !fits), "{told}");
        assert!(began.elapsed() < Duration::from_secs(1), "{fits}: {:?}", began.elapsed());
        for client in &mut held {
            client.try_send(get("/slow?ms=100").as_bytes());
        }
        drop(held);
        let began = Instant::now();
        wait_until("it serves again", || status(&demo) == 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{fits}: {:?}", began.elapsed());
        let (said, well) = demo.end();
        assert!(well && said.ends_with("cut 0"), "{fits}: {said}");
    }
}

#[test]
fn a_lack_of_descriptors_does_not_end_a_lane() {
    let demo = Demo::start(1024, false);
    if !demo.limit_descriptors(1024) {
        return println!("not tested, there is no prlimit here");
    }
    // Every upstream is lost while there is one descriptor left: enough to open another, and
    // not enough to accept it.
    let mut readers: Vec<Client> = (0..4).map(|_| Client::connect(demo.address)).collect();
    for reader in &mut readers {
        reader.send(get("/large?bytes=30000000").as_bytes());
        assert!(reader.begins(), "the answer has begun");
    }
    let before = demo.open_descriptors();
    assert!(demo.limit_descriptors(1));
    drop(readers);
    // A client's one, an upstream's three.
    wait_until("they are closed", || demo.open_descriptors() == before - 16);
    let free = (0..).find(|number| !demo.has_descriptor(*number)).expect("a free one");
    assert!(demo.limit_descriptors(free + 1));
    let tried = demo.naps_of("gate-opener");
    wait_until("it has tried to open one", || demo.naps_of("gate-opener") > tried + 1);
    assert!(demo.limit_descriptors(1024));
    wait_until("it serves again", || status(&demo) == 200);
}

#[test]
fn a_thousand_idle_connections_cost_few_threads_and_little_memory() {
    let demo = Demo::start(1024, true);
    assert_eq!(status(&demo), 200);
    let held: Vec<Client> = (0..1500).map(|_| Client::connect(demo.address)).collect();
    assert_eq!(status(&demo), 200);
    assert!(process_number(&demo.pid(), "Threads") < 1024);
    let resident = process_number(&demo.pid(), "VmRSS");
    assert!(resident < 64 * 1024, "{resident} KiB");
    assert!(demo.open_descriptors() < 1024);
    drop(held);
    wait_until("the descriptors are back", || demo.open_descriptors() < 300);
}

#[test]
fn huge_inputs_leave_memory_flat() {
    let demo = Demo::start(1024, true);
    assert_eq!(status(&demo), 200);
    let before = process_number(&demo.pid(), "VmRSS");
    for start in [
        "GET / HTTP/1.1\r\nHost: t\r\nX: ",
        "GET /",
        "GET / HTTP/1.1\r\nHost: t\r\n",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: ",
    ] {
        let mut client = Client::connect(demo.address);
        client.try_send(start.as_bytes());
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            if !client.try_send(&piece) {
                break;
            }
        }
        drop(client);
    }
    let after = process_number(&demo.pid(), "VmRSS");
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
    assert_eq!(status(&demo), 200);
}

#[test]
fn it_ends_well_with_work_in_flight() {
    let mut demo = Demo::start(1024, true);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(demo.address)).collect();
    for client in &mut clients {
        client.send(get("/slow?ms=500").as_bytes());
    }
    wait_until("all are in progress", || demo.busy() == 4);
    let (said, well) = demo.end();
    assert_eq!((said.as_str(), well), ("4 cut 0", true));
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
}
