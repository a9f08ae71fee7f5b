//! The write-ahead log stays bounded, whatever the readers do.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::audit::{Event, EventType};
use aegis_gateway::startup::{self, Options};
use aegis_gateway::store::{Error, Store, audit};

use crate::support::Home;

/// Readers are paused once the log exceeds 32 MiB; it keeps growing until they have stopped.
const LOG_BYTES_MAX: u64 = 80 << 20;
const EVENTS: usize = 400;
const EVENT_BYTES: usize = 256 << 10;
/// Takes tens of milliseconds, on a view of the database.
const QUERY: &str = "WITH RECURSIVE numbers (n) AS (SELECT count(*) FROM agents UNION ALL \
     SELECT n + 1 FROM numbers WHERE n < 100000) SELECT max(n) FROM numbers";

fn read(store: &Store) -> Result<i64, Error> {
    store.read_aside(|view| Ok(view.query_row(QUERY, [], |row| row.get(0)).expect("a number")))
}

fn write(store: &Store, number: usize) -> Result<(), Error> {
    let details = json!({ "filler": "x".repeat(EVENT_BYTES) });
    let event = Event::new(format!("e{number}"), EventType::AdminAction, &details, SystemClock.now());
    store.write(move |tx| audit::insert(tx, &event))
}

/// Four clients scan the history continuously, so that at least one is always reading.
#[test]
fn lists_that_overlap_do_not_keep_the_log_from_restarting() {
    let home = Home::new();
    let started = startup::start(&Options::new(&home.path("a.db"), &home.path("backups")), &SystemClock)
        .expect("a new database");
    let (store, done) = (&started.store, AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(read(store).expect("read"), 100_000);
                }
            });
        }
        let mut largest = 0;
        for number in 0..EVENTS {
            write(store, number).expect("written");
            largest = largest.max(fs::metadata(home.path("a.db-wal")).expect("a log").len());
        }
        done.store(true, Ordering::Relaxed);
        assert!(largest < LOG_BYTES_MAX, "{largest} bytes");
    });
}
