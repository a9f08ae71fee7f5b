//! Bounds the unsynced part of a growing copy, and pauses the copy while there is traffic.
//!
//! Left alone, the kernel may write back a gigabyte at once, and the live database's syncs
//! wait behind it. So a second thread syncs the copy as it grows, and SQLite waits when it
//! is a few steps ahead. The unsynced part stays small, and neither thread waits for the
//! other while both keep up.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

use crate::store::Background;
use crate::store::error::Error as StoreError;

use super::room::Room;
use super::{Error, cannot};

/// How much the copy grows between syncs.
const STEP_BYTES: u64 = 1 << 20;
/// How many steps may queue behind the one being synced.
const STEPS_AHEAD: usize = 2;
/// How often the copy's size is checked, in operations of SQLite's virtual machine.
const LOOK_EVERY_OPERATIONS: i32 = 200;

/// Runs `copy`, which writes `source` to the file at `partial`, at that pace.
///
/// Aborts the copy and fails if the file cannot be synced or free space falls too low.
pub(super) fn keep<T>(
    source: &mut Connection,
    partial: &Path,
    room: &Room,
    background: &Background,
    copy: impl FnOnce(&Connection) -> T,
) -> Result<T, Error> {
    let file = File::open(partial).map_err(cannot("open the copy"))?;
    let watched = file.try_clone().map_err(cannot("open the copy"))?;
    let (sender, receiver) = sync_channel(STEPS_AHEAD);
    let mut growth = Growth { file: watched, room: *room, reported: 0, sender };
    let mut turn = background.turn();
    let over = move || turn.is_over() || growth.report();
    let syncing = thread::Builder::new()
        .name("backup-sync".to_owned())
        .spawn(move || sync_each(&file, &receiver))
        .map_err(cannot("start the thread that syncs the copy"))?;
    let watch = StoreError::cannot("watch the copy");
    source.progress_handler(LOOK_EVERY_OPERATIONS, Some(over)).map_err(&watch)?;
    let copied = copy(source);
    // The handler owns the sender; dropping it ends the sync thread.
    source.progress_handler(0, None::<fn() -> bool>).map_err(&watch)?;
    syncing.join().map_err(|_| StoreError::Panicked)??;
    Ok(copied)
}

/// Reports each step by which the copy grows, or why it must stop.
struct Growth {
    file: File,
    room: Room,
    reported: u64,
    sender: SyncSender<Result<(), Error>>,
}

impl Growth {
    /// Waits while too many steps are unsynced; true once the sync thread has ended.
    fn report(&mut self) -> bool {
        let step = match self.file.metadata() {
            Ok(now) if now.len() < self.reported + STEP_BYTES => return false,
            Ok(now) => {
                self.reported = now.len();
                self.room.check_left(&self.file)
            }
            Err(error) => Err(cannot("read the size of the growing copy")(error)),
        };
        self.sender.send(step).is_err()
    }
}

/// Syncs the copy once for all queued steps.
fn sync_each(copy: &File, steps: &Receiver<Result<(), Error>>) -> Result<(), Error> {
    while let Ok(step) = steps.recv() {
        step?;
        steps.try_iter().collect::<Result<(), Error>>()?;
        copy.sync_data().map_err(cannot("sync the growing copy"))?;
    }
    Ok(())
}
