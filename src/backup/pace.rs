//! Keeps a growing copy close to the disk, and lets it rest while there is traffic.
//!
//! Left to the system, a gigabyte is written back at once, and the live database's own
//! syncs wait behind it for as long. So a second thread syncs the copy as it grows, and
//! SQLite stops when it is a few steps ahead: what it has not synced stays small, and
//! neither waits for the other as long as both keep up.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

use crate::store::Background;
use crate::store::error::Error as StoreError;

use super::room::Room;
use super::{Error, cannot};

/// How much the copy grows before it is synced.
const STEP_BYTES: u64 = 1 << 20;
/// How many steps may wait for the one that is being synced.
const STEPS_AHEAD: usize = 2;
/// How often the copy's size is looked at, in operations of SQLite's virtual machine.
const LOOK_EVERY_OPERATIONS: i32 = 200;

/// Runs `copy`, which writes `source` to the file at `partial`, at that pace.
///
/// Fails when the file cannot be synced, or takes more than its room: both end the copy.
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
    let mut growth = Growth { file: watched, room: *room, told: 0, sender };
    let mut turn = background.turn();
    let over = move || turn.is_over() || growth.tell();
    let syncing = thread::Builder::new()
        .name("backup-sync".to_owned())
        .spawn(move || sync_each(&file, &receiver))
        .map_err(cannot("start a thread that syncs the copy"))?;
    let watch = StoreError::cannot("watch the copy");
    source.progress_handler(LOOK_EVERY_OPERATIONS, Some(over)).map_err(&watch)?;
    let copied = copy(source);
    // The handler owns the sender: without it the other thread ends.
    source.progress_handler(0, None::<fn() -> bool>).map_err(&watch)?;
    syncing.join().map_err(|_| StoreError::Panicked)??;
    Ok(copied)
}

/// Tells of every step that the copy has grown, or why it must grow no more.
struct Growth {
    file: File,
    room: Room,
    told: u64,
    sender: SyncSender<Result<(), Error>>,
}

impl Growth {
    /// Waits while too many steps are not synced; true when none will be any more.
    fn tell(&mut self) -> bool {
        let step = match self.file.metadata() {
            Ok(now) if now.len() < self.told + STEP_BYTES => return false,
            Ok(now) => {
                self.told = now.len();
                self.room.check_left(&self.file)
            }
            Err(error) => Err(cannot("look at the growing copy")(error)),
        };
        self.sender.send(step).is_err()
    }
}

/// One sync for all the steps that wait.
fn sync_each(copy: &File, steps: &Receiver<Result<(), Error>>) -> Result<(), Error> {
    while let Ok(step) = steps.recv() {
        step?;
        steps.try_iter().collect::<Result<(), Error>>()?;
        copy.sync_data().map_err(cannot("sync the growing copy"))?;
    }
    Ok(())
}
