//! A port of the loopback interface that is one test's alone, also while nobody listens on it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use tokio::net::TcpSocket;

/// A port that the system gives to nobody else until this value is dropped.
///
/// A socket is bound to it and never listens: who connects is refused, and a server that is told the number may listen
/// there, since both allow addresses to be reused. A port that was only free a moment ago, or while its server was
/// down, goes to the next of the many processes that ask for any.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// Any that is free.
    pub fn reserve() -> Self {
        let held = TcpSocket::new_v4().expect("sockets can be made");
        held.set_reuseaddr(true).expect("an address may be reused");
        held.bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into()).expect("the loopback interface has a free port");
        let address = held.local_addr().expect("a bound socket has an address");
        Self { address, _held: held }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:NUMBER`
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::HashSet,
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn a_reserved_port_is_given_to_nobody_and_serves_who_is_told_its_number() {
        let reserved: Vec<_> = (0..300).map(|_| Port::reserve()).collect();
        let numbers: HashSet<_> = reserved.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), reserved.len());
        // Each asks for any: of some 28,000 ports, 300 of which are reserved.
        let others: Vec<_> = (0..600).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        for other in others {
            assert!(!numbers.contains(&other.local_addr().expect("it has an address").port()));
        }
        let port = &reserved[0];
        TcpStream::connect(port.address()).expect_err("nobody listens");
        let server = TcpListener::bind(port.address()).expect("a server that is told the number may listen");
        TcpStream::connect(port.address()).expect("the server listens");
        drop(server);
    }
}
