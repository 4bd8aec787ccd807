//! The generator against a server that behaves, and against servers that do not.

use super::fake::{self, Fault};
use super::*;

fn target(fault: Fault) -> Target {
    Target {
        addr: fake::start(fault),
        http: None,
        metrics: None,
        http_token: String::new(),
        token_auth: false,
        ws: false,
        version: 5,
        process: None,
    }
}

/// 20 pairs, 200 messages; returns the phase and the kinds of flaws.
fn w1(fault: Fault) -> (Phase, Vec<&'static str>) {
    let mut pairs = Pairs::start(&target(fault), Messages::new(random()), 20, 100).unwrap();
    let mut ticks = 0;
    let mut watch = |_: &Tick| {
        ticks += 1;
        ControlFlow::Continue(())
    };
    pairs.run(400.0, Duration::from_millis(100), Duration::from_millis(500), None, &mut watch).unwrap();
    pairs.drain(Duration::from_millis(300)).unwrap();
    let phase = pairs.settled();
    let (flaws, ..) = pairs.finish();
    (phase, flaws.counts().keys().copied().collect())
}

#[test]
fn a_good_server_has_figures() {
    let (phase, flaws) = w1(Fault::None);
    assert_eq!(flaws, [""; 0]);
    assert_eq!((phase.sent, phase.accepted, phase.delivered), (200, 200, 200));
    assert_eq!((phase.ack.len(), phase.recv.len(), phase.lag.len()), (200, 200, 200));
    assert!(phase.aborted.is_none() && phase.refused.is_empty());
    let mut report = Report::new("w1");
    let figures = report.phase(&phase);
    assert_eq!(figures["rate_due"], 400.0);
    assert!(report.text().contains("SENDACK"));
}

#[test]
fn a_bad_server_has_none() {
    for (fault, expected) in [
        (Fault::NoAck, "no SENDACK"),
        (Fault::TwoAcks, "second SENDACK"),
        (Fault::NoDelivery, "acked but not delivered"),
        (Fault::TwoDeliveries, "delivered twice"),
        (Fault::Gap, "gap"),
        (Fault::Tampered, "connection lost"),
        (Fault::Hangs, "no SENDACK"),
    ] {
        let (_, flaws) = w1(fault);
        assert!(flaws.contains(&expected), "{fault:?}: {flaws:?}");
    }
}

#[test]
fn a_refusal_is_no_flaw_but_is_told() {
    let (phase, flaws) = w1(Fault::Refuses);
    assert_eq!(flaws, [""; 0]);
    assert_eq!(phase.refused.values().sum::<u64>(), 1);
    assert!(saturate::not_sustained(&phase, true).unwrap().contains("refused"));
    let mut report = Report::new("w1");
    report.phase(&phase);
    assert!(report.text().contains("1 messages were refused"));
}

#[test]
fn logins_that_fail_say_what_to_do() {
    let messages = Messages::new(random());
    let refused = Pairs::start(&target(Fault::RefusesLogins), messages.clone(), 1, 10).err().unwrap();
    assert!(refused.contains("--token-auth"), "{refused}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = Target { addr: nobody, ..target(Fault::None) };
    let absent = Pairs::start(&target, messages, 1, 10).err().unwrap();
    assert!(absent.contains("wukongim run") && absent.contains("--self-host"), "{absent}");
}

#[test]
fn idle_connections_and_first_acks() {
    let (messages, own) = (Messages::new(random()), Target { process: Some(Process::own()), ..target(Fault::None) });
    let report = idle::run(&own, &messages, 100, Duration::from_millis(100)).unwrap();
    assert!(!report.failed() && report.json()["figures"]["user_bytes_per_connection"].is_number());
    let report = first_ack::run(&own, &messages, 50, 64).unwrap();
    assert_eq!(report.json()["figures"]["first_ack"]["count"], 50);
    let bad = first_ack::run(&target(Fault::Gap), &messages, 120, 64).unwrap();
    assert!(bad.failed());
}

#[test]
fn what_counts_as_sustained() {
    let phase = w1(Fault::None).0;
    assert_eq!(saturate::not_sustained(&phase, true), None);
    let why = saturate::not_sustained(&phase, false).unwrap();
    assert!(why.contains("outstanding"));
    let short = Phase { sent: 1000, ..phase.clone() };
    let why = saturate::not_sustained(&short, true).unwrap();
    assert!(why.contains("1000 due"));
    let mut slow = phase.clone();
    slow.recv.record_n(2 * saturate::P99_MAX_US, 100).expect("in range");
    let why = saturate::not_sustained(&slow, true).unwrap();
    assert!(why.contains("P99 of RECV"));
    let ended = Phase { aborted: Some("too slow".into()), ..phase };
    assert_eq!(saturate::not_sustained(&ended, true).unwrap(), "too slow");
}
