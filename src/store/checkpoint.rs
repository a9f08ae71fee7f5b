//! Keeping the write-ahead log bounded, away from the answers' path.
//!
//! With SQLite's own automatic checkpoint the committer whose frame crosses the
//! threshold pays for all. Instead a thread moves pages into the database every
//! eighth of a second without blocking anybody (PASSIVE); that alone never lets
//! the log begin anew, so when few frames are left to move it stops the writer for
//! a moment and restarts the log (RESTART), never waiting for a reader: while one
//! reads, a backup for example, the log grows, and is brought back afterwards. Where short
//! readers overlap so that one always reads, they are made to pause (see [`Views`]).

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

use super::commit::Committer;
use super::views::Views;
use crate::sync::{StopSignal, join};

const PERIOD: Duration = Duration::from_millis(120);
/// With fewer frames than this left to move, stopping the writer costs about a commit.
const FRAMES_LEFT_MAX: i64 = 400;
/// A log smaller than this is not worth restarting.
const FRAMES_KEPT: i64 = 1000;
/// A log of more than this, 32 MiB, is worth a pause of those who read.
const FRAMES_WITHOUT_PAUSE: i64 = 8192;
/// How many periods pass after a pause that came to nothing, before the next.
const PERIODS_BETWEEN_PAUSES: u32 = 20;

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
    pub(crate) fn start(
        connection: Connection,
        committer: Arc<Committer>,
        views: Arc<Views>,
    ) -> std::io::Result<Self> {
        let stop = Arc::<StopSignal>::default();
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            Log { connection, committer, views, restarted_at: 0, rest: 0 }.keep_short(&told)
        })?;
        Ok(Checkpointer { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Stops the thread and closes its connection.
    pub(crate) fn stop(&self) {
        self.stop.set();
        join(&self.thread);
    }
}

/// What the thread works with.
struct Log {
    connection: Connection,
    committer: Arc<Committer>,
    views: Arc<Views>,
    /// How many frames the log had when it was told to begin anew. It does so with the
    /// next commit; until then there is nothing to do.
    restarted_at: i64,
    /// Periods until readers may be made to pause again.
    rest: u32,
}

impl Log {
    fn keep_short(mut self, stop: &StopSignal) {
        while !stop.wait(PERIOD) {
            if let Err(error) = self.step() {
                log::warn!("cannot checkpoint the write-ahead log: {error}");
            }
        }
    }

    fn step(&mut self) -> rusqlite::Result<()> {
        let Progress { frames, moved, .. } = self.checkpoint("PASSIVE")?;
        self.rest = self.rest.saturating_sub(1);
        if frames == self.restarted_at || frames < FRAMES_KEPT {
            self.views.need_no_pause();
            return Ok(());
        }
        if frames - moved <= FRAMES_LEFT_MAX && self.restart()? {
            self.views.need_no_pause();
            return Ok(());
        }
        if frames > FRAMES_WITHOUT_PAUSE && self.rest == 0 {
            return self.restart_in_a_pause();
        }
        Ok(())
    }

    /// While nobody reads, all frames can be moved.
    fn restart_in_a_pause(&mut self) -> rusqlite::Result<()> {
        let views = Arc::clone(&self.views);
        let restarted = views.pause(|| {
            self.checkpoint("PASSIVE")?;
            self.restart()
        });
        if !matches!(restarted, Some(Ok(true))) {
            self.rest = PERIODS_BETWEEN_PAUSES;
        }
        restarted.transpose().map(|_| ())
    }

    /// Stops the writer for a moment; says whether the log will begin anew.
    fn restart(&mut self) -> rusqlite::Result<bool> {
        let restart = self.committer.between_batches(|_| self.checkpoint("RESTART")).transpose()?;
        let restarted = restart.filter(|restart| !restart.busy);
        self.restarted_at = restarted.map_or(0, |restart| restart.frames);
        Ok(restarted.is_some())
    }

    fn checkpoint(&self, mode: &str) -> rusqlite::Result<Progress> {
        checkpoint(&self.connection, mode)
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Progress> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(Progress { busy: row.get(0)?, frames: row.get(1)?, moved: row.get(2)? }))
}
