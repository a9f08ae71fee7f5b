//! Whether the gateway can do its work: proven, not assumed.
//!
//! A separate thread runs the checks on demand, so that readiness answers in bounded
//! time even if a disk hangs: it requests a fresh proof, waits at most
//! `PROOF_TIMEOUT`, and reports what is wrong.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::{files, migrate};
use crate::sync::unpoisoned;

use super::Gateway;

/// A successful proof or write younger than this need not be repeated.
const FRESH: Duration = Duration::from_secs(1);
/// How long readiness waits for a proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);
/// With less free space than this on the database's disk, the gateway is not ready.
pub const ROOM_BYTES_MIN: u64 = 4 << 20;

/// State shared between readiness checks and the proving thread.
#[derive(Default)]
pub struct Health {
    state: Mutex<State>,
    changed: Condvar,
    /// Checks that requests reach the service, or says why they do not.
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
    /// The database is not usable.
    Database(String),
    /// Requests do not reach the service.
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

/// Makes readiness also check the server that runs on this gateway.
pub fn watch_server(gateway: &Gateway, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
    let is_first = gateway.health.server.set(Box::new(check)).is_ok();
    debug_assert!(is_first, "only one server runs on a gateway");
}

/// `Ok` if the gateway is ready, otherwise why it is not.
pub fn readiness(gateway: &Gateway) -> Result<(), Unready> {
    gateway.health.proof().map_err(Unready::Database)?;
    gateway.health.server.get().map_or(Ok(()), |check| check()).map_err(Unready::Server)
}

/// Runs on the proving thread, since each check may hang with the disk.
fn prove(gateway: &Gateway) -> Result<(), String> {
    gateway.store.check_files().map_err(|error| error.to_string())?;
    let folder = files::folder_of(gateway.store.path());
    let free = files::free_bytes(folder).map_err(|error| format!("cannot read the free space: {error}"))?;
    if free < ROOM_BYTES_MIN {
        return Err(format!("the database's disk has {free} bytes free, less than {ROOM_BYTES_MIN}"));
    }
    let (wrote, failure) = gateway.store.last_write();
    if failure.is_some() || wrote >= FRESH {
        gateway.store.prove_writer().map_err(|error| format!("cannot write: {error}"))?;
    }
    let version = gateway
        .store
        .read(|connection| Ok::<_, crate::store::Error>(migrate::check(connection)))
        .map_err(|error| format!("cannot read: {error}"))?
        .map_err(|refusal| refusal.to_string())?;
    let latest = migrate::latest();
    if version != latest {
        return Err(format!("the schema version is {version}, expected {latest}"));
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

    /// The last proof if it is fresh; otherwise waits, in bounded time, for a new one.
    fn proof(&self) -> Result<(), String> {
        let now = Instant::now();
        let mut state = unpoisoned(&self.state);
        let mut oldest = now.checked_sub(FRESH).unwrap_or(now);
        loop {
            match &state.proof {
                Some((asked, Ok(()))) if *asked >= oldest => return Ok(()),
                // An earlier failure may have been fixed: only a new proof counts as one.
                Some((asked, Err(reason))) if *asked >= now => return Err(reason.clone()),
                _ => {}
            }
            oldest = now;
            let left = PROOF_TIMEOUT.saturating_sub(now.elapsed());
            if left.is_zero() {
                return Err(format!("no successful write and read within {} s", PROOF_TIMEOUT.as_secs()));
            }
            state.wanted = true;
            self.changed.notify_all();
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
