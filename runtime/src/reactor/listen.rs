//! Accepting connections, in the two worlds the shell runs in.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

/// A listening socket of one reactor.
pub struct Acceptor {
    #[cfg(not(madsim))]
    listener: TcpListener,
    #[cfg(madsim)]
    accept: sim::Accept,
}

#[cfg(not(madsim))]
impl Acceptor {
    /// Must be called within the reactor's runtime.
    ///
    /// # Errors
    /// The socket could not be registered with the runtime.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)? })
    }

    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.listener.poll_accept(cx)
    }
}

#[cfg(madsim)]
impl Acceptor {
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { accept: sim::accept(std::sync::Arc::new(listener)) }
    }

    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let (listener, accepted) = std::task::ready!(self.accept.as_mut().poll(cx));
        self.accept = sim::accept(listener);
        Poll::Ready(accepted)
    }
}

/// The simulated listener can only be awaited.
#[cfg(madsim)]
mod sim {
    use super::{SocketAddr, TcpListener, TcpStream, io};
    use std::pin::Pin;
    use std::sync::Arc;

    pub type Accepted = (Arc<TcpListener>, io::Result<(TcpStream, SocketAddr)>);
    pub type Accept = Pin<Box<dyn Future<Output = Accepted> + Send>>;

    pub fn accept(listener: Arc<TcpListener>) -> Accept {
        Box::pin(async move {
            let accepted = listener.accept().await;
            (listener, accepted)
        })
    }
}

/// The sockets all shards of a node listen on.
#[cfg(not(madsim))]
pub mod bind {
    use super::{SocketAddr, io};
    use socket2::{Domain, Protocol, Socket, Type};
    use std::net::TcpListener;

    /// Connections that the kernel holds until they are accepted.
    const BACKLOG: i32 = 4_096;

    fn socket(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        if addr.is_ipv6() {
            // An unspecified IPv6 address then serves IPv4 too; where that cannot be, IPv6 alone is served.
            let _ = socket.set_only_v6(false);
        }
        socket.bind(&addr.into())?;
        Ok(socket)
    }

    /// `count` sockets that listen on one address; the kernel spreads connections over them.
    /// With port 0 the first one chooses the port. Returns them and the actual address.
    ///
    /// # Errors
    /// The address is in use (also by another process of ours), or may not be bound.
    pub fn listeners(addr: SocketAddr, count: usize) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
        let shared = count > 1;
        if shared && addr.port() != 0 {
            // SO_REUSEPORT would let a second server of the same user share the port in silence.
            drop(socket(addr, false)?);
        }
        let mut actual = addr;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = socket(actual, shared)?;
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from(socket);
            actual = listener.local_addr()?;
            list.push(listener);
        }
        Ok((list, actual))
    }
}
