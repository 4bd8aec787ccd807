//! The wire vectors against a live server: each malformed input has the consequence that the specification names, on TCP and
//! on WebSocket; each frame that a client may send is taken.

#[path = "vectors/expect.rs"]
mod expect;
#[path = "vectors/session.rs"]
mod session;
#[path = "vectors/wire.rs"]
mod wire;

use serde_json::Value;
use session::{Fixed, unhex};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use wire::{Transport, Wire};
use wukong_proto::Frame;
use wukong_tests::support::{Options, Server};

/// Connections at a time: most of a case is waiting.
const AT_ONCE: usize = 8;

fn vectors() -> Value {
    let path = wukong_tests::workspace_root().join("proto/tests/vectors/wire-vectors.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("the vectors are JSON")
}

struct Case {
    name: String,
    transport: Transport,
    vector: Value,
}

impl Case {
    fn text(&self, name: &str) -> &str {
        self.vector[name].as_str().unwrap_or_default()
    }

    fn version(&self) -> u8 {
        self.vector["version"].as_u64().expect("a version") as u8
    }

    /// Somebody else in each case, so that none disturbs another.
    fn uid(&self) -> String {
        format!("{}-{:?}", self.name, self.transport)
    }
}

fn cases(list: &Value, wanted: impl Fn(&Value) -> bool) -> Vec<Case> {
    let list = list.as_array().expect("a list").iter().filter(|v| wanted(v));
    let both = [Transport::Tcp, Transport::Ws];
    let case = |v: &Value, transport| Case {
        name: v["name"].as_str().expect("a name").to_owned(),
        transport,
        vector: v.clone(),
    };
    list.flat_map(|v| both.map(|t| case(v, t))).collect()
}

/// Runs all cases, several at a time, and fails with the list of those that failed.
fn run(what: &str, cases: &[Case], check: impl Fn(&Case) -> Result<(), String> + Sync) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = check(case) {
                        failed
                            .lock()
                            .expect("no panic")
                            .push(format!("{} over {:?}: {why}", case.name, case.transport));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort();
    println!("{what}: passed {} of {}", cases.len() - failed.len(), cases.len());
    assert!(failed.is_empty(), "{what}: {} failed\n  {}", failed.len(), failed.join("\n  "));
}

#[test]
fn malformed_input_has_the_consequence_that_is_specified() {
    let vectors = vectors();
    let fixed = Fixed::new(&vectors["key_exchange"]);
    let server = Server::start(Options::default());
    let list = cases(&vectors["malformed"], |_| true);
    assert!(list.len() >= 2 * 58, "the vectors lack some: {}", list.len());
    run("malformed", &list, |case| {
        let bytes = unhex(case.text("hex"));
        let expected = case.text("expected");
        let sends = bytes[0] >> 4 == 3;
        if case.text("state") == "unauthenticated" {
            let mut wire = Wire::open(&server, case.transport, case.version());
            wire.write(&bytes);
            return expect::consequence(&mut wire, expected, true, sends);
        }
        let (mut wire, live) = session::open(&server, case.transport, &fixed, &case.uid(), case.version());
        wire.write(&fixed.translate(&bytes, case.version(), &live));
        expect::consequence(&mut wire, expected, false, sends)
    });
    assert!(server.api().get("/health").status == 200, "the server is well afterwards");
}

#[test]
fn every_version_connects() {
    let vectors = vectors();
    let fixed = Fixed::new(&vectors["key_exchange"]);
    let server = Server::start(Options::default());
    let mut list = cases(&vectors["frames"], |v| v["frame"] == "CONNECT");
    for transport in [Transport::Tcp, Transport::Ws] {
        // The vectors begin with version 2; the layout is the same.
        let mut vector = list.iter().find(|c| c.name == "connect-v2").expect("there").vector.clone();
        vector["version"] = 1.into();
        let mut bytes = unhex(vector["hex"].as_str().expect("hex"));
        bytes[2] = 1;
        vector["hex"] = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into();
        list.push(Case { name: "connect-v1".into(), transport, vector });
    }
    run("connect", &list, |case| {
        let version = case.version();
        let mut wire = Wire::open(&server, case.transport, version);
        wire.write(&unhex(case.text("hex")));
        if case.vector["fields"]["clientKey"] == "" {
            return expect::conn_ack(&mut wire, 21).and_then(|_| expect::closed(&mut wire));
        }
        let ack = expect::conn_ack(&mut wire, 1)?;
        let salted = ack.salt.len() == 16 && ack.salt.bytes().all(|b| b.is_ascii_alphanumeric());
        // The flag and the version at 4 and above, never below; the node's id likewise.
        let announced = (ack.server_version, ack.node_id != 0) == ((version >= 4).then_some(version), version >= 4);
        if !salted || !announced || ack.server_key.len() != 44 {
            return Err(format!("not the CONNACK of version {version}: {ack:?}"));
        }
        fixed.live(&ack);
        expect::alive(&mut wire)
    });
}

#[test]
fn every_client_frame_is_taken() {
    let vectors = vectors();
    let fixed = Fixed::new(&vectors["key_exchange"]);
    let server = Server::start(Options::default());
    let list = cases(&vectors["frames"], |v| v["direction"] != "s2c" && v["frame"] != "CONNECT");
    run("client frames", &list, |case| {
        let version = case.version();
        let (mut wire, live) = session::open(&server, case.transport, &fixed, &case.uid(), version);
        let bytes = fixed.translate(&unhex(case.text("hex")), version, &live);
        wire.write(&bytes);
        match case.text("frame") {
            "SEND" => sent(case, &mut wire, version).and_then(|()| expect::alive(&mut wire)),
            "PING" => expect::consequence(&mut wire, "pong", false, false),
            "DISCONNECT" => expect::closed(&mut wire),
            "SUB" => expect::consequence(&mut wire, "suback or ignore; never close", false, false),
            _ => expect::alive(&mut wire),
        }
    });
}

/// The published SDK sends with the keys of its former session when it reconnects and the CONNACK is not there yet, and again
/// after it with the right ones. The first copy may be refused or dropped; the second one is stored, once.
#[test]
fn a_send_before_connack_is_taken_when_it_is_repeated() {
    let vectors = vectors();
    let fixed = Fixed::new(&vectors["key_exchange"]);
    let server = Server::start(Options::default());
    let list = cases(&vectors["frames"], |v| v["name"] == "send-v2-encrypted");
    run("send before connack", &list, |case| {
        let early = unhex(case.text("hex"));
        let mut wire = Wire::open(&server, case.transport, 2);
        wire.write(&[session::connect_frame(&fixed, &case.uid(), 2), early.clone()].concat());
        let live = fixed.live(&expect::conn_ack(&mut wire, 1)?);
        let again = fixed.translate(&early, 2, &live);
        wire.write(&again);
        let mut ack = expect::send_ack(&mut wire, |r| r == 1 || r == 9)?;
        if ack.reason.0 == 9 {
            ack = expect::send_ack(&mut wire, |r| r == 1)?;
        }
        wire.write(&again);
        let repeated = expect::send_ack(&mut wire, |r| r == 1)?;
        if (ack.message_id, ack.message_seq) != (repeated.message_id, repeated.message_seq) {
            return Err(format!("stored twice: {ack:?} and {repeated:?}"));
        }
        expect::alive(&mut wire)
    });
}

/// One SENDACK, with what belongs to this SEND.
fn sent(case: &Case, wire: &mut Wire, version: u8) -> Result<(), String> {
    let fields = &case.vector["fields"];
    let number = |name: &str| fields[name].as_u64().unwrap_or_default();
    let clear = number("setting") & 0x10 != 0;
    let signed = fields["msgKey"] != "";
    let allowed = |reason: u8| match (signed || clear, number("channelType")) {
        // Plaintext on an encrypted session, and not marked so.
        (false, _) => reason == 9,
        (true, 1) => reason == 1,
        // Nobody made that group.
        (true, _) => reason != 9 && reason != 1,
    };
    let ack = expect::send_ack(wire, allowed)?;
    let echoed = if version >= 6 { fields["clientMsgNo"].as_str().unwrap_or_default() } else { "" };
    let seq_fits = (ack.message_seq > 0) == (ack.reason.0 == 1);
    if u64::from(ack.client_seq) != number("clientSeq") || *ack.client_msg_no != *echoed || !seq_fits {
        return Err(format!("this SENDACK answers another SEND: {:?}", Frame::SendAck(ack)));
    }
    Ok(())
}
