//! Notifies the service manager of readiness: one datagram to the socket it named in
//! `NOTIFY_SOCKET` (sd_notify(3)).
//!
//! Best effort: a manager that does not listen never stops the gateway, nor delays it by more
//! than two seconds.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long to wait for a manager whose queue is full.
const SEND_MAX: Duration = Duration::from_secs(2);

/// The state reported to the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests are being served.
    Ready,
    /// The gateway has begun to stop.
    Stopping,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Ready => "READY=1",
            State::Stopping => "STOPPING=1",
        })
    }
}

/// Tells the manager, if there is one. Failures are only logged, since the gateway works
/// without it.
pub fn tell(socket: Option<&OsString>, state: State) {
    let Some(socket) = socket else { return };
    if let Err(error) = send(socket, state) {
        log::warn!("cannot tell the service manager {state} on {}: {error}", socket.display());
    }
}

fn send(socket: &OsStr, state: State) -> io::Result<()> {
    let address = address(socket.as_bytes())?;
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(SEND_MAX))?;
    datagram.send_to_addr(state.to_string().as_bytes(), &address)?;
    Ok(())
}

/// An absolute path, or `@` and an abstract socket name (unix(7)).
fn address(socket: &[u8]) -> io::Result<SocketAddr> {
    match socket {
        [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(socket)),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it starts with neither '/' nor '@'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let bytes = manager.recv(&mut text).expect("a datagram");
        String::from_utf8_lossy(&text[..bytes]).into_owned()
    }

    #[test]
    fn a_state_is_one_datagram_on_a_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        send(path.as_os_str(), State::Ready).expect("sent");
        assert_eq!(received(&manager), "READY=1");
        send(path.as_os_str(), State::Stopping).expect("sent");
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn a_state_is_one_datagram_on_an_abstract_name() {
        let name = format!("aegis-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        send(OsStr::new(&format!("@{name}")), State::Ready).expect("sent");
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let _manager = UnixDatagram::bind(&path).expect("a socket");
        let full = (0..10_000).find_map(|_| send(path.as_os_str(), State::Ready).err());
        assert_eq!(full.expect("the queue has an end").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_that_is_none_is_an_error_not_a_panic() {
        for socket in ["relative", "vsock:2:1234", "/does/not/exist", "@does-not-exist", &"/x".repeat(200)] {
            assert!(send(OsStr::new(socket), State::Ready).is_err(), "{socket}");
        }
    }
}
