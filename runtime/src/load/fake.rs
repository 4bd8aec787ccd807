//! A server for the generator's own tests: answers CONNECT, SEND and PING from memory, and misbehaves when asked to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use wukong_proto::{
    ConnAck, Connect, Decoder, Flags, Frame, ReasonCode, Recv, Send, SendAck, Text, encode_conn_ack, encode_pong,
    encode_recv, encode_send_ack,
};
use x25519_dalek::StaticSecret;

use crate::client::crypto::{Keys, public_key};
use crate::client::random;
use crate::client::session::{recv_signature, send_signature};

/// What the server does wrong, once, with the 100th message (and connections, with the first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    NoAck,
    TwoAcks,
    NoDelivery,
    TwoDeliveries,
    Gap,
    Tampered,
    Refuses,
    RefusesLogins,
    Hangs,
    /// Closes the connection without a word.
    Drops,
}

struct Peer {
    socket: TcpStream,
    decoder: Decoder,
    keys: Option<Keys>,
    uid: Text,
    version: u8,
    out: BytesMut,
}

struct Fake {
    fault: Fault,
    listener: TcpListener,
    epoll: OwnedFd,
    peers: Vec<Option<Peer>>,
    by_uid: HashMap<Text, usize>,
    seqs: HashMap<(Text, Text), u64>,
    sends: i64,
}

/// Starts a server on a thread that lives as long as the process.
pub fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(listener, fault));
    addr
}

/// Serves on `listener` for ever.
pub fn serve(listener: TcpListener, fault: Fault) {
    listener.set_nonblocking(true).unwrap();
    let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    epoll::add(&epoll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN).unwrap();
    let (peers, by_uid, seqs) = (Vec::new(), HashMap::new(), HashMap::new());
    Fake { fault, listener, epoll, peers, by_uid, seqs, sends: 0 }.run();
}

impl Fake {
    fn run(mut self) {
        let (mut ready, mut chunk) = (Vec::with_capacity(256), vec![0; 65_536]);
        loop {
            ready.clear();
            let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None);
            for event in &ready {
                match event.data.u64() {
                    u64::MAX => self.accept(),
                    no => self.read(no as usize, &mut chunk),
                }
            }
            for peer in self.peers.iter_mut().flatten().filter(|p| !p.out.is_empty()) {
                // Tests stay far below what a socket buffers.
                let _ = peer.socket.write_all(&peer.out);
                peer.out.clear();
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
            epoll::add(&self.epoll, &socket, EventData::new_u64(self.peers.len() as u64), EventFlags::IN).unwrap();
            let (decoder, out) = (Decoder::new(5), BytesMut::new());
            self.peers.push(Some(Peer { socket, decoder, keys: None, uid: Text::EMPTY, version: 5, out }));
        }
    }

    fn read(&mut self, no: usize, chunk: &mut [u8]) {
        let Some(peer) = self.peers[no].as_mut() else {
            return;
        };
        match peer.socket.read(chunk) {
            Ok(n) if n > 0 => peer.decoder.feed(Bytes::copy_from_slice(&chunk[..n])),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
            _ => {
                self.peers[no] = None;
                return;
            }
        }
        while let Some(Ok(Some(frame))) = self.peers[no].as_mut().map(|p| p.decoder.next()) {
            match frame {
                Frame::Connect(connect) => self.on_connect(no, &connect),
                Frame::Send(send) => self.on_send(no, send),
                Frame::Ping => encode_pong(&mut self.peers[no].as_mut().unwrap().out),
                _ => {}
            }
        }
    }

    fn on_connect(&mut self, no: usize, connect: &Connect) {
        let peer = self.peers[no].as_mut().unwrap();
        let (secret, salt) = (StaticSecret::from(random::<32>()), "0123456789abcdef");
        let mut ack =
            ConnAck { server_version: Some(connect.version), reason: ReasonCode::AUTH_FAIL, ..ConnAck::default() };
        if self.fault != Fault::RefusesLogins {
            let keys = Keys::derive(&secret, &connect.client_key, salt).unwrap();
            peer.keys = Some(keys);
            ack = ConnAck {
                reason: ReasonCode::SUCCESS,
                server_key: public_key(&secret).into(),
                salt: salt.into(),
                node_id: 1,
                ..ack
            };
        }
        (peer.version, peer.uid) = (connect.version, connect.uid.detached());
        peer.decoder.set_version(connect.version);
        self.by_uid.insert(peer.uid.clone(), no);
        encode_conn_ack(&ack, connect.version, &mut peer.out).unwrap();
    }

    fn on_send(&mut self, no: usize, send: Send) {
        self.sends += 1;
        let fault = if self.sends == 100 { self.fault } else { Fault::None };
        if fault == Fault::Hangs {
            self.fault = Fault::Hangs;
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
        if fault == Fault::Drops {
            self.peers[no] = None;
            return;
        }
        let peer = self.peers[no].as_mut().unwrap();
        let keys = peer.keys.as_ref().unwrap();
        assert_eq!(send_signature(keys, &send), send.msg_key.as_bytes());
        let plain = keys.decrypt(&send.payload).unwrap();
        let seq = self.seqs.entry((peer.uid.clone(), send.channel_id.detached())).or_default();
        if fault != Fault::Refuses {
            *seq += if fault == Fault::Gap { 2 } else { 1 };
        }
        let ack = SendAck {
            flags: send.flags,
            message_id: self.sends,
            client_seq: send.client_seq,
            message_seq: if fault == Fault::Refuses { 0 } else { *seq },
            reason: if fault == Fault::Refuses { ReasonCode(22) } else { ReasonCode::SUCCESS },
            client_msg_no: send.client_msg_no.clone(),
        };
        let acks = match fault {
            Fault::NoAck => 0,
            Fault::TwoAcks => 2,
            _ => 1,
        };
        for _ in 0..acks {
            encode_send_ack(&ack, peer.version, &mut peer.out).unwrap();
        }
        let mut recv = Recv {
            flags: Flags::RED_DOT,
            from_uid: peer.uid.clone(),
            channel_id: peer.uid.clone(),
            channel_type: 1,
            client_msg_no: send.client_msg_no,
            message_id: ack.message_id,
            message_seq: ack.message_seq,
            timestamp: 1_700_000_000,
            ..Recv::default()
        };
        let to = self.by_uid.get(&send.channel_id).and_then(|no| self.peers[*no].as_mut());
        let (Some(to), false) = (to, matches!(fault, Fault::NoDelivery | Fault::Refuses)) else {
            return;
        };
        let keys = to.keys.as_ref().unwrap();
        recv.payload = keys.encrypt(&plain).into();
        recv.msg_key = String::from_utf8(recv_signature(keys, &recv).to_vec()).unwrap().into();
        if fault == Fault::Tampered {
            recv.timestamp += 1;
        }
        for _ in 0..1 + u8::from(fault == Fault::TwoDeliveries) {
            encode_recv(&recv, to.version, &mut to.out).unwrap();
        }
    }
}
