//! Keeps the write-ahead log bounded, off the request path.
//!
//! With SQLite's automatic checkpoint, the commit that crosses the threshold pays for
//! everybody. Instead, a thread moves pages into the database about every eighth of a second
//! without blocking anyone (PASSIVE). That alone never restarts the log, so once few frames
//! are left it pauses the writer briefly and restarts the log (RESTART). It never waits for a
//! reader: while one is active, such as a backup, the log grows, and shrinks again afterwards.
//! If overlapping short readers leave no gap, they are made to pause (see [`Views`]).

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;

use super::commit::Committer;
use super::views::Views;
use crate::sync::{StopSignal, join};

const PERIOD: Duration = Duration::from_millis(120);
/// With at most this many frames left to move, pausing the writer costs about one commit.
const FRAMES_LEFT_MAX: i64 = 400;
/// A log smaller than this is not worth restarting.
const FRAMES_KEPT: i64 = 1000;
/// A log larger than this, 32 MiB, justifies pausing readers.
const FRAMES_WITHOUT_PAUSE: i64 = 8192;
/// Periods to wait after an unsuccessful pause before the next one.
const PERIODS_BETWEEN_PAUSES: u32 = 20;

/// Handle of the checkpoint thread.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    stop: Arc<StopSignal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The result of `PRAGMA wal_checkpoint`.
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
        let stop_signal = Arc::clone(&stop);
        let thread = thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            Log { connection, committer, views, restarted_at: 0, rest: 0 }.keep_short(&stop_signal)
        })?;
        Ok(Checkpointer { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Stops the thread and closes its connection.
    pub(crate) fn stop(&self) {
        self.stop.set();
        join(&self.thread);
    }
}

/// The thread's state.
struct Log {
    connection: Connection,
    committer: Arc<Committer>,
    views: Arc<Views>,
    /// Frames in the log when it was last marked for restart. The restart happens at the next
    /// commit; until then there is nothing to do.
    restarted_at: i64,
    /// Periods until readers may be paused again.
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

    /// With all readers paused, all frames can be moved.
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

    /// Pauses the writer briefly; returns whether the log will restart.
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
