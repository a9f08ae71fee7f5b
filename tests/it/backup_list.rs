//! Backups over HTTP: the list is accurate and shows nothing but backups, and a download is
//! exactly the file.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{
    Answer, Gateway, Home, PATIENCE, assert_failure, decide, decision_ids, raw_request, sha256, try_request,
    wait_until,
};

const BACKUPS: &str = "/v1/admin/backups";
const BACKUPS_NEW: &str = "/v1/admin/backup";
/// What a database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Larger than any buffer.
const LARGE: usize = 72 << 20;

fn list(gateway: &Gateway) -> Vec<Value> {
    gateway.get(BACKUPS).as_array().expect("an array").clone()
}

fn names(gateway: &Gateway) -> Vec<String> {
    list(gateway).iter().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
}

fn fetch(gateway: &Gateway, name: &str) -> Answer {
    gateway.operator("GET", &format!("{BACKUPS}/{name}"), None)
}

/// Writes a manifest next to a backup.
fn describe(folder: &Path, name: &str, file: &Value, created_at: &str) -> String {
    let text = json!({
        "format_version": 1, "backup_id": "b", "chain_id": "0".repeat(32), "created_at": created_at,
        "program": {"name": "aegis-gateway", "version": "0.1.0"}, "schema_version": 4, "file": file,
        "receipts": 7, "decisions": 7, "genesis_hash": sha256(b"first"),
        "head": {"seq": 7, "receipt_id": "r", "receipt_hash": sha256(b"head"), "ts": "t"},
        "previous_manifest": null, "checks": [],
    });
    fs::write(folder.join(format!("{name}.manifest.json")), text.to_string()).expect("written");
    text.to_string()
}

/// Bytes without repeating pieces, and their digest.
fn large() -> &'static (Vec<u8>, String) {
    static LARGE_FILE: OnceLock<(Vec<u8>, String)> = OnceLock::new();
    LARGE_FILE.get_or_init(|| {
        let word = |at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes();
        let words = (4..LARGE as u32 / 4).flat_map(word);
        let bytes: Vec<u8> = MAGIC.iter().copied().chain(words).collect();
        let digest = sha256(&bytes);
        (bytes, digest)
    })
}

fn high_water_kib(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn the_list_shows_backups_newest_first_and_nothing_else() {
    let home = Home::new();
    let gateway = home.start();
    assert_eq!(list(&gateway), Vec::<Value>::new());
    decide(&gateway.agent("a"), 3);
    let folder = home.path("backups");
    for name in ["first.db", "Köln 2.db", "third.db"] {
        gateway.backup(&home, name);
    }
    for name in [
        ".hidden",
        ".partial-0123",
        "first.db-wal",
        "x.sha256",
        "first.db.sha256",
        "y.manifest.json",
        "notes",
    ] {
        fs::write(folder.join(name), "x").expect("written");
    }
    fs::create_dir(folder.join("folder.db")).expect("made");
    symlink(folder.join("first.db"), folder.join("link.db")).expect("linked");
    assert!(Command::new("mkfifo").arg(folder.join("pipe.db")).status().expect("it runs").success());
    assert_eq!(names(&gateway), ["third.db", "Köln 2.db", "first.db"]);
    let entry = list(&gateway)[2].clone();
    assert_eq!(entry["bytes"], fs::metadata(folder.join("first.db")).expect("a file").len());
    assert!(entry["created_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{entry}");
    assert_eq!(entry["running"], false);
    assert!(entry.get("progress").is_none(), "{entry}");
    let page = gateway.get(&format!("{BACKUPS}?limit=1&offset=1"));
    assert_eq!((page.as_array().map(Vec::len), &page[0]["name"]), (Some(1), &json!("Köln 2.db")));
    assert_eq!(gateway.get(&format!("{BACKUPS}?offset=3")), json!([]));
}

#[test]
fn a_folder_that_is_not_there_yet_has_no_backups() {
    let home = Home::new();
    let gateway = home.start();
    fs::remove_dir(home.path("backups")).expect("removed");
    assert_eq!(list(&gateway), Vec::<Value>::new());
    fs::write(home.path("backups"), "a file").expect("written");
    assert_failure(&gateway.operator("GET", BACKUPS, None), 500, "InternalError");
}

#[test]
fn a_manifest_counts_where_it_names_the_file_and_its_size() {
    let home = Home::new();
    let gateway = home.start();
    let folder = home.path("backups");
    let content = MAGIC;
    let sha = sha256(content);
    let at = "2026-01-02T03:04:05.000006Z";
    for name in ["fits", "size", "name", "broken", "none", "linked", "huge"] {
        fs::write(folder.join(name), content).expect("written");
    }
    describe(&folder, "fits", &json!({"name": "fits", "bytes": 16, "sha256": sha}), at);
    describe(&folder, "size", &json!({"name": "size", "bytes": 17, "sha256": sha}), at);
    describe(&folder, "name", &json!({"name": "other", "bytes": 16, "sha256": sha}), at);
    fs::write(folder.join("broken.manifest.json"), "{").expect("written");
    let text = describe(&folder, "huge", &json!({"name": "huge", "bytes": 16, "sha256": sha}), at);
    fs::write(folder.join("huge.manifest.json"), format!("{}{text}", " ".repeat(1 << 20))).expect("written");
    symlink(folder.join("fits.manifest.json"), folder.join("linked.manifest.json")).expect("linked");
    let all = list(&gateway);
    let entry = |name: &str| all.iter().find(|entry| entry["name"] == name).expect(name).clone();
    let fits = entry("fits");
    assert_eq!(fits["created_at"], at);
    assert_eq!(fits["head"], json!({"seq": 7, "receipt_hash": sha256(b"head")}));
    assert_eq!((&fits["verified"], &fits["manifest"]), (&json!(true), &json!("fits.manifest.json")));
    for (name, has_manifest) in
        [("size", true), ("name", true), ("broken", true), ("huge", true), ("none", false), ("linked", false)]
    {
        let entry = entry(name);
        assert_eq!(entry["verified"], false, "{entry}");
        assert_eq!(entry["manifest"].is_string(), has_manifest, "{entry}");
    }
    for name in ["broken", "huge", "none", "linked"] {
        assert_eq!(entry(name)["head"], Value::Null, "{name}");
    }
    assert_eq!(all.last().map(|entry| &entry["created_at"]), Some(&json!(at)), "the oldest is last");
    for name in ["size", "name", "broken", "none", "linked"] {
        assert_eq!(fetch(&gateway, name).header("X-Content-SHA256"), None, "{name}");
    }
    assert_eq!(fetch(&gateway, "fits").header("X-Content-SHA256"), Some(sha.as_str()));
}

#[test]
fn the_backup_that_runs_is_listed_with_its_progress() {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    super::scale::generate(&home.database(), 6_000);
    let gateway = home.start();
    gateway.backup(&home, "before.db");
    let (address, token) = (gateway.address(), gateway.token.clone());
    let body = json!({"filename": "running.db"}).to_string();
    let running =
        thread::spawn(move || try_request(address, "POST", "/v1/admin/backup", Some(&token), Some(&body)));
    let mut seen = Vec::new();
    wait_until("the backup is done", || {
        let all = list(&gateway);
        let first = &all[0];
        if first["running"] == true {
            assert_eq!(
                (&first["name"], &first["verified"]),
                (&json!("running.db"), &json!(false)),
                "{first}"
            );
            assert_eq!(all.len(), 2);
            seen.push(first["progress"].as_f64().expect("a number"));
        }
        running.is_finished()
    });
    assert_eq!(running.join().expect("no panic").expect("an answer").status, 200);
    assert!(!seen.is_empty(), "it was seen running");
    assert!(seen.is_sorted() && seen.iter().all(|part| (0.0..=1.0).contains(part)), "{seen:?}");
    assert!(seen.last() > seen.first(), "it moved: {seen:?}");
    assert_eq!(names(&gateway), ["running.db", "before.db"]);
    assert!(list(&gateway).iter().all(|entry| entry["running"] == false));
}

#[test]
fn what_is_fetched_is_the_file_and_its_digest_is_true() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    let path = gateway.backup(&home, "Köln 1.db");
    let bytes = fs::read(&path).expect("readable");
    let sha = sha256(&bytes);
    let manifest = fs::read_to_string(home.path("backups/Köln 1.db.manifest.json")).expect("a manifest");
    let answer = fetch(&gateway, "K%C3%B6ln%201.db");
    assert_eq!(answer.status, 200, "{}", answer.headers);
    assert!(answer.raw == bytes, "byte for byte");
    assert_eq!(answer.header("Content-Type"), Some("application/vnd.sqlite3"));
    assert_eq!(answer.header("X-Content-SHA256"), Some(sha.as_str()));
    let disposition = answer.header("Content-Disposition").expect("a name");
    assert_eq!(disposition, "attachment; filename=\"K_ln_1.db\"; filename*=UTF-8''K%C3%B6ln%201.db");
    let digest = answer.header("Repr-Digest").expect("a digest");
    assert!(digest.starts_with("sha-256=:") && digest.len() == "sha-256=:".len() + 45, "{digest}");

    let fetched = fetch(&gateway, "K%C3%B6ln%201.db.manifest.json");
    assert_eq!((fetched.status, fetched.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(fetched.raw, manifest.as_bytes());
    let fetched = fetch(&gateway, "K%C3%B6ln%201.db.sha256");
    assert_eq!(fetched.raw, format!("{sha}  Köln 1.db\n").as_bytes());

    let head = gateway.head(&format!("{BACKUPS}/K%C3%B6ln%201.db"), &gateway.token);
    assert_eq!(head.status, 200, "{}", head.headers);
    assert_eq!(head.header("Content-Length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(head.header("Repr-Digest"), Some(digest));
}

#[test]
fn a_name_that_is_no_backup_s_is_not_found_and_nothing_is_followed() {
    let home = Home::new();
    let gateway = home.start();
    gateway.backup(&home, "b.db");
    let folder = home.path("backups");
    fs::write(home.path("outside.db"), "outside").expect("written");
    fs::write(folder.join(".hidden"), "hidden").expect("written");
    fs::write(folder.join("b.db-wal"), "a log").expect("written");
    fs::write(folder.join(".partial-00.sha256"), "partial").expect("written");
    fs::create_dir(folder.join("folder")).expect("made");
    fs::write(folder.join("folder/inside"), "inside").expect("written");
    symlink(home.path("outside.db"), folder.join("link.db")).expect("linked");
    fs::remove_file(folder.join("b.db.manifest.json")).expect("removed");
    symlink(home.path("outside.db"), folder.join("b.db.manifest.json")).expect("linked");
    symlink("/nowhere", folder.join("dangling")).expect("linked");
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().expect("it runs").success());
    let long = "a".repeat(300);
    for name in [
        "..",
        ".",
        "..%2Foutside.db",
        "%2e%2e%2foutside.db",
        "folder%2Finside",
        "%2Fetc%2Fpasswd",
        "..%5Coutside.db",
        "..%2Fdb%2Fadmin.token",
        "..%2Fdb%2Fadmin.token.sha256",
        ".hidden",
        ".partial-00.sha256",
        "b.db-wal",
        "b.db%00",
        "b.db%00.sha256",
        "b.db%0A",
        "folder",
        "link.db",
        "b.db.manifest.json",
        "dangling",
        "pipe",
        "missing.db",
        ".sha256",
        &long,
    ] {
        let answer = fetch(&gateway, name);
        assert_failure(&answer, 404, "NotFound");
        assert!(!String::from_utf8_lossy(&answer.raw).contains("outside"), "{name}");
    }
    assert_failure(&fetch(&gateway, "b.db%zz"), 400, "BadRequest");
    assert_eq!(fetch(&gateway, "b.db").status, 200);
}

/// Whoever opens and closes a file drops the locks that SQLite holds on it: a shell that
/// came next would take the database for closed, and delete its log.
#[test]
fn beside_the_database_neither_it_nor_a_token_is_a_backup_and_nothing_acknowledged_is_lost() {
    let home = Home::new().with("AEGIS_BACKUP_DIR", "db");
    let gateway = home.start();
    let folder = home.path("db");
    let agent = gateway.agent("a");
    let mut acknowledged = decide(&agent, 5);
    assert_eq!(gateway.operator("POST", BACKUPS_NEW, Some(&json!({"filename": "b.db"}))).status, 200);
    fs::hard_link(home.database(), folder.join("linked.db")).expect("linked");
    fs::write(folder.join("aegisagent.db.manifest.json"), own_manifest(&folder)).expect("written");
    assert_eq!(names(&gateway), ["b.db"]);
    for name in ["aegisagent.db", "linked.db", "aegisagent.db.lock", "aegisagent.db.identity", "admin.token"]
    {
        assert_failure(&fetch(&gateway, name), 404, "NotFound");
    }
    assert_eq!(fetch(&gateway, "b.db").status, 200);
    let shell = Connection::open(home.database()).expect("it opens");
    shell.query_row("SELECT count(*) FROM receipts", [], |_| Ok(())).expect("read");
    shell.close().expect("closed");
    acknowledged.extend(decide(&agent, 5));
    gateway.kill();
    fs::remove_file(folder.join("linked.db")).expect("removed");
    fs::remove_file(folder.join("aegisagent.db.manifest.json")).expect("removed");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(decision_ids(&home.database()), acknowledged.into_iter().collect());
}

/// The manifest of the one backup in a folder, as if it were the database's.
fn own_manifest(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("b.db.manifest.json")).expect("a manifest");
    text.replace("\"b.db\"", "\"aegisagent.db\"")
}

#[test]
fn nothing_is_deleted_or_restored_over_http() {
    let home = Home::new();
    let gateway = home.start();
    let path = gateway.backup(&home, "b.db");
    let before = fs::read(&path).expect("readable");
    for method in ["DELETE", "PUT", "POST", "PATCH"] {
        let answer = gateway.operator(method, &format!("{BACKUPS}/b.db"), Some(&json!({})));
        assert_failure(&answer, 405, "MethodNotAllowed");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD"), "{method}");
    }
    assert!(fs::read(&path).expect("it is there") == before);
}

#[test]
fn a_large_file_is_fetched_whole_in_bounded_memory() {
    let home = Home::new();
    let gateway = home.start();
    let path = home.path("backups/large.db");
    fs::write(&path, &large().0).expect("written");
    let sha = &large().1;
    describe(
        &home.path("backups"),
        "large.db",
        &json!({"name": "large.db", "bytes": LARGE, "sha256": sha}),
        "2026-01-02T03:04:05Z",
    );
    let before = high_water_kib(&gateway);
    let head = gateway.head(&format!("{BACKUPS}/large.db"), &gateway.token);
    assert_eq!(head.header("X-Content-SHA256"), Some(sha.as_str()), "{}", head.headers);
    let answer = fetch(&gateway, "large.db");
    assert_eq!(answer.header("Content-Length"), Some(LARGE.to_string().as_str()));
    assert!(answer.raw == large().0, "{} bytes", answer.raw.len());
    assert_eq!(answer.header("X-Content-SHA256"), Some(sha.as_str()));
    let grown = high_water_kib(&gateway).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more for a file of {} KiB", LARGE >> 10);
}

/// Requests a file and reads only the head and the first bytes of the body.
fn begin_to_fetch(gateway: &Gateway, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (token, host) = (&gateway.token, gateway.address());
    let head = format!(
        "GET {BACKUPS}/{name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut first = [0; 1000];
    stream.read_exact(&mut first).expect("the beginning of an answer");
    assert!(first.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&first));
    stream
}

#[test]
fn slow_readers_hold_no_worker_and_one_that_goes_on_gets_all() {
    let home = Home::new().with("AEGIS_WORKERS", "1");
    let gateway = home.start();
    fs::write(home.path("backups/large.db"), &large().0).expect("written");
    let mut slow: Vec<TcpStream> = (0..4).map(|_| begin_to_fetch(&gateway, "large.db")).collect();
    assert_failure(&fetch(&gateway, "large.db"), 503, "ServiceUnavailable");
    // The only worker stays free, even while those clients read nothing at all.
    for _ in 0..20 {
        assert_eq!(gateway.operator("GET", "/v1/receipts", None).status, 200);
    }
    let mut reader = slow.remove(0);
    drop(slow);
    let (mut taken, mut buffer) = (1000, vec![0; 1 << 16]);
    loop {
        match reader.read(&mut buffer).expect("it is not cut") {
            0 => break,
            count => taken += count,
        }
        // A well-behaved client that is slower than the disk.
        thread::park_timeout(Duration::from_micros(500));
    }
    assert!(taken > LARGE, "{taken} bytes, head included");
    wait_until("the turns are free again", || {
        let head = gateway.head(&format!("{BACKUPS}/large.db"), &gateway.token);
        head.status == 200
    });
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_cut_and_not_padded() {
    let home = Home::new();
    let gateway = home.start();
    let path = home.path("backups/large.db");
    fs::write(&path, &large().0).expect("written");
    let mut reader = begin_to_fetch(&gateway, "large.db");
    fs::File::options().write(true).open(&path).expect("it opens").set_len(40 << 20).expect("cut");
    let mut rest = Vec::new();
    let ended = reader.read_to_end(&mut rest);
    // A reset ends the transfer; a stall does not.
    let waited = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!waited, "it was never cut");
    assert!(rest.len() < 41 << 20, "{} bytes, {ended:?}", rest.len());
    assert_eq!(gateway.operator("GET", "/readyz", None).status, 200);
    wait_until("the log says why", || gateway.log().contains("the file changed while it was read"));
    let head = format!("GET {BACKUPS}/large.db HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let again = raw_request(
        gateway.address(),
        format!("{head}Authorization: Bearer {}\r\n\r\n", gateway.token).as_bytes(),
    );
    assert_eq!(again.expect("an answer").raw.len(), 40 << 20, "as it is now");
}

#[test]
fn a_stop_does_not_wait_for_a_slow_reader_for_ever() {
    let home = Home::new();
    let gateway = home.start();
    fs::write(home.path("backups/large.db"), &large().0).expect("written");
    let _slow = begin_to_fetch(&gateway, "large.db");
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}
