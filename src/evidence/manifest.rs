//! The manifest of a backup: a small witness of the history the backup holds.
//!
//! It is written beside the backup, but is most valuable when stored elsewhere: there it pins
//! the history up to its head, out of reach of whoever controls the database. Parsing is
//! strict, since a verdict rests on it. Unknown members are ignored; a newer format is rejected
//! by its version number.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::canon::Hash;
use crate::domain::json::{self, Json};
use crate::domain::restore::Position;
use crate::domain::time::Timestamp;
use crate::store::files;

/// The format that this program writes and reads.
pub const FORMAT_VERSION: i64 = 1;
/// Appended to a backup's name to form that of its manifest.
pub const SUFFIX: &str = ".manifest.json";
/// Maximum size of a manifest, in bytes.
pub const BYTES_MAX: u64 = 1 << 20;
/// Maximum number of restores a manifest lists: the newest ones.
pub const RESTORES_MAX: u32 = 32;

/// The content of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// See [`FORMAT_VERSION`].
    pub format_version: i64,
    /// UUID of the backup.
    pub backup_id: String,
    /// The chain that the backup holds.
    pub chain_id: String,
    /// When the manifest was made.
    pub created_at: String,
    /// The program that made it.
    pub program: Program,
    /// Schema version of the backup.
    pub schema_version: u32,
    /// The backup.
    pub file: BackupFile,
    /// How many receipts it holds.
    pub receipts: u64,
    /// How many decisions it holds.
    pub decisions: u64,
    /// Hash of the first receipt; null if there is none.
    pub genesis_hash: Option<String>,
    /// The newest receipt.
    pub head: Head,
    /// The latest restores that its history records, newest first.
    #[serde(default)]
    pub restores: Vec<Position>,
    /// The previous manifest of the chain in the folder.
    pub previous_manifest: Option<Previous>,
    /// The checks that ran before the backup was published.
    pub checks: Vec<Check>,
}

/// The program that made a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The backup that a manifest describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// The newest receipt of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its position; 0 while the chain is empty.
    pub seq: i64,
    /// Its id.
    pub receipt_id: Option<String>,
    /// Its hash; empty while the chain is.
    pub receipt_hash: String,
    /// When it was made.
    pub ts: Option<String>,
}

/// The previous manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its file's name.
    pub name: String,
    /// Its file's SHA-256.
    pub sha256: String,
}

/// One check that a backup passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Always `ok`: a backup that fails a check is never published.
    pub result: String,
    /// How long it took.
    pub ms: u64,
}

/// Why a text is not a usable manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadManifest(String);

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadManifest {}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        let bad = |what: &dyn fmt::Display| BadManifest(format!("not a manifest: {what}"));
        let value = json::parse(bytes).map_err(|error| bad(&error))?;
        check_version(&value)?;
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
        match manifest.fault() {
            None => Ok(manifest),
            Some(fault) => Err(bad(&fault)),
        }
    }

    /// The manifest as written to disk: indented, with a trailing newline.
    pub fn render(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Why a verdict could not rest on this manifest.
    fn fault(&self) -> Option<&'static str> {
        let head = &self.head;
        let is_hash = |text: &String| Hash::parse(text).is_some();
        let is_empty = head.seq == 0;
        let first_is_head = self.genesis_hash.as_ref() == Some(&head.receipt_hash);
        let pairs = [
            (is_chain_id(&self.chain_id), "chain_id is not 32 lowercase hexadecimal digits"),
            (Timestamp::parse(&self.created_at).is_some(), "created_at is not a time"),
            (is_hash(&self.file.sha256), "file.sha256 is not a SHA-256"),
            (is_file_name(&self.file.name), "file.name is not a bare file name"),
            (head.seq >= 0, "head.seq is negative"),
            (is_empty || is_hash(&head.receipt_hash), "head.receipt_hash is not a SHA-256"),
            (!is_empty || head.receipt_hash.is_empty(), "head.seq is 0, and head.receipt_hash not empty"),
            (head.receipt_id.is_some() != is_empty, "head.receipt_id does not go with head.seq"),
            (self.genesis_hash.is_some() != is_empty, "genesis_hash does not go with head.seq"),
            (self.genesis_hash.as_ref().is_none_or(is_hash), "genesis_hash is not a SHA-256"),
            (head.seq != 1 || first_is_head, "head is the first receipt, and not genesis_hash"),
            (
                self.previous_manifest
                    .as_ref()
                    .is_none_or(|previous| is_hash(&previous.sha256) && is_file_name(&previous.name)),
                "previous_manifest is not a file's name and its SHA-256",
            ),
        ];
        pairs.into_iter().find(|(holds, _)| !holds).map(|(_, fault)| fault)
    }
}

/// Checked before anything else: a newer format may differ in every member.
fn check_version(value: &Json) -> Result<(), BadManifest> {
    let version = match value.get("format_version") {
        Some(Json::Number(number)) if number.is_integer() => number.as_str(),
        _ => return Err(BadManifest("not a manifest: format_version is missing".to_owned())),
    };
    match version.parse::<i64>() {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(older) if older < FORMAT_VERSION => {
            Err(BadManifest(format!("format {older} is not known to this program")))
        }
        Ok(_) | Err(_) => Err(BadManifest(format!("format {version} is newer than this program"))),
    }
}

fn is_chain_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Reads a manifest file of at most [`BYTES_MAX`] bytes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    files::read_small(path, BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "a84bcc5881e29fe1da822f50fe7458e7e942f2dd3c6df2b9ce1ca85d716dc603";

    fn sample() -> serde_json::Value {
        serde_json::json!({
            "format_version": 1, "backup_id": "b", "chain_id": "0123456789abcdef0123456789abcdef",
            "created_at": "2026-11-23T00:00:00.000000Z",
            "program": {"name": "aegis-gateway", "version": "0.1.0"}, "schema_version": 2,
            "file": {"name": "b.db", "bytes": 1, "sha256": HASH},
            "receipts": 1, "decisions": 1, "genesis_hash": HASH,
            "head": {"seq": 1, "receipt_id": "rcpt_1_00", "receipt_hash": HASH, "ts": null},
            "previous_manifest": null, "checks": [{"name": "chain", "result": "ok", "ms": 1}],
        })
    }

    fn parsed(value: &serde_json::Value) -> Result<Manifest, String> {
        Manifest::parse(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_and_unknown_members_are_passed_over() {
        let manifest = parsed(&sample()).expect("a manifest");
        let text = manifest.render().expect("text");
        assert_eq!(Manifest::parse(&text), Ok(manifest.clone()));
        assert!(text.ends_with(b"}\n"));
        let mut more = sample();
        more["later"] = serde_json::json!({"x": [1]});
        more["head"]["later"] = serde_json::json!(1.5);
        assert_eq!(parsed(&more), Ok(manifest));
    }

    #[test]
    fn another_format_is_refused_by_its_number() {
        for (version, said) in [
            (serde_json::json!(2), "format 2 is newer than this program"),
            (
                serde_json::json!(99_999_999_999_999_999_999_u128 as f64),
                "not a manifest: format_version is missing",
            ),
            (serde_json::json!(0), "format 0 is not known to this program"),
            (serde_json::json!("1"), "not a manifest: format_version is missing"),
        ] {
            let mut other = serde_json::json!({"format_version": version});
            assert_eq!(parsed(&other), Err(said.to_owned()));
            other["chain_id"] = serde_json::json!(5);
            assert_eq!(parsed(&other), Err(said.to_owned()), "whatever else is in it");
        }
    }

    #[test]
    fn what_no_verdict_could_rest_on_is_refused() {
        let null = serde_json::Value::Null;
        for (at, value) in [
            ("/chain_id", "0123".into()),
            ("/chain_id", "0123456789ABCDEF0123456789ABCDEF".into()),
            ("/created_at", "yesterday".into()),
            ("/file/sha256", "x".into()),
            ("/file/name", "../b.db".into()),
            ("/head/seq", (-1).into()),
            ("/head/seq", "1".into()),
            ("/head/seq", 1.5.into()),
            ("/head/seq", 0.into()),
            ("/head/receipt_hash", "".into()),
            ("/head/receipt_hash", HASH.to_uppercase().into()),
            ("/head/receipt_id", null.clone()),
            ("/genesis_hash", null.clone()),
            ("/genesis_hash", HASH.replace('a', "b").into()),
            ("/previous_manifest", serde_json::json!({"name": "a", "sha256": "b"})),
            ("/previous_manifest", serde_json::json!({"name": "a/b", "sha256": HASH})),
            ("/file", null),
        ] {
            let mut wrong = sample();
            *wrong.pointer_mut(at).expect(at) = value;
            assert!(parsed(&wrong).is_err_and(|said| said.starts_with("not a manifest: ")), "{at}");
        }
        for text in
            ["", "[]", "5", "{}", "{\"format_version\":1}", "{\"format_version\":1,\"format_version\":1}"]
        {
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_manifest_of_an_empty_chain_is_read() {
        let mut empty = sample();
        empty["genesis_hash"] = serde_json::Value::Null;
        empty["head"] = serde_json::json!({"seq": 0, "receipt_id": null, "receipt_hash": "", "ts": null});
        assert!(parsed(&empty).is_ok());
        empty["genesis_hash"] = HASH.into();
        assert!(parsed(&empty).is_err());
    }
}
