//! `aegis-gateway`: only wires up arguments, settings, log, store, server and shutdown.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::config::{self, Config};
use aegis_gateway::http::server::{Server, ServerConfig};
use aegis_gateway::notify::{self, State};
use aegis_gateway::service::limits::Limits;
use aegis_gateway::service::{Gateway, health, housekeeping};
use aegis_gateway::startup::{self, Options, Started};
use aegis_gateway::stderr;
use aegis_gateway::store::guard::{Guard, Layout};
use aegis_gateway::store::{Store, files};
use aegis_gateway::token;

const USE: &str = "\
aegis-gateway: decides, records and proves what AI agents may do

Usage: aegis-gateway [--check-config | healthcheck | --help | --version]

  (nothing)        run the gateway
  --check-config   check the settings and print them; change nothing
  healthcheck      ask the running gateway whether it is ready

Settings (environment variables), with their defaults:
";

const STATUS: &str = "
Exit status: 0 stopped cleanly (or ready); 1 failed while running (or not ready);
2 usage error or invalid setting; 3 the database was refused and every file left untouched.
";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;

/// How long requests in flight may take to finish after SIGTERM.
const SHUTDOWN_MAX: Duration = Duration::from_secs(8);
/// How long `healthcheck` waits for each step.
const HEALTHCHECK_MAX: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // An argument that is not UTF-8 becomes "?", which matches nothing below.
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or("?")).collect();
    match words.as_slice() {
        [] => with_config(run),
        ["--check-config"] => with_config(|config| print(&format!("{config}\nthe settings are valid\n"))),
        ["healthcheck"] => with_config(healthcheck),
        ["--help" | "-h"] => print(&format!("{USE}{}{STATUS}", config::help())),
        ["--version" | "-V"] => print(concat!("aegis-gateway ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => fail(USAGE, "unknown arguments; see --help"),
    }
}

fn with_config(then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => then(config),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

fn run(config: Config) -> ExitCode {
    keep_freed_memory();
    if let Err(error) = start_log(&config.log_filter) {
        return fail(FAILED, &format!("cannot start the log: {error}"));
    }
    let status = start(&config);
    stderr::finish();
    status
}

fn start(config: &Config) -> ExitCode {
    for name in &config.unknown {
        log::warn!("{name} is not a known setting");
    }
    let signals = match catch_signals() {
        Ok(signals) => signals,
        Err(error) => return fail(FAILED, &format!("cannot catch signals: {error}")),
    };
    let guard = match startup::lock(&config.db_path) {
        Ok(guard) => guard,
        Err(refusal) => return fail(REFUSED, &refusal.to_string()),
    };
    // Before startup writes anything: the address may be taken. Clients that connect during
    // startup wait.
    let listener = match TcpListener::bind(config.bind_addr) {
        Ok(listener) => listener,
        Err(error) => {
            let line = format!("AEGIS_BIND_ADDR={}: cannot listen: {error}", config.bind_addr);
            return fail(USAGE, &line);
        }
    };
    let clock = Arc::new(SystemClock);
    let options = Options {
        database: &config.db_path,
        backups: &config.backup_dir,
        wal_choice: config.wal_choice,
        accept_rollback: config.accept_rollback.as_deref(),
        pre_migration_backup: config.pre_migration_backup,
    };
    let started = match startup::open(guard, &options, clock.as_ref()) {
        Ok(started) => started,
        Err(refusal) => return fail(REFUSED, &refusal.to_string()),
    };
    serve(config, clock, listener, started, signals)
}

fn serve(
    config: &Config,
    clock: Arc<SystemClock>,
    listener: TcpListener,
    started: Started,
    mut signals: Signals,
) -> ExitCode {
    let Started { store, guard, backups } = started;
    let operator = match token::obtain(&config.admin_token) {
        Ok(operator) => operator,
        Err(refusal) => return stop(&store, guard, fail(USAGE, &refusal.to_string())),
    };
    let limits = Limits::new(config.auth_failures_per_minute, config.authorize_per_second);
    let gateway = Gateway::new(store, clock, backups, operator).with_limits(limits);
    let gateway = Arc::new(gateway.with_approval_ttl(config.approval_ttl_seconds));
    let server = match listen(config, listener, &gateway, &guard) {
        Ok(server) => server,
        Err(error) => {
            let status = fail(FAILED, &format!("cannot start the server: {error}"));
            housekeeping::stop(&gateway);
            return stop(&gateway.store, guard, status);
        }
    };
    log::info!("aegis-gateway {} listens on {}", env!("CARGO_PKG_VERSION"), server.local_addr());
    notify::tell(config.notify_socket.as_ref(), State::Ready);
    if let Some(signal) = signals.forever().next() {
        log::info!("stopping on signal {signal}; a second one exits immediately");
        notify::tell(config.notify_socket.as_ref(), State::Stopping);
    }
    gateway.store.end_long_work();
    let report = server.shutdown(Instant::now() + SHUTDOWN_MAX);
    log::info!("finished {} requests, cut {}", report.finished, report.cut);
    health::stop(&gateway);
    housekeeping::stop(&gateway);
    stop(&gateway.store, guard, ExitCode::SUCCESS)
}

fn listen(
    config: &Config,
    listener: TcpListener,
    gateway: &Arc<Gateway>,
    guard: &Guard,
) -> io::Result<Server> {
    health::start(gateway)?;
    housekeeping::start(gateway)?;
    let sockets = files::with_suffix(&guard.layout().database, ".sockets");
    let workers =
        ServerConfig { workers: config.workers, body_bytes_max: config.body_bytes_max, sockets: &sockets };
    let server = Server::start(gateway, listener, workers)?;
    guard.publish_address(&server.local_addr().to_string())?;
    Ok(server)
}

/// Closes the database, which removes its write-ahead log, and releases the lock.
fn stop(store: &Store, guard: Guard, status: ExitCode) -> ExitCode {
    if let Err(error) = store.close() {
        return fail(FAILED, &format!("{error}; no acknowledged write is lost"));
    }
    match guard.release() {
        Ok(()) => status,
        Err(error) => fail(FAILED, &format!("cannot record the clean shutdown of the database: {error}")),
    }
}

/// The first SIGTERM, SIGINT or SIGHUP goes to the iterator; the second one ends the process.
/// SIGXFSZ would kill the process when a file reaches its size limit; if it is caught, the
/// write fails instead.
fn catch_signals() -> io::Result<Signals> {
    let again = Arc::new(AtomicBool::new(false));
    let mut ends = vec![SIGTERM, SIGINT];
    if !hangup_is_ignored() {
        ends.push(SIGHUP);
    }
    for &signal in &ends {
        flag::register_conditional_shutdown(signal, i32::from(FAILED), Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
    }
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Signals::new(ends)
}

/// If started by nohup(1), the gateway keeps running when its terminal closes.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Makes glibc keep freed memory instead of returning it page by page: every transaction frees
/// some, and the next one would fault it in again. Freeing one large block raises glibc's
/// thresholds to that size (mallopt(3), M_MMAP_THRESHOLD). The block is never touched, so it
/// takes no memory. Harmless with other allocators.
fn keep_freed_memory() {
    const LARGER_THAN_WHAT_IS_FREED_OFTEN: usize = 8 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGER_THAN_WHAT_IS_FREED_OFTEN)));
}

fn start_log(filter: &str) -> io::Result<()> {
    let log = stderr::Log::start()?;
    env_logger::Builder::new()
        .parse_filters(filter)
        .format(|line, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(line, "{} {level} {}", SystemClock.now(), record.args())
        })
        .target(env_logger::Target::Pipe(Box::new(log)))
        .init();
    panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
    Ok(())
}

/// Queries `/readyz` of the running gateway. With port 0, the lock file has the actual port.
fn healthcheck(config: Config) -> ExitCode {
    match ask_readiness(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(FAILED, &format!("not ready: {reason}")),
    }
}

fn ask_readiness(config: &Config) -> Result<(), String> {
    let address = running_address(config)?;
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_MAX)?;
        stream.set_read_timeout(Some(HEALTHCHECK_MAX))?;
        stream.set_write_timeout(Some(HEALTHCHECK_MAX))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(1 << 16).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(answer.lines().last().unwrap_or("no answer").to_owned())
}

fn running_address(config: &Config) -> Result<SocketAddr, String> {
    let mut address = config.bind_addr;
    if address.port() == 0 {
        let lock = Layout::of(&config.db_path).map_err(|refusal| refusal.to_string())?.lock;
        let text = std::fs::read_to_string(&lock)
            .map_err(|_| "no gateway is running on this database".to_owned())?;
        address = text.parse().map_err(|_| format!("{} does not contain an address", lock.display()))?;
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(address)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// Reports a failure in one line. Every failure of this program goes through here.
fn fail(status: u8, message: &str) -> ExitCode {
    // Not `eprintln!`, which panics if standard error cannot be written: the exit status
    // must be right in any case.
    stderr::say(&format!("aegis-gateway: {message}"));
    ExitCode::from(status)
}
