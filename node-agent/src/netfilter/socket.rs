//! One netlink socket to nf_tables, one request at a time.
//!
//! nf_tables works while a request is being sent, so by then its answers wait in the socket: reading
//! never blocks, and an answer that is not there is an error.

use std::io;

use netlink_packet_core::{DecodeError, DoneBuffer, ErrorBuffer, NLM_F_DUMP_INTR, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::libc::MSG_DONTWAIT;

use super::Error;
use super::message::{HEADERS_BYTES, Question};

/// At least what the kernel ever puts into one datagram of a dump.
const READ_BYTES: usize = 64 * 1024;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of a netlink header alone.
const NETLINK_BYTES: usize = 16;

#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
    answer: Vec<u8>,
}

/// How a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Complete,
    /// Something changed while the kernel was telling: what was told may not fit together.
    Interrupted,
}

/// The sequence numbers of a batch's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequences {
    /// Of the begin: an error with this number is about the batch as a whole.
    pub(crate) begin: u32,
    /// Of all changes but the last.
    pub(crate) middle: u32,
    /// Of the last change, which is answered in any case.
    pub(crate) last: u32,
}

/// One message of an answer.
enum Answer<'a> {
    /// The kernel's verdict on the request with this sequence number.
    Verdict(u32, io::Result<()>),
    /// A dump is over.
    Done(u32, io::Result<()>),
    Content {
        sequence: u32,
        kind: u16,
        interrupted: bool,
        attributes: &'a [u8],
    },
}

impl Connection {
    /// Opens the socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refusals need not repeat what was sent.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            answer: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Sends a batch, which `encode` writes. On return the kernel has made all of its changes, or none.
    pub(crate) fn change(
        &mut self,
        encode: impl FnOnce(Sequences) -> Vec<u8>,
    ) -> Result<(), Error> {
        let sequences = Sequences {
            begin: self.next(),
            middle: self.next(),
            last: self.next(),
        };
        self.socket.send(&encode(sequences), 0)?;
        let mut refusal = Ok(());
        loop {
            let mut over = false;
            self.receive(|answer| {
                let Answer::Verdict(sequence, verdict) = answer else {
                    return Ok(());
                };
                let of_this = [sequences.begin, sequences.middle, sequences.last];
                if of_this.contains(&sequence) {
                    over |= sequence == sequences.last
                        || (sequence == sequences.begin && verdict.is_err());
                    if refusal.is_ok() {
                        refusal = verdict;
                    }
                }
                Ok(())
            })?;
            if over {
                return Ok(refusal?);
            }
        }
    }

    /// Sends a question and hands each answer's kind and attributes to `read`.
    pub(crate) fn ask(
        &mut self,
        question: &Question,
        mut read: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<Ended, Error> {
        let asked = self.next();
        self.socket.send(&question.encode(asked), 0)?;
        let mut ended = Ended::Complete;
        loop {
            let mut over = None;
            self.receive(|answer| {
                match answer {
                    Answer::Verdict(sequence, verdict) | Answer::Done(sequence, verdict)
                        if sequence == asked =>
                    {
                        over = Some(verdict);
                    }
                    Answer::Content {
                        sequence,
                        kind,
                        interrupted,
                        attributes,
                    } if sequence == asked => {
                        if interrupted {
                            ended = Ended::Interrupted;
                        }
                        read(kind, attributes).map_err(malformed)?;
                    }
                    _ => {}
                }
                Ok(())
            })?;
            if let Some(verdict) = over {
                return Ok(verdict.map(|()| ended)?);
            }
        }
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Reads one datagram, which may hold several messages.
    fn receive(
        &mut self,
        mut take: impl FnMut(Answer<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.answer.clear();
        self.socket.recv(&mut self.answer, MSG_DONTWAIT)?;
        let mut rest = self.answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
            let length = usize::try_from(message.length()).map_err(malformed)?;
            let sequence = message.sequence_number();
            let whole = rest.get(..length).unwrap_or_default();
            let answer = match message.message_type() {
                NLMSG_NOOP => None,
                NLMSG_ERROR => {
                    let payload = whole.get(NETLINK_BYTES..).unwrap_or_default();
                    let error = ErrorBuffer::new_checked(payload).map_err(malformed)?;
                    let code = error.code().map_or(0, i32::from);
                    Some(Answer::Verdict(sequence, verdict(code)))
                }
                NLMSG_DONE => {
                    let payload = whole.get(NETLINK_BYTES..).unwrap_or_default();
                    let code = DoneBuffer::new_checked(payload).map_or(0, |done| done.code());
                    Some(Answer::Done(sequence, verdict(code)))
                }
                kind => Some(Answer::Content {
                    sequence,
                    kind,
                    interrupted: message.flags() & NLM_F_DUMP_INTR != 0,
                    attributes: whole.get(HEADERS_BYTES..).unwrap_or_default(),
                }),
            };
            if let Some(answer) = answer {
                take(answer)?;
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Zero or a negative error number.
fn verdict(code: i32) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code.saturating_neg()))
    }
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed(error.to_string())
}
