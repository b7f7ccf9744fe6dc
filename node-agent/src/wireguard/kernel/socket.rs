//! One generic-netlink socket, one request at a time.
//!
//! Requests and answers carry keys: a request overwrites itself when it is dropped, the buffer of
//! answers is overwritten after each exchange. The kernel is told not to echo a request in its
//! acknowledgement.

use std::io;

use netlink_packet_core::{
    DecodeError, DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkBuffer,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use zeroize::Zeroizing;

use super::message::{self, HEADERS_BYTES, Request};
use crate::netlink::{exactly, find};
use crate::wireguard::DeviceError;

/// At least what the kernel ever puts into one datagram of a dump.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of a generic-netlink header.
const GENERIC_HEADER_BYTES: usize = 4;
/// Of generic netlink's own family and of WireGuard's.
const VERSION: u8 = 1;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

// <linux/genetlink.h>
const GENL_ID_CTRL: u16 = 16;
const CTRL_ATTR_FAMILY_ID: u16 = 1;

pub(super) struct Connection {
    socket: Socket,
    family: u16,
    sequence: u32,
    answer: Zeroizing<Vec<u8>>,
    /// The longest answer since the buffer was overwritten.
    longest: usize,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Complete,
    /// Something changed while the kernel was telling: what was told may not fit together.
    Interrupted,
}

impl Connection {
    /// Opens the socket in the calling thread's network namespace and looks WireGuard up, which
    /// makes the kernel load the module if it can.
    pub(super) fn open() -> Result<Self, DeviceError> {
        let mut connection = Self::with_family(GENL_ID_CTRL)?;
        connection.family = connection.look_up_family()?;
        Ok(connection)
    }

    fn with_family(family: u16) -> Result<Self, DeviceError> {
        Ok(Self {
            socket: open_socket().map_err(io_failure)?,
            family,
            sequence: 0,
            answer: Zeroizing::new(Vec::with_capacity(READ_BYTES)),
            longest: 0,
        })
    }

    /// Sends a change and waits for the kernel to have made it.
    pub(super) fn change(&mut self, request: &mut Request) -> Result<(), DeviceError> {
        self.send(request, NLM_F_ACK)?;
        self.receive(|_| Ok(())).map(|_| ())
    }

    /// Sends a question and hands each answer's attributes to `read`.
    pub(super) fn dump(
        &mut self,
        mut request: Request,
        read: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Ended, DeviceError> {
        self.send(&mut request, NLM_F_DUMP)?;
        self.receive(read)
    }

    /// Sends a question and hands the attributes of the first answer alone to `read`. The kernel
    /// tells as the reader reads: a socket of its own, closed after that, spares both the rest.
    pub(super) fn first(
        &self,
        mut request: Request,
        read: impl FnOnce(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), DeviceError> {
        let mut scratch = Self::with_family(self.family)?;
        scratch.send(&mut request, NLM_F_DUMP)?;
        let mut read = Some(read);
        let mut take = |attributes: &[u8]| read.take().map_or(Ok(()), |read| read(attributes));
        scratch.read_datagram(&mut take, &mut false)?;
        Ok(())
    }

    fn look_up_family(&mut self) -> Result<u16, DeviceError> {
        self.send(&mut message::family(), NLM_F_ACK)?;
        let mut family = None;
        let answered = self.receive(|attributes| {
            let id = find(attributes, CTRL_ATTR_FAMILY_ID)?;
            family = id.map(exactly).transpose()?.map(u16::from_ne_bytes);
            Ok(())
        });
        match answered {
            Err(DeviceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(super::no_module())
            }
            Err(error) => Err(error),
            Ok(_) => family.ok_or_else(super::no_module),
        }
    }

    /// Fills the request's headers in and sends it.
    fn send(&mut self, request: &mut Request, flags: u16) -> Result<(), DeviceError> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(request.bytes.len()).map_err(malformed)?;
        let headers = [
            length.to_ne_bytes(),
            pair(self.family, NLM_F_REQUEST | flags),
            self.sequence.to_ne_bytes(),
            [0; 4],
            [request.command, VERSION, 0, 0],
        ];
        if let Some(place) = request.bytes.first_chunk_mut::<HEADERS_BYTES>() {
            for (place, byte) in place.iter_mut().zip(headers.into_iter().flatten()) {
                *place = byte;
            }
        }
        self.socket.send(&request.bytes, 0).map_err(io_failure)?;
        Ok(())
    }

    /// Reads until the request of this sequence number is answered in full.
    fn receive(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Ended, DeviceError> {
        let mut interrupted = false;
        let result = loop {
            match self.read_datagram(&mut read, &mut interrupted) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.wipe();
        result.map(|()| {
            if interrupted {
                Ended::Interrupted
            } else {
                Ended::Complete
            }
        })
    }

    /// Reads one datagram; whether the answer is complete with it.
    fn read_datagram(
        &mut self,
        read: &mut impl FnMut(&[u8]) -> Result<(), DecodeError>,
        interrupted: &mut bool,
    ) -> Result<bool, DeviceError> {
        self.answer.clear();
        let received = self.socket.recv(&mut *self.answer, 0);
        received.map_err(io_failure)?;
        self.longest = self.longest.max(self.answer.len());
        let mut rest = self.answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
            let length = usize::try_from(message.length()).map_err(malformed)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if message.sequence_number() != self.sequence {
                continue;
            }
            *interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_NOOP => {}
                NLMSG_ERROR => {
                    let error = ErrorBuffer::new_checked(message.payload());
                    let code = error.map_err(malformed)?.code();
                    return status(code.map_or(0, i32::from)).map(|()| true);
                }
                NLMSG_DONE => {
                    let done = DoneBuffer::new_checked(message.payload());
                    let code = done.map_or(0, |done| done.code());
                    return status(code).map(|()| true);
                }
                _ => {
                    let attributes = message.payload().get(GENERIC_HEADER_BYTES..);
                    read(attributes.unwrap_or_default()).map_err(malformed)?;
                }
            }
        }
        Ok(false)
    }

    /// Overwrites every answer that was in the buffer. Once an exchange is enough: a datagram is read
    /// over the one before, and the buffer lives on.
    fn wipe(&mut self) {
        self.answer.clear();
        self.answer.resize(self.longest, 0);
        self.answer.clear();
        self.longest = 0;
    }
}

/// Two numbers as they lie one behind the other.
const fn pair(one: u16, other: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (one.to_ne_bytes(), other.to_ne_bytes());
    [a, b, c, d]
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

fn open_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// The kernel's verdict: zero or a negative error number.
fn status(code: i32) -> Result<(), DeviceError> {
    if code == 0 {
        Ok(())
    } else {
        Err(io_failure(io::Error::from_raw_os_error(
            code.saturating_neg(),
        )))
    }
}

fn io_failure(source: io::Error) -> DeviceError {
    DeviceError::from_io("WireGuard netlink", source)
}

fn malformed(error: impl std::fmt::Display) -> DeviceError {
    DeviceError::Netlink(format!("malformed answer: {error}"))
}
