//! Keeping the write-ahead log bounded, away from the answers' path.
//!
//! With SQLite's own automatic checkpoint the committer whose frame crosses the
//! threshold pays for all. Instead a thread moves pages into the database every
//! eighth of a second without blocking anybody (PASSIVE); that alone never lets
//! the log begin anew, so when few frames are left to move it stops the writer for
//! a moment and restarts the log (RESTART), never waiting for a reader: while one
//! reads, a backup for example, the log grows, and is brought back afterwards.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

use super::commit::Committer;
use crate::sync::{StopSignal, join};

const PERIOD: Duration = Duration::from_millis(120);
/// With fewer frames than this left to move, stopping the writer costs about a commit.
const FRAMES_LEFT_MAX: i64 = 400;
/// A log smaller than this is not worth restarting.
const FRAMES_KEPT: i64 = 1000;

/// The thread, until it is stopped.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    stop: Arc<StopSignal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What `PRAGMA wal_checkpoint` says.
#[derive(Debug, Clone, Copy)]
struct Progress {
    busy: bool,
    frames: i64,
    moved: i64,
}

impl Checkpointer {
    pub(crate) fn start(connection: Connection, committer: Arc<Committer>) -> std::io::Result<Self> {
        let stop = Arc::<StopSignal>::default();
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&connection, &committer, &told))?;
        Ok(Checkpointer { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Stops the thread and closes its connection.
    pub(crate) fn stop(&self) {
        self.stop.set();
        join(&self.thread);
    }
}

fn run(connection: &Connection, committer: &Committer, stop: &StopSignal) {
    let mut restarted_at = 0;
    while !stop.wait(PERIOD) {
        if let Err(error) = step(connection, committer, &mut restarted_at) {
            log::warn!("cannot checkpoint the write-ahead log: {error}");
        }
    }
}

/// `restarted_at` is how many frames the log had when it was told to begin anew; it
/// does so with the next commit, and until then there is nothing to do.
fn step(connection: &Connection, committer: &Committer, restarted_at: &mut i64) -> rusqlite::Result<()> {
    let Progress { frames, moved, .. } = checkpoint(connection, "PASSIVE")?;
    if frames == *restarted_at || frames < FRAMES_KEPT || frames - moved > FRAMES_LEFT_MAX {
        return Ok(());
    }
    let restart = committer.between_batches(|_| checkpoint(connection, "RESTART")).transpose()?;
    *restarted_at = restart.filter(|restart| !restart.busy).map_or(0, |restart| restart.frames);
    Ok(())
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Progress> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(Progress { busy: row.get(0)?, frames: row.get(1)?, moved: row.get(2)? }))
}
