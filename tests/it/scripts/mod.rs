//! The operator's scripts, with the real binaries: what each of them promises, also
//! when a step fails, and when it is killed at any of its steps.

mod backup;
mod demo;
mod drill;
mod notify;
mod restore;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::{GATEWAY, Gateway, Home, VERIFIER};

/// The programs that change something, in the scripts' words.
const CHANGING: [&str; 7] = ["chmod", "cp", "ln", "mkdir", "mv", "rm", "rmdir"];

/// How one run of a script ended.
struct Ran {
    /// Its exit status; -1 after a signal.
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    fn assert_status(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        self
    }

    fn assert_says(&self, words: &str) -> &Self {
        assert!(self.err.contains(words) || self.out.contains(words), "{words}: {}{}", self.out, self.err);
        self
    }
}

/// A script in this folder, as cron would run it: next to nothing in its environment.
fn script(home: &Home, name: &str, arguments: &[&str]) -> Command {
    script_at(home, &source_of(name), arguments)
}

fn source_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

fn script_at(home: &Home, path: &Path, arguments: &[&str]) -> Command {
    let temporary = home.path("tmp");
    fs::create_dir_all(&temporary).expect("a folder");
    let mut command = Command::new("/bin/sh");
    command.arg(path).args(arguments);
    command.current_dir(home.path("")).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("TMPDIR", temporary).env("AEGIS_VERIFIER", VERIFIER).env("AEGIS_GATEWAY", GATEWAY);
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("sh runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { status: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// What happens at one changing step of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The script is killed before the step.
    KillBefore,
    /// The script is killed after it.
    KillAfter,
    /// The step fails.
    Fail,
    /// The script is asked to end, and the step goes on.
    Terminate,
}

/// Programs in front of the real ones, which count the steps and do the fault at one.
struct Faults {
    folder: PathBuf,
}

impl Faults {
    fn new(home: &Home) -> Self {
        let folder = home.path("faults");
        fs::create_dir_all(&folder).expect("a folder");
        for program in CHANGING {
            let text = format!(
                "#!/bin/sh\nread -r at fault <\"$0.at\"; read -r step <'{dir}/step'; step=$((step + 1))\n\
                 echo \"$step\" >'{dir}/step'\n\
                 if [ \"$step\" -eq \"$at\" ]; then case $fault in\n\
                 KillBefore) kill -9 \"$PPID\"; exit 1 ;;\n\
                 KillAfter) /bin/{program} \"$@\"; kill -9 \"$PPID\"; exit 1 ;;\n\
                 Fail) echo 'the test lets {program} fail' >&2; exit 1 ;;\n\
                 Terminate) kill -TERM \"$PPID\" ;;\n\
                 esac; fi\nexec /bin/{program} \"$@\"\n",
                dir = folder.display()
            )
            .replace("\"$0.at\"", &format!("'{}/at'", folder.display()));
            let path = folder.join(program);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Faults { folder }
    }

    /// Runs the command with the fault at that step; `None` when it has fewer steps.
    fn run_with(&self, fault: Fault, step: u32, command: &mut Command) -> Option<Ran> {
        fs::write(self.folder.join("at"), format!("{step} {fault:?}\n")).expect("written");
        fs::write(self.folder.join("step"), "0\n").expect("written");
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.folder.display()));
        let ran = run(command);
        let steps = fs::read_to_string(self.folder.join("step")).expect("a count");
        (steps.trim().parse::<u32>().expect("a number") >= step).then_some(ran)
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Decisions of an agent that is registered first.
fn decide(gateway: &Gateway, agent: &str, count: usize) -> Vec<String> {
    super::support::decide(&gateway.agent(agent), count)
}

#[test]
fn a_program_that_is_not_built_yet_is_named_with_the_command_that_builds_it() {
    let home = Home::new();
    for folder in ["bin", "backups"] {
        fs::create_dir(home.path(folder)).expect("a folder");
    }
    fs::write(home.path("a.db"), "a backup").expect("written");
    for (name, arguments, missing) in [
        ("backup.sh", &[][..], "AEGIS_VERIFIER"),
        ("restore.sh", &["a.db"], "AEGIS_VERIFIER"),
        ("drill.sh", &[], "AEGIS_VERIFIER"),
        ("drill.sh", &[], "AEGIS_GATEWAY"),
    ] {
        // Away from its folder, so that it does not find what was built here.
        let path = home.path("bin").join(name);
        fs::copy(source_of(name), &path).expect("copied");
        let mut command = script_at(&home, &path, arguments);
        command.env_remove(missing).env("PATH", "/usr/bin:/bin");
        run(&mut command).assert_status(2).assert_says("not found; build it: cargo build --release; or ");
    }
}
