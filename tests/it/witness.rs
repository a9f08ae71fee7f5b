//! Verifying against witnesses, which finds what only a witness of the lost part can reveal.
//! Each verdict by its name, on real files, with every offender listed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::{Value, json};

use aegis_gateway::evidence::witness::verdict::{Overall, Verdict};
use aegis_gateway::evidence::witness::{self, Witnesses};

use crate::evidence::{Bench, LIE, rehash};
use crate::scale::append_restore;
use crate::support::{Gateway, Home, decide, verify};

const CUT_AT: &str = "DELETE FROM receipts WHERE seq > {n}; DELETE FROM decisions WHERE seq > {n};
    UPDATE chain SET head_seq = {n}, head_hash = (SELECT receipt_hash FROM receipts WHERE seq = {n});";

/// A stopped gateway's folder: 8 receipts, and backups that end at 3 and at 6.
fn history() -> Home {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    decide(&agent, 3);
    gateway.backup(&home, "b3.db");
    decide(&agent, 3);
    gateway.backup(&home, "b6.db");
    decide(&agent, 2);
    assert_eq!(gateway.stop(), 0);
    home
}

/// Two histories that share their first 3 receipts, and a witness of those. The second home
/// holds the stopped copy; the first has continued and has a witness at 6.
fn branches() -> (Home, Home) {
    let (first, second) = (Home::new(), Home::new());
    let gateway = first.start();
    decide(&gateway.agent("a"), 3);
    gateway.backup(&first, "b3.db");
    assert_eq!(gateway.stop(), 0);
    fs::create_dir(second.path("db")).expect("a folder");
    fs::copy(first.database(), second.database()).expect("copied");
    let gateway = first.start();
    decide(&gateway.agent("a"), 3);
    gateway.backup(&first, "b6.db");
    assert_eq!(gateway.stop(), 0);
    (first, second)
}

fn go_on(home: &Home, count: usize, also: impl FnOnce(&Gateway)) {
    let gateway = home.start();
    decide(&gateway.agent("a"), count);
    also(&gateway);
    assert_eq!(gateway.stop(), 0);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

/// The exit code and the report on `path` against `witnesses`.
fn report(path: &Path, witnesses: &[&Path]) -> (i32, Value) {
    let witnesses = witnesses.iter().map(|path| text(path));
    let arguments: Vec<&str> = ["--json", text(path), "--against"].into_iter().chain(witnesses).collect();
    let output = verify(&arguments);
    let said = serde_json::from_slice(&output.stdout);
    let said: Value = said.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(said["verified"], code(&output) == 0, "{said}");
    (code(&output), said)
}

/// An offender: kind, name of the witness, position.
fn offenders(said: &Value) -> Vec<(String, String, i64)> {
    let list = said["witnesses"]["offenders"].as_array().expect("a list");
    let name = |one: &Value| {
        let path = PathBuf::from(one["witness"].as_str().expect("a path"));
        path.file_name().expect("a name").to_string_lossy().trim_end_matches(".manifest.json").to_owned()
    };
    let kind = |one: &Value| one["kind"].as_str().expect("a kind").to_owned();
    list.iter().map(|one| (kind(one), name(one), one["seq"].as_i64().unwrap_or(-1))).collect()
}

fn offender(kind: &str, name: &str, seq: i64) -> (String, String, i64) {
    (kind.to_owned(), name.to_owned(), seq)
}

/// As JSON and as text: this verdict, exit status 1, and exactly these offenders.
fn assert_offends(path: &Path, folder: &Path, verdict: &str, expected: &[(&str, &str, i64)]) -> Value {
    let (code, said) = report(path, &[folder]);
    assert_eq!((code, &said["verdict"]), (1, &json!(verdict)), "{said}");
    let expected: Vec<_> = expected.iter().map(|(kind, name, seq)| offender(kind, name, *seq)).collect();
    assert_eq!(offenders(&said), expected, "{said}");
    let output = verify(&[text(path), "--against", text(folder)]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        words.lines().any(|line| line.contains(&format!("{verdict}: "))
            || line.starts_with(&format!("TAMPERED ({verdict}): "))),
        "{words}"
    );
    for (kind, name, seq) in &expected {
        let said = words.lines().any(|line| line.starts_with(&kind.replace('_', " ")) && line.contains(name));
        assert!(said, "{kind} {name} {seq}: {words}");
    }
    said
}

#[test]
fn what_witnesses_saw_is_there_and_what_none_has_seen_is_counted() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    decide(&agent, 3);
    gateway.backup(&home, "b3.db");
    decide(&agent, 2);
    let check = |state: &str, unseen: i64| {
        let before = home.snapshot("backups");
        let (code, said) = report(&home.database(), &[&home.path("backups")]);
        assert_eq!((code, &said["verdict"]), (0, &json!("verified")), "{state}: {said}");
        assert_eq!(
            said["witnesses"],
            json!({"matched": 1, "other_chains": 0, "unreadable": 0, "unreadable_files": [], "offenders": [],
                   "acknowledged_forks": [], "later_than_backup": 0, "unseen_receipts": unseen, "newest_seq": 3}),
            "{state}"
        );
        assert!(home.snapshot("backups") == before, "{state}: something was touched");
    };
    check("running", 2);
    decide(&agent, 1);
    gateway.kill();
    check("killed", 3);
    assert_eq!(home.start().stop(), 0);
    check("stopped", 3);
    let output = verify(&[text(&home.database()), "--against", text(&home.path("backups"))]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.starts_with("verified: 6 receipts"), "{words}");
    assert!(
        words.contains("1 matched") && words.contains("3 receipts since the newest witness (seq 3)"),
        "{words}"
    );
}

#[test]
fn a_tail_that_was_cut_off_is_truncated_though_the_chain_agrees_with_itself() {
    let home = history();
    let (bench, folder) = (Bench::new(&home), home.path("backups"));
    for (cut, expected) in [
        (5, &[("truncated", "b6.db", 6)][..]),
        // Exactly at a witness: a gateway has run on it, so it is not a backup.
        (3, &[("truncated", "b6.db", 6)]),
        (2, &[("truncated", "b3.db", 3), ("truncated", "b6.db", 6)]),
    ] {
        let path = bench.after(&CUT_AT.replace("{n}", &cut.to_string()));
        assert_eq!(code(&verify(&[text(&path)])), 0, "{cut}: by itself it is whole");
        assert_offends(&path, &folder, "truncated", expected);
    }
    let all = "DELETE FROM receipts; DELETE FROM decisions; UPDATE chain SET head_seq = 0, head_hash = ''";
    let expected = [("truncated", "b3.db", 3), ("truncated", "b6.db", 6)];
    assert_offends(&bench.after(all), &folder, "truncated", &expected);
    assert_eq!(
        report(&bench.after(&CUT_AT.replace("{n}", "6")), &[&folder]).0,
        0,
        "what nobody saw, nobody misses"
    );
}

#[test]
fn a_history_that_was_rewritten_and_hashed_again_is_rewritten() {
    let home = history();
    let (bench, folder) = (Bench::new(&home), home.path("backups"));
    let forged = |lie: &str, from: i64| {
        bench.edited(|database| {
            database.execute_batch(lie).expect("edited");
            let head = rehash(database, from);
            database.execute("UPDATE chain SET head_hash = ?1", [head]).expect("set");
        })
    };
    let path = forged(LIE, 2);
    assert_eq!(code(&verify(&[text(&path)])), 0, "by itself it is whole");
    let both = [("rewritten", "b3.db", 3), ("rewritten", "b6.db", 6)];
    assert_offends(&path, &folder, "rewritten", &both);
    assert_offends(&forged(&LIE.replace('2', "5"), 5), &folder, "rewritten", &both[1..]);
    assert_offends(&forged(&LIE.replace('2', "1"), 1), &folder, "rewritten", &both);
    let renamed = bench.after("UPDATE chain SET chain_id = '00112233445566778899aabbccddeeff'");
    assert_offends(&renamed, &folder, "rewritten", &both);
}

#[test]
fn a_copy_that_another_gateway_went_on_with_is_forked() {
    let (first, second) = branches();
    go_on(&second, 2, |_| ());
    let folder = first.path("backups");
    assert_offends(&second.database(), &folder, "truncated", &[("truncated", "b6.db", 6)]);
    go_on(&second, 2, |_| ());
    assert_eq!(code(&verify(&[text(&second.database())])), 0, "by itself it is whole");
    let said = assert_offends(&second.database(), &folder, "forked", &[("forked", "b6.db", 6)]);
    assert_eq!(said["witnesses"]["matched"], 1, "{said}");
}

#[test]
fn a_restore_that_the_chain_records_acknowledges_the_branch_it_left() {
    let hash = "0".repeat(64);
    for (known, acknowledged) in [
        (format!("6:{hash}"), true),
        (format!("9:{hash}"), true),
        (format!("5:{hash}"), false),
        ("none".into(), false),
    ] {
        let (first, second) = branches();
        let folder = first.path("backups");
        append_restore(&second.database(), &format!("head:3:{hash} known:{known}"));
        // At first shorter than the abandoned branch, then longer.
        for (receipts, otherwise) in [(4, "truncated"), (8, "forked")] {
            if receipts > 4 {
                go_on(&second, 4, |_| ());
            }
            let (code, said) = report(&second.database(), &[&folder]);
            let forks = said["witnesses"]["acknowledged_forks"].as_array().expect("a list");
            if acknowledged {
                assert_eq!((code, &said["verdict"]), (0, &json!("verified")), "{known}: {said}");
                assert_eq!((&forks[0]["seq"], &forks[0]["restored_at"]), (&json!(6), &json!(4)), "{said}");
            } else {
                assert_eq!((code, &said["verdict"]), (1, &json!(otherwise)), "{known}: {said}");
                assert!(forks.is_empty(), "{said}");
            }
        }
    }
}

#[test]
fn a_restore_excuses_no_loss_of_what_came_after_it() {
    let (first, second) = branches();
    append_restore(&second.database(), &format!("head:3:{0} known:6:{0}", "0".repeat(64)));
    go_on(&second, 2, |gateway| drop(gateway.backup(&second, "c6.db")));
    let (first, own) = (first.path("backups"), second.path("backups"));
    let (code, said) = report(&second.database(), &[&first, &own]);
    assert_eq!((code, &said["witnesses"]["matched"]), (0, &json!(2)), "{said}");
    let bench = Bench::new(&second);
    let cut = bench.after(&CUT_AT.replace("{n}", "5"));
    let (code, said) = report(&cut, &[&first, &own]);
    assert_eq!((code, &said["verdict"]), (1, &json!("truncated")), "{said}");
    assert_eq!(offenders(&said), [offender("truncated", "c6.db", 6)], "{said}");
    assert_eq!(said["witnesses"]["acknowledged_forks"].as_array().map(Vec::len), Some(1), "{said}");
}

#[test]
fn a_chain_that_no_witness_saw_is_unwitnessed_and_fails_where_one_is_required() {
    let (home, other) = (history(), history());
    let folder = other.path("backups");
    let (status, said) = report(&home.database(), &[&folder]);
    assert_eq!((status, &said["verdict"]), (0, &json!("unwitnessed")), "{said}");
    assert_eq!(
        (&said["witnesses"]["other_chains"], &said["witnesses"]["matched"]),
        (&json!(2), &json!(0)),
        "{said}"
    );
    let path = home.database();
    let required = |witness: &Path| {
        let output = verify(&["--require-witness", text(&path), "--against", text(witness)]);
        (code(&output), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (status, words) = required(&folder);
    assert!(status == 1 && words.starts_with("unwitnessed: 8 receipts"), "{status} {words}");
    let empty = home.path("empty");
    fs::create_dir(&empty).expect("a folder");
    assert_eq!(required(&empty).0, 1);
    assert_eq!(required(&home.path("backups")).0, 0);
}

#[test]
fn a_manifest_that_was_edited_is_found_by_the_one_after_it() {
    let home = history();
    let folder = home.path("backups");
    let first = folder.join("b3.db.manifest.json");
    let whole = fs::read_to_string(&first).expect("a manifest");
    let verdict = |text: &str| {
        fs::write(&first, text).expect("written");
        report(&home.database(), &[&folder])
    };
    // Edit a member that no verdict depends on.
    let (code, said) = verdict(&whole.replace("\"version\": \"", "\"version\": \"9"));
    assert_eq!((code, &said["verdict"]), (1, &json!("altered")), "{said}");
    assert_eq!(offenders(&said), [offender("manifest_altered", "b6.db", -1)], "{said}");
    assert_eq!(said["witnesses"]["offenders"][0]["path"], text(&first));
    // Edit it to belong to another chain, or to none.
    let chain_id = said_of(&whole)["chain_id"].as_str().expect("an id").to_owned();
    let genesis = said_of(&whole)["genesis_hash"].as_str().expect("a hash").to_owned();
    let foreign = whole.replace(&chain_id, &"0".repeat(32)).replace(&genesis, &"0".repeat(64));
    let (code, said) = verdict(&foreign);
    assert_eq!((code, &said["witnesses"]["other_chains"]), (1, &json!(1)), "{said}");
    assert_eq!(offenders(&said), [offender("manifest_altered", "b6.db", -1)], "{said}");
    let (code, said) = verdict("{");
    assert_eq!((code, &said["verdict"]), (1, &json!("altered")), "{said}");
    // Edit what it pins: reported as both.
    let head = said_of(&whole)["head"]["receipt_hash"].as_str().expect("a hash").to_owned();
    let (code, said) = verdict(&whole.replace(&head, &"0".repeat(64)));
    assert_eq!((code, &said["verdict"]), (1, &json!("rewritten")), "{said}");
    let both = [offender("rewritten", "b3.db", 3), offender("manifest_altered", "b6.db", -1)];
    assert_eq!(offenders(&said), both, "{said}");
    // A missing manifest proves nothing and accuses nobody: the rest still verifies.
    fs::remove_file(&first).expect("removed");
    fs::remove_file(folder.join("b3.db")).expect("removed");
    assert_eq!(report(&home.database(), &[&folder]).0, 0);
    assert_eq!(verdict(&whole).0, 0);
}

fn said_of(manifest: &str) -> Value {
    serde_json::from_str(manifest).expect("JSON")
}

#[test]
fn what_cannot_be_read_is_listed_in_a_folder_and_refused_by_its_name() {
    let home = history();
    let folder = home.path("backups");
    let newer = folder.join("n.db.manifest.json");
    fs::write(&newer, "{\"format_version\": 2, \"head\": 5}").expect("written");
    let broken = folder.join("x.manifest.json");
    fs::write(&broken, "not JSON").expect("written");
    let foreign = folder.join("foreign.db");
    Connection::open(&foreign).expect("opened").execute_batch("CREATE TABLE t (a)").expect("made");
    for (name, content) in [("notes.txt", "hello"), (".hidden.manifest.json", "{"), ("empty", "")] {
        fs::write(folder.join(name), content).expect("written");
    }
    let (status, said) = report(&home.database(), &[&folder]);
    assert_eq!((status, &said["verdict"]), (0, &json!("verified")), "{said}");
    assert_eq!(
        (&said["witnesses"]["matched"], &said["witnesses"]["unreadable"]),
        (&json!(2), &json!(3)),
        "{said}"
    );
    let listed = said["witnesses"]["unreadable_files"].as_array().expect("a list");
    let paths: Vec<_> = listed.iter().map(|one| one["path"].as_str().expect("a path")).collect();
    assert_eq!(paths, [text(&foreign), text(&newer), text(&broken)]);
    assert_eq!(listed[1]["reason"], "format 2 is newer than this program");
    let output = verify(&[text(&home.database()), "--against", text(&folder)]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.contains("n.db.manifest.json: format 2 is newer than this program"), "{words}");
    let named = [newer, broken, foreign, folder.join("notes.txt"), folder.join("missing"), home.database()];
    for witness in named {
        let output = verify(&[text(&home.database()), "--against", text(&witness)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 2, "{}: {output:?}", witness.display());
        assert!(said.lines().count() == 1 && said.contains(text(&witness)), "{said}");
        assert!(output.stdout.is_empty(), "half a report: {output:?}");
    }
}

#[test]
fn a_backup_is_a_witness_too_with_its_manifest_or_without() {
    let home = history();
    let (bench, folder) = (Bench::new(&home), home.path("backups"));
    let cut = bench.after(&CUT_AT.replace("{n}", "5"));
    for (witnesses, expected) in [
        (vec![folder.join("b3.db")], vec![]),
        (vec![folder.join("b3.db"), folder.join("b6.db")], vec![offender("truncated", "b6.db", 6)]),
        (vec![folder.join("b6.db.manifest.json")], vec![offender("truncated", "b6.db", 6)]),
        (vec![home.database()], vec![offender("truncated", "aegisagent.db", 8)]),
    ] {
        let witnesses: Vec<&Path> = witnesses.iter().map(PathBuf::as_path).collect();
        let (code, said) = report(&cut, &witnesses);
        assert_eq!((code == 1, offenders(&said)), (!expected.is_empty(), expected), "{said}");
    }
    // In a folder, a backup without its manifest is itself a witness, counted once.
    fs::remove_file(folder.join("b6.db.manifest.json")).expect("removed");
    let before = home.snapshot("backups");
    assert_offends(&cut, &folder, "truncated", &[("truncated", "b6.db", 6)]);
    assert!(home.snapshot("backups") == before, "something was touched");
    assert_eq!(
        report(&home.database(), &[&folder, &home.path("db")]).1["witnesses"]["matched"],
        2,
        "not itself"
    );
}

#[test]
fn a_backup_is_not_truncated_by_later_witnesses_until_a_gateway_ran_on_it() {
    let home = history();
    let folder = home.path("backups");
    let (code, said) = report(&folder.join("b3.db"), &[&folder]);
    assert_eq!((code, &said["verdict"]), (0, &json!("verified")), "{said}");
    let counts = (&said["witnesses"]["matched"], &said["witnesses"]["later_than_backup"]);
    assert_eq!(counts, (&json!(1), &json!(1)), "{said}");

    let elsewhere = Home::new();
    fs::create_dir(elsewhere.path("db")).expect("a folder");
    fs::copy(folder.join("b3.db"), elsewhere.database()).expect("copied");
    assert_eq!(report(&elsewhere.database(), &[&folder]).0, 0, "a copy of it is one too");
    assert_offends_without(&elsewhere.database(), &folder.join("b6.db.manifest.json"));
    assert_eq!(elsewhere.start().stop(), 0);
    let (code, said) = report(&elsewhere.database(), &[&folder]);
    assert_eq!((code, &said["verdict"]), (1, &json!("truncated")), "{said}");
}

/// Without a witness of its head, a backup is indistinguishable from a truncated chain.
fn assert_offends_without(path: &Path, later: &Path) {
    let (code, said) = report(path, &[later]);
    assert_eq!((code, &said["verdict"]), (1, &json!("truncated")), "{said}");
}

#[test]
fn a_backup_that_is_not_the_file_its_manifest_describes_is_altered() {
    let home = history();
    let (folder, path) = (home.path("backups"), home.path("backups/b3.db"));
    let whole = fs::read(&path).expect("a file");
    assert_eq!(report(&path, &[&folder]).0, 0);
    let database = Connection::open(&path).expect("a database");
    database.execute_batch("UPDATE agents SET name = 'b'").expect("edited");
    database.close().expect("closed");
    assert_ne!(fs::read(&path).expect("a file"), whole);
    assert_eq!(code(&verify(&[text(&path)])), 0, "by itself it is whole");
    assert_offends(&path, &folder, "altered", &[("digest_mismatch", "b3.db", -1)]);
    let database = Connection::open(&path).expect("a database");
    let grown = "CREATE TABLE extra (a); INSERT INTO extra VALUES (zeroblob(20000))";
    database.execute_batch(grown).expect("grown");
    database.close().expect("closed");
    let (code, said) = report(&path, &[&folder]);
    assert_eq!((code, offenders(&said)), (1, vec![offender("digest_mismatch", "b3.db", -1)]), "{said}");
    assert_eq!(said["witnesses"]["offenders"][0]["expected"], format!("{} bytes", whole.len()));
}

#[test]
fn another_backup_that_was_cut_or_emptied_is_altered_and_one_that_is_gone_is_not() {
    let home = history();
    let (folder, cut) = (home.path("backups"), home.path("backups/b3.db"));
    let whole = fs::read(&cut).expect("a file");
    let mismatch = [("digest_mismatch", "b3.db", -1)];
    for content in [&whole[..whole.len() / 2], &[], &[&whole[..], b"x"].concat()] {
        fs::write(&cut, content).expect("written");
        for path in [home.database(), folder.join("b6.db")] {
            let said = assert_offends(&path, &folder, "altered", &mismatch);
            let one = &said["witnesses"]["offenders"][0];
            assert_eq!(
                (&one["path"], &one["expected"], &one["found"]),
                (
                    &json!(text(&cut)),
                    &json!(format!("{} bytes", whole.len())),
                    &json!(format!("{} bytes", content.len())),
                )
            );
            let alone = verify(&[text(&path), "--path-only", "--against", text(&folder)]);
            assert_eq!(code(&alone), 0, "{alone:?}");
        }
    }
    // With its manifest alone, too; but a chain's verdict ignores another chain's backups.
    let (other, manifest) = (history(), folder.join("b3.db.manifest.json"));
    assert_eq!(report(&home.database(), &[&manifest]).0, 1);
    let (status, said) = report(&other.database(), &[&folder]);
    assert_eq!((status, &said["verdict"]), (0, &json!("unwitnessed")), "{said}");
    // Changed content of the same size is not checked.
    fs::write(&cut, vec![0; whole.len()]).expect("written");
    assert_eq!(report(&home.database(), &[&folder]).0, 0);
    fs::remove_file(&cut).expect("pruned");
    assert_eq!(report(&home.database(), &[&folder]).0, 0);
    fs::create_dir(&cut).expect("a folder");
    assert_offends(&home.database(), &folder, "altered", &mismatch);
}

#[test]
fn a_backup_whose_manifest_counts_otherwise_is_altered() {
    let home = history();
    let (folder, path) = (home.path("backups"), home.path("backups/b6.db"));
    // The newest manifest: no later one describes it.
    let manifest = folder.join("b6.db.manifest.json");
    let whole = fs::read_to_string(&manifest).expect("a manifest");
    for (member, said) in [("receipts", "9 receipts"), ("decisions", "9 decisions")] {
        let edited = whole.replace(&format!("\"{member}\": 6"), &format!("\"{member}\": 9"));
        assert_ne!(edited, whole);
        fs::write(&manifest, edited).expect("written");
        let report = assert_offends(&path, &folder, "altered", &[("count_mismatch", "b6.db", -1)]);
        assert_eq!(report["witnesses"]["offenders"][0]["expected"], said, "{report}");
    }
}

#[test]
fn a_chain_that_is_broken_by_itself_is_broken_and_its_offenders_are_listed_all_the_same() {
    let home = history();
    let (bench, folder) = (Bench::new(&home), home.path("backups"));
    let cut = CUT_AT.replace("{n}", "5");
    let path = bench.after(&format!("{cut} UPDATE receipts SET tool = 'x' WHERE seq = 2"));
    let said = assert_offends(&path, &folder, "broken", &[("truncated", "b6.db", 6)]);
    assert!(said["break_count"].as_u64() > Some(0), "{said}");
    let gone = bench.after("DELETE FROM chain");
    let both = [("rewritten", "b3.db", 3), ("rewritten", "b6.db", 6)];
    assert_offends(&gone, &folder, "broken", &both);
    let output = verify(&[text(&path), "--expect-head", &"0".repeat(64), "--against", text(&folder)]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("TAMPERED (broken): "), "{output:?}");
}

#[test]
fn witnesses_stand_after_against_up_to_the_next_option_and_the_database_before_or_after_two_dashes() {
    let home = history();
    let (database, folder) = (home.database(), home.path("backups"));
    let (database, folder) = (text(&database), text(&folder));
    let one = home.path("backups/b3.db");
    for arguments in [
        &[database, "--against", folder][..],
        &["--against", folder, "--json", database],
        &["--against", folder, "--", database],
        &["--against", folder, text(&one), "--", database],
        &["--against", folder, "--against", text(&one), "--require-witness", database],
    ] {
        let output = verify(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {output:?}");
    }
    let export = home.path("export.json");
    fs::write(&export, "[]").expect("written");
    for (arguments, said) in [
        (&["--against", folder, database][..], "exactly one PATH"),
        (&[database, "--against"], "--against needs a witness"),
        (&["--against", "--json", database], "--against needs a witness"),
        (&[database, "--require-witness"], "--require-witness needs --against"),
        (&[database, "--path-only"], "--path-only needs --against"),
        (&[database, "--against", folder, "--", database], "exactly one PATH"),
        (&[text(&export), "--against", folder], "needs a database"),
    ] {
        let output = verify(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((code(&output), words.lines().count()), (2, 1), "{arguments:?}: {output:?}");
        assert!(words.contains(said), "{arguments:?}: {words}");
    }
}

/// What a start checks: only the manifests, and only the rows they refer to.
#[test]
fn a_database_is_judged_by_a_folder_of_manifests_without_reading_the_rest_of_it() {
    let home = history();
    let folder = home.path("backups");
    let chain_id = said_of(&fs::read_to_string(folder.join("b3.db.manifest.json")).expect("a manifest"));
    let chain_id = chain_id["chain_id"].as_str().expect("an id");
    fs::write(folder.join("x.manifest.json"), "{").expect("written");
    let witnesses = Witnesses::of_folder(&folder, chain_id, &home.database()).expect("a folder");
    let edited = "UPDATE receipts SET tool = 'x' WHERE seq = 2";
    for (statements, verdict, expected) in [
        (edited.to_owned(), Overall::Verified, [Verdict::Matched, Verdict::Matched]),
        (CUT_AT.replace("{n}", "5"), Overall::Truncated, [Verdict::Matched, Verdict::Truncated]),
    ] {
        let bench = Bench::new(&home);
        let path = bench.after(&statements);
        let database = Connection::open(&path).expect("a database");
        let report = witness::judge(&database, &witnesses).expect("judged");
        let verdicts: Vec<Verdict> = report.judged.iter().map(|judged| judged.verdict).collect();
        assert_eq!(verdicts, expected, "{statements}");
        assert_eq!(report.overall(false), verdict, "{statements}");
        let newest = report.newest.expect("a witness");
        assert_eq!((newest.pin.seq, &newest.path), (6, &folder.join("b6.db.manifest.json")));
        assert_eq!(report.unreadable.len(), 1);
    }
    // Databases are not opened, so one without a manifest does not count.
    fs::remove_file(folder.join("b6.db.manifest.json")).expect("removed");
    let without = Witnesses::of_folder(&folder, chain_id, &home.database()).expect("a folder");
    let database = Connection::open(home.database()).expect("a database");
    assert_eq!(
        witness::judge(&database, &without).expect("judged").newest.map(|newest| newest.pin.seq),
        Some(3)
    );
    let nowhere = Witnesses::of_folder(&home.path("nowhere"), chain_id, &home.database())
        .expect("no folder, no witnesses");
    assert_eq!(witness::judge(&database, &nowhere).expect("judged").overall(false), Overall::Unwitnessed);
    assert!(
        Witnesses::of_folder(&folder.join("b3.db"), chain_id, &home.database()).is_err(),
        "a file is no folder"
    );
}
