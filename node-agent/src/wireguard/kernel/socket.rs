//! One generic-netlink socket, one request at a time.
//!
//! Requests and answers carry keys, so both buffers are overwritten after use. The kernel is told
//! not to echo a request in its acknowledgement.

use std::io;

use netlink_packet_core::{
    DecodeError, DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_packet_wireguard::WireguardMessage;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use zeroize::{Zeroize, Zeroizing};

use super::message::wipe;
use crate::wireguard::DeviceError;

/// At least what the kernel ever puts into one datagram of a dump.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of a generic-netlink header.
const GENERIC_HEADER_BYTES: usize = 4;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

pub(super) struct Connection {
    socket: Socket,
    family: u16,
    sequence: u32,
    answer: Zeroizing<Vec<u8>>,
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
        let socket = open_socket().map_err(io_failure)?;
        let mut connection = Self {
            socket,
            family: 0,
            sequence: 0,
            answer: Zeroizing::new(Vec::with_capacity(READ_BYTES)),
        };
        connection.family = connection.look_up_family()?;
        Ok(connection)
    }

    /// Sends a change and waits for the kernel to have made it.
    pub(super) fn change(&mut self, request: WireguardMessage) -> Result<(), DeviceError> {
        self.exchange(request, NLM_F_ACK, |_| Ok(())).map(|_| ())
    }

    /// Sends a question and hands each answer's attributes to `read`.
    pub(super) fn dump(
        &mut self,
        request: WireguardMessage,
        read: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Ended, DeviceError> {
        self.exchange(request, NLM_F_DUMP, read)
    }

    fn exchange(
        &mut self,
        request: WireguardMessage,
        flags: u16,
        read: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Ended, DeviceError> {
        let mut request = GenlMessage::from_payload(request);
        request.set_resolved_family_id(self.family);
        let mut request = self.send(request, flags)?;
        if let NetlinkPayload::InnerMessage(message) = &mut request.payload {
            wipe(&mut message.payload);
        }
        self.receive(read)
    }

    fn look_up_family(&mut self) -> Result<u16, DeviceError> {
        let name = WireguardMessage::family_name().to_owned();
        let request = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(name)],
        });
        self.send(request, NLM_F_ACK)?;
        let mut family = None;
        let header = GenlHeader {
            cmd: GenlCtrlCmd::NewFamily.into(),
            version: 1,
        };
        let answered = self.receive(|attributes| {
            let answer = GenlCtrl::parse_with_param(attributes, header)?;
            family = answer
                .nlas
                .into_iter()
                .find_map(|attribute| match attribute {
                    GenlCtrlAttrs::FamilyId(id) => Some(id),
                    _ => None,
                });
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

    fn send<M: NetlinkSerializable>(
        &mut self,
        request: M,
        flags: u16,
    ) -> Result<NetlinkMessage<M>, DeviceError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        request.finalize();
        let mut bytes = Zeroizing::new(vec![0; request.buffer_len()]);
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(io_failure)?;
        Ok(request)
    }

    /// Reads until the request of this sequence number is answered in full.
    fn receive(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<Ended, DeviceError> {
        let mut ended = Ended::Complete;
        loop {
            self.answer.zeroize();
            let received = self.socket.recv(&mut *self.answer, 0);
            received.map_err(io_failure)?;
            let mut rest = self.answer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
                let length = usize::try_from(message.length()).map_err(malformed)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.sequence_number() != self.sequence {
                    continue;
                }
                if message.flags() & NLM_F_DUMP_INTR != 0 {
                    ended = Ended::Interrupted;
                }
                match message.message_type() {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => {
                        let error = ErrorBuffer::new_checked(message.payload());
                        let code = error.map_err(malformed)?.code();
                        return status(code.map_or(0, i32::from)).map(|()| ended);
                    }
                    NLMSG_DONE => {
                        let done = DoneBuffer::new_checked(message.payload());
                        let code = done.map_or(0, |done| done.code());
                        return status(code).map(|()| ended);
                    }
                    _ => {
                        let attributes = message.payload().get(GENERIC_HEADER_BYTES..);
                        read(attributes.unwrap_or_default()).map_err(malformed)?;
                    }
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.answer.zeroize();
    }
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
