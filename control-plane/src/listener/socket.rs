//! The socket that listens, and what the kernel does for each connection of it: these options are
//! inherited.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// A connection on which nothing is said is asked after so long whether anybody is there.
const ASK_AFTER: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(15);
/// What the kernel takes of an answer that it cannot send yet: a bound of its memory.
const UNSENT: u32 = 64 * 1024;
/// Descriptors that are no connection of a client's: databases, files, the workers' own.
const OWN_DESCRIPTORS: usize = 512;

/// Listens. A connection whose other side acknowledges nothing, or has no room, for `send_time` ends
/// even if all was written and nobody looks at it any more.
pub(super) fn listen(address: SocketAddr, send_time: Duration) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_user_timeout(Some(send_time))?;
    let keepalive = TcpKeepalive::new()
        .with_time(ASK_AFTER)
        .with_interval(ASK_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Lets this process have as many descriptors as it may give itself. Where it may not even that, it
/// goes on with what it has.
pub fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the number of descriptors stays");
    }
}

/// As many connections as wanted, or as there are descriptors for.
pub(super) fn affordable(wanted: usize) -> usize {
    let Ok((descriptors, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let possible = left_for_clients(descriptors);
    if possible < wanted {
        tracing::warn!(
            possible,
            wanted,
            "listener.few_descriptors: raise LimitNOFILE for MAX_CONNECTIONS"
        );
    }
    wanted.min(possible)
}

/// Never none: half of few is better than a service that answers nobody.
fn left_for_clients(descriptors: usize) -> usize {
    descriptors
        .saturating_sub(OWN_DESCRIPTORS)
        .max(descriptors / 2)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(65_536, 65_024)]
    #[case(1024, 512)]
    #[case(256, 128)]
    #[case(usize::MAX, usize::MAX - OWN_DESCRIPTORS)]
    fn some_descriptors_are_our_own(#[case] descriptors: usize, #[case] left: usize) {
        assert_eq!(left_for_clients(descriptors), left);
    }

    #[test]
    fn the_kernel_watches_every_connection() {
        let time = Duration::from_secs(7);
        let listener = listen("127.0.0.1:0".parse().unwrap(), time).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = Socket::from(accepted);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(time));
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), UNSENT);
    }
}
