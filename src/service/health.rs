//! Whether the gateway can do its work, as seen, not as hoped.
//!
//! A thread makes the proofs, on demand, so that the answer comes in bounded time
//! even when a disk hangs: readiness asks for a fresh proof, waits at most
//! `PROOF_TIMEOUT`, and reports what is missing.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::{files, migrate};
use crate::sync::unpoisoned;

use super::Gateway;

/// A sign of life younger than this needs no new proof.
const FRESH: Duration = Duration::from_secs(1);
/// How long readiness waits for a proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);
/// With less room than this on the database's disk, the gateway is not ready.
pub const ROOM_BYTES_MIN: u64 = 4 << 20;

/// Where readiness and the proving thread meet.
#[derive(Default)]
pub struct Health {
    state: Mutex<State>,
    changed: Condvar,
    /// Why no request reaches the service, or that they do.
    server: OnceLock<Box<dyn Fn() -> Result<(), String> + Send + Sync>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Why the gateway is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    /// The database cannot be worked with.
    Database(String),
    /// No request reaches the service.
    Server(String),
}

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    stopped: bool,
    proof: Option<(Instant, Result<(), String>)>,
}

/// Starts the proving thread; it ends after [`stop`]. Nobody waits for that: it may hang as
/// long as the disk does, and a proof that comes too late proves nothing to anybody.
pub fn start(gateway: &Arc<Gateway>) -> std::io::Result<()> {
    let proving = Arc::clone(gateway);
    let run = move || {
        while proving.health.wait_for_demand() {
            let asked = Instant::now();
            let proof = prove(&proving);
            proving.health.publish(asked, proof);
        }
    };
    thread::Builder::new().name("health".to_owned()).spawn(run).map(|_| ())
}

/// Ends the proving thread.
pub fn stop(gateway: &Gateway) {
    unpoisoned(&gateway.health.state).stopped = true;
    gateway.health.changed.notify_all();
}

/// Has readiness ask the server as well, which is the one that runs on this gateway.
pub fn watch_server(gateway: &Gateway, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
    let is_first = gateway.health.server.set(Box::new(check)).is_ok();
    debug_assert!(is_first, "one server runs on a gateway");
}

/// Why the gateway is not ready, or that it is.
pub fn readiness(gateway: &Gateway) -> Result<(), Unready> {
    gateway.health.proof().map_err(Unready::Database)?;
    gateway.health.server.get().map_or(Ok(()), |check| check()).map_err(Unready::Server)
}

/// On the proving thread, since each of these may hang with the disk.
fn prove(gateway: &Gateway) -> Result<(), String> {
    gateway.store.check_files().map_err(|error| error.to_string())?;
    let folder = files::folder_of(gateway.store.path());
    let free = files::free_bytes(folder).map_err(|error| format!("cannot read the free space: {error}"))?;
    if free < ROOM_BYTES_MIN {
        return Err(format!("the database's disk has {free} bytes left, fewer than {ROOM_BYTES_MIN}"));
    }
    let (wrote, failure) = gateway.store.last_write();
    if failure.is_some() || wrote >= FRESH {
        gateway.store.prove_writer().map_err(|error| format!("the writer does not write: {error}"))?;
    }
    let version = gateway
        .store
        .read(|connection| Ok::<_, crate::store::Error>(migrate::check(connection)))
        .map_err(|error| format!("the reader does not read: {error}"))?
        .map_err(|refusal| refusal.to_string())?;
    let latest = migrate::latest();
    if version != latest {
        return Err(format!("the schema is at {version}, not at {latest}"));
    }
    Ok(())
}

impl Health {
    fn wait_for_demand(&self) -> bool {
        let mut state = unpoisoned(&self.state);
        while !state.wanted && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.wanted = false;
        !state.stopped
    }

    fn publish(&self, asked: Instant, proof: Result<(), String>) {
        unpoisoned(&self.state).proof = Some((asked, proof));
        self.changed.notify_all();
    }

    /// The last proof if it is fresh, else a new one, waited for in bounded time.
    fn proof(&self) -> Result<(), String> {
        let now = Instant::now();
        let mut state = unpoisoned(&self.state);
        let mut oldest = now.checked_sub(FRESH).unwrap_or(now);
        loop {
            match &state.proof {
                Some((asked, Ok(()))) if *asked >= oldest => return Ok(()),
                // What was wrong may be well again: only a proof of now is a failure.
                Some((asked, Err(reason))) if *asked >= now => return Err(reason.clone()),
                _ => {}
            }
            oldest = now;
            let left = PROOF_TIMEOUT.saturating_sub(now.elapsed());
            if left.is_zero() {
                return Err(format!("no write and read within {} s", PROOF_TIMEOUT.as_secs()));
            }
            state.wanted = true;
            self.changed.notify_all();
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
