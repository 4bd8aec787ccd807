//! The consequences that the vectors name, looked for on a live connection.

use super::wire::{Got, Wire};
use std::time::Duration;
use wukong_proto::{Frame, ReasonCode};

/// What must happen does so within this. Below the time in which an unauthenticated connection ends anyway.
const SOON: Duration = Duration::from_millis(2_500);
/// What must not happen would do so within this.
const QUIET: Duration = Duration::from_millis(400);

type Found = Result<(), String>;

pub fn closed(wire: &mut Wire) -> Found {
    match wire.next(SOON) {
        Got::Closed => Ok(()),
        got => Err(format!("expected the connection to close, got {got:?}")),
    }
}

pub fn frame(wire: &mut Wire) -> Result<Frame, String> {
    match wire.next(SOON) {
        Got::Frame(frame) => Ok(*frame),
        got => Err(format!("expected a frame, got {got:?}")),
    }
}

pub fn conn_ack(wire: &mut Wire, reason: u8) -> Result<wukong_proto::ConnAck, String> {
    match frame(wire)? {
        Frame::ConnAck(ack) if ack.reason == ReasonCode(reason) => Ok(ack),
        other => Err(format!("expected CONNACK {reason}, got {other:?}")),
    }
}

pub fn send_ack(wire: &mut Wire, allowed: impl Fn(u8) -> bool) -> Result<wukong_proto::SendAck, String> {
    match frame(wire)? {
        Frame::SendAck(ack) if allowed(ack.reason.0) => Ok(ack),
        other => Err(format!("expected another SENDACK, got {other:?}")),
    }
}

fn pong(wire: &mut Wire) -> Found {
    match frame(wire)? {
        Frame::Pong => Ok(()),
        other => Err(format!("expected PONG, got {other:?}")),
    }
}

/// The connection is open and owes nothing: a PING gives one PONG and nothing else.
pub fn alive(wire: &mut Wire) -> Found {
    wire.write(&[0x70]);
    pong(wire)
}

fn quiet(wire: &mut Wire) -> Found {
    match wire.next(QUIET) {
        Got::Nothing => Ok(()),
        got => Err(format!("expected silence, got {got:?}")),
    }
}

/// `expected` as the vectors write it; `sends` tells that the bytes hold a SEND.
pub fn consequence(wire: &mut Wire, expected: &str, unauthenticated: bool, sends: bool) -> Found {
    let number = |prefix: &str| expected.strip_prefix(prefix)?.split(',').next()?.parse::<u8>().ok();
    if let Some(reason) = number("connack:") {
        let ack = conn_ack(wire, reason)?;
        if !ack.server_key.is_empty() || !ack.salt.is_empty() || ack.time_diff != 0 {
            return Err(format!("a refusal gives nothing away: {ack:?}"));
        }
        return closed(wire);
    }
    if let Some(reason) = number("sendack:") {
        let ack = send_ack(wire, |r| r == reason)?;
        if ack.message_seq != 0 {
            return Err(format!("a refused message has no seq: {ack:?}"));
        }
        return alive(wire);
    }
    match expected {
        "close" => closed(wire),
        "wait" => quiet(wire),
        "ignore" => quiet(wire).and_then(|()| alive(wire)),
        "pong" => pong(wire).and_then(|()| alive(wire)),
        "pong, then close (type 0)" => pong(wire).and_then(|()| closed(wire)),
        "accept" if unauthenticated => conn_ack(wire, 1).and_then(|_| alive(wire)),
        "accept" if sends => send_ack(wire, |r| r == 1).and_then(|_| alive(wire)),
        "accept" => alive(wire),
        _ if expected.starts_with("hold:") => conn_ack(wire, 1).and_then(|_| pong(wire)).and_then(|()| alive(wire)),
        _ if expected.starts_with("suback or ignore") => {
            wire.write(&[0x70]);
            match frame(wire)? {
                Frame::SubAck(_) => pong(wire),
                Frame::Pong => Ok(()),
                other => Err(format!("expected SUBACK or PONG, got {other:?}")),
            }
        }
        _ => Err(format!("this test does not know the consequence '{expected}'")),
    }
}
