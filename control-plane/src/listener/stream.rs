//! A connection's stream: it knows its place, and ends by itself when the other side keeps it waiting.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::exchange::Exchange;
use super::patience::{Alarm, Stall};
use super::places::Place;

/// What HTTP is spoken over.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Connection),
    Tls(Box<TlsStream<Connection>>),
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    tcp: TcpStream,
    /// What came before HTTP or TLS was asked to read.
    early: Bytes,
    exchange: Rc<Exchange>,
    listening: Alarm,
    sending: Alarm,
    stall: Stall,
    _place: Place,
}

impl Connection {
    pub(super) fn new(
        tcp: TcpStream,
        early: Bytes,
        place: Place,
        exchange: Rc<Exchange>,
        send_time: Duration,
    ) -> Self {
        Self {
            tcp,
            early,
            exchange,
            listening: Alarm::default(),
            sending: Alarm::default(),
            stall: Stall::new(send_time),
            _place: place,
        }
    }

    /// The outcome of a write of so many bytes, or the end of our patience.
    fn sent(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        of: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(bytes)) => self.stall.took(bytes, of),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let at = self.stall.deadline(Instant::now());
                ready!(self.sending.poll(at, context));
                return Poll::Ready(Err(cut("slow_reader")));
            }
        }
        outcome
    }
}

impl Stream {
    pub(super) fn exchange(&self) -> &Rc<Exchange> {
        match self {
            Self::Plain(connection) => &connection.exchange,
            Self::Tls(stream) => &stream.get_ref().0.exchange,
        }
    }
}

fn cut(why: &'static str) -> io::Error {
    metrics::counter!("connections_cut_total", "why" => why).increment(1);
    io::Error::from(io::ErrorKind::TimedOut)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let part = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early.split_to(part));
            this.exchange.heard(Instant::now());
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(outcome) = Pin::new(&mut this.tcp).poll_read(context, buffer) {
            this.exchange.heard(Instant::now());
            return Poll::Ready(outcome);
        }
        let Some(at) = this.exchange.deadline() else {
            return Poll::Pending;
        };
        ready!(this.listening.poll(at, context));
        Poll::Ready(Err(cut("slow_head")))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.tcp).poll_write(context, bytes);
        this.sent(outcome, bytes.len(), context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = parts.iter().map(|part| part.len()).sum();
        let outcome = Pin::new(&mut this.tcp).poll_write_vectored(context, parts);
        this.sent(outcome, length, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
